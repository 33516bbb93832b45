//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::time;

/// Looks at an oteld cluster and asks it questions.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  otelctl cluster status
  otelctl --endpoint http://front-1:8081 node list -o json
  otelctl query promql 'sum by (service_name) (rate(http_server_requests_total[5m]))'
  otelctl query logql '{service_name=\"checkout\"} |= \"error\"' --start 1h

Exit status: 0 done, 1 the server refused (its message is printed), 2 no answer or wrong usage.
`cluster status` has its own, see its --help."
)]
pub(crate) struct Arguments {
    /// Query port of any node, HOST:PORT or http://HOST:PORT.
    #[arg(long, global = true, env = "OTELCTL_ENDPOINT", default_value = "http://127.0.0.1:8081")]
    pub(crate) endpoint: String,
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Tenant to ask as; sent as X-Scope-OrgID.
    #[arg(long, global = true)]
    pub(crate) tenant: Option<String>,
    /// Seconds to wait for an answer.
    #[arg(long, global = true, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The cluster as a whole.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Its nodes.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Its shards.
    Shards {
        #[command(subcommand)]
        command: ShardsCommand,
    },
    /// Ask for metrics, logs or traces.
    Query {
        #[command(subcommand)]
        command: QueryCommand,
    },
}

#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Is it well? The verdict, the meta group, the nodes and the shards on one screen.
    #[command(after_help = "\
Exit status:
  0  healthy
  1  degraded: all data can be read and written, but a replica, node or meta member is missing
  2  unavailable: some data cannot be read or written, or nothing answered

Examples:
  otelctl cluster status
  otelctl cluster status -o json
  until otelctl cluster status >/dev/null; do sleep 1; done")]
    Status,
}

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Every node: address, roles, zone, state, shards, disk, ingest rate, age of its last heartbeat.
    #[command(after_help = "Example:\n  otelctl node list -o json")]
    List,
}

#[derive(Subcommand)]
pub(crate) enum ShardsCommand {
    /// Every shard: epoch, replicas and their states, and where a move leads.
    #[command(after_help = "Example:\n  otelctl shards list")]
    List,
}

#[derive(Subcommand)]
pub(crate) enum QueryCommand {
    /// Metrics, in Prometheus' language.
    #[command(after_help = "\
Examples:
  otelctl query promql 'up'
  otelctl query promql 'rate(http_server_requests_total[5m])' --start 1h --step 1m
  otelctl query promql 'up' --time 2026-01-31T12:00:00Z")]
    Promql(QueryArguments),
    /// Logs, in Loki's language.
    #[command(after_help = "\
Examples:
  otelctl query logql '{service_name=\"checkout\"} |= \"error\"' --start 15m --limit 20
  otelctl query logql 'sum by (service_name) (rate({service_name=~\".+\"}[5m]))'")]
    Logql(QueryArguments),
    /// Traces, in Tempo's language.
    #[command(after_help = "\
Example:
  otelctl query traceql '{ resource.service.name = \"checkout\" }' --start 1h --limit 10")]
    Traceql(QueryArguments),
}

#[derive(Args)]
pub(crate) struct QueryArguments {
    /// What to ask, in one argument: put it in single quotes.
    pub(crate) query: String,
    /// Ask for a range from here: an age like 15m or 1h30m, a time like 2026-01-31T12:00:00Z, unix seconds, or now.
    /// Log lines are looked for in the last hour when nothing is said.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) start: Option<u64>,
    /// … to here, in the same forms (default: now).
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "start")]
    pub(crate) end: Option<u64>,
    /// Distance of the points of a range, like 30s or 1m.
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration, requires = "start")]
    pub(crate) step: Option<Duration>,
    /// Ask for one moment, in the same forms (default: now).
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "start")]
    pub(crate) time: Option<u64>,
    /// Most log lines or traces.
    #[arg(long)]
    pub(crate) limit: Option<u32>,
}

fn parse_time(text: &str) -> Result<u64, String> {
    time::parse(text, now_unix_nano())
}

#[allow(clippy::disallowed_methods, reason = "a command line tool lives in real time")]
pub(crate) fn now_unix_nano() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
