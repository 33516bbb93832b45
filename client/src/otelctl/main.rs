//! `otelctl`: looks at a cluster and asks it questions.

mod arguments;
mod query_table;
mod status_table;
mod time;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use oteld_client::admin::Verdict;
use oteld_client::client::{Client, ClientError, Language, When};
use serde::Serialize;

use arguments::{
    Arguments, ClusterCommand, Command, NodeCommand, Output, QueryArguments, QueryCommand, ShardsCommand,
};

/// How far back log lines are looked for when nobody says: an hour.
const LINES_RANGE_NANOS: u64 = 3_600_000_000_000;

const EXIT_DEGRADED: u8 = 1;
const EXIT_REFUSED: u8 = 1;
const EXIT_UNAVAILABLE: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("otelctl: {error}");
            if let Some(advice) = advice(&error) {
                eprintln!("{advice}");
            }
            // For `cluster status` whatever keeps it from an answer is as bad as unavailable.
            let status = matches!(arguments.command, Command::Cluster { .. });
            let refused = matches!(error, ClientError::Refused { .. });
            ExitCode::from(if refused && !status { EXIT_REFUSED } else { EXIT_UNAVAILABLE })
        }
    }
}

async fn run(arguments: &Arguments) -> Result<ExitCode, ClientError> {
    let mut client = Client::new(&arguments.endpoint, Duration::from_secs(arguments.timeout))?;
    if let Some(tenant) = &arguments.tenant {
        client = client.with_tenant(tenant);
    }
    let output = arguments.output;
    match &arguments.command {
        Command::Cluster { command: ClusterCommand::Status } => {
            let status = client.cluster_status().await?;
            print(output, &status, || status_table::cluster(&status));
            return Ok(ExitCode::from(match status.verdict {
                Verdict::Healthy => 0,
                Verdict::Degraded => EXIT_DEGRADED,
                Verdict::Unavailable => EXIT_UNAVAILABLE,
            }));
        }
        Command::Node { command: NodeCommand::List } => {
            let nodes = client.nodes().await?;
            print(output, &nodes, || status_table::nodes(&nodes));
        }
        Command::Shards { command: ShardsCommand::List } => {
            let shards = client.shards().await?;
            print(output, &shards, || status_table::shards(&shards));
        }
        Command::Query { command } => {
            let (language, query) = match command {
                QueryCommand::Promql(query) => (Language::PromQl, query),
                QueryCommand::Logql(query) => (Language::LogQl, query),
                QueryCommand::Traceql(query) => (Language::TraceQl, query),
            };
            let answer = client.query(language, &query.query, when(language, query), query.limit).await?;
            print(output, &answer, || query_table::render(&answer));
            for warning in query_table::warnings(&answer) {
                eprintln!("warning: {warning}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn when(language: Language, query: &QueryArguments) -> When {
    // Lines are of a range; what begins with a selector asks for lines, and a metric of them with a function.
    let asks_for_lines = language == Language::LogQl && query.query.trim_start().starts_with('{');
    match (query.start, query.time) {
        (None, None) if asks_for_lines => {
            let end = arguments::now_unix_nano();
            When::Range { start: end.saturating_sub(LINES_RANGE_NANOS), end, step: query.step }
        }
        (Some(start), _) => {
            let end = query.end.unwrap_or_else(arguments::now_unix_nano);
            When::Range { start, end, step: query.step }
        }
        (None, Some(time)) => When::At(time),
        (None, None) => When::Default,
    }
}

fn print(output: Output, value: &impl Serialize, table: impl FnOnce() -> String) {
    use std::io::Write;
    let text = match output {
        Output::Table => table(),
        Output::Json => serde_json::to_string_pretty(value).expect("these types have string keys only"),
    };
    // A reader that went away (`otelctl … | head`) is no error.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NoAnswer { .. } => Some(
            "Is a node running there? `oteld dev` starts a cluster whose query port is 8081.\n\
             Another node: otelctl --endpoint http://HOST:8081 …, or set OTELCTL_ENDPOINT.",
        ),
        ClientError::Unexpected { .. } => {
            Some("Is this oteld's query port (8081 by default), and otelctl of the same version?")
        }
        ClientError::Endpoint { .. } | ClientError::Refused { .. } => None,
    }
}
