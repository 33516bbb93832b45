//! `otelload`: sends OTLP as fast as asked and says how fast it was taken.
#![allow(clippy::disallowed_methods, reason = "a measuring tool runs on the real clock and network")]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use oteld_benches::load::{self, Plan, Progress, Until};
use oteld_benches::report::Report;
use oteld_benches::send::{Compression, Protocol, Target};
use oteld_benches::signal::Signal;
use oteld_benches::{cpu, generate};

/// Sends OTLP metrics, logs or traces and reports rate, latency and errors.
///
/// Requests are encoded before the load starts; while it runs only times, ids and values are written into them, so
/// that every request is unique and the load generator costs little.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// What to send.
    signal: Signal,
    #[arg(long, value_enum, default_value = "grpc")]
    protocol: Protocol,
    /// http://host:port. Default: http://127.0.0.1:4317 for grpc, http://127.0.0.1:4318 for http.
    #[arg(long)]
    endpoint: Option<String>,
    #[arg(long, default_value_t = 2, value_parser = positive)]
    connections: usize,
    /// Requests that wait for their answer on one connection (grpc only; HTTP/1.1 carries one).
    #[arg(long, default_value_t = 4, value_parser = positive)]
    in_flight: usize,
    /// Items in a request.
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    batch: usize,
    /// Number of series (metrics) or streams (logs, traces). Default: 10000 for metrics, 100 for the others.
    #[arg(long, visible_alias = "streams", value_parser = positive)]
    series: Option<usize>,
    /// Items a second over all connections; 0 is as fast as the answers come. With a rate, latency counts from
    /// the moment at which a request was due.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds to run.
    #[arg(long, value_parser = seconds, default_value = "10", conflicts_with = "items")]
    duration: Duration,
    /// Items to send, instead of a duration.
    #[arg(long)]
    items: Option<u64>,
    /// Sent as X-Scope-OrgID.
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long, value_enum, default_value = "none")]
    compression: Compression,
    /// Seconds after which a request without an answer counts as failed.
    #[arg(long, value_parser = seconds, default_value = "30")]
    timeout: Duration,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  otelload metrics --series 100000 --duration 30
  otelload logs --protocol http --compression zstd --rate 50000
  otelload traces --items 1000000 --connections 4 -o json

Exit status: 0 every request was acknowledged, 1 some were not, 2 wrong usage.";

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let text = text.strip_suffix('s').unwrap_or(text);
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(report) => {
            match arguments.output {
                Output::Table => print!("{}", report.table(arguments.signal)),
                Output::Json => println!("{}", serde_json::json!(report)),
            }
            ExitCode::from(u8::from(report.failed_requests() > 0 || report.items == 0))
        }
        Err(message) => {
            eprintln!("otelload: {message}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<Report, String> {
    let signal = arguments.signal;
    let default_endpoint = match arguments.protocol {
        Protocol::Grpc => "http://127.0.0.1:4317",
        Protocol::Http => "http://127.0.0.1:4318",
    };
    let series = arguments.series.unwrap_or(if signal == Signal::Metrics { 10_000 } else { 100 });
    let until = match arguments.items {
        Some(items) => Until::Items(items),
        None => Until::Elapsed(arguments.duration),
    };
    let plan = Plan {
        target: Target {
            signal,
            protocol: arguments.protocol,
            endpoint: arguments.endpoint.clone().unwrap_or_else(|| default_endpoint.into()),
            compression: arguments.compression,
            tenant: arguments.tenant.clone(),
            timeout: arguments.timeout,
        },
        connections: arguments.connections,
        in_flight: if arguments.protocol == Protocol::Http { 1 } else { arguments.in_flight },
        rate: arguments.rate,
        until,
    };
    let templates = generate::templates(signal, series, arguments.batch)?;
    let progress = Arc::new(Progress::default());
    let mut drawing = tokio::task::JoinSet::new();
    if std::io::stderr().is_terminal() {
        drawing.spawn(draw(Arc::clone(&progress), until, signal));
    }
    let cpu_before = cpu::own_seconds();
    let (counts, seconds) = load::run(&plan, templates, progress).await?;
    let own_cpu = cpu::own_seconds().zip(cpu_before).map(|(after, before)| after - before);
    drawing.shutdown().await;
    Ok(Report::new(signal, counts, seconds, own_cpu))
}

/// Shows the share of the run that is done, the rate and the failures, until it is dropped.
async fn draw(progress: Arc<Progress>, until: Until, signal: Signal) {
    let length = match until {
        Until::Items(items) => items,
        Until::Elapsed(duration) => duration.as_millis() as u64,
    };
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}");
    let bar = ProgressBar::new(length).with_style(style.expect("the template is valid"));
    let started = tokio::time::Instant::now();
    loop {
        let items = progress.items.load(Ordering::Relaxed);
        let elapsed = started.elapsed();
        bar.set_position(match until {
            Until::Items(_) => items,
            Until::Elapsed(_) => elapsed.as_millis() as u64,
        });
        let rate = items as f64 / elapsed.as_secs_f64().max(0.001);
        let failed = progress.failed_requests.load(Ordering::Relaxed);
        bar.set_message(format!("{items} {} ({rate:.0}/s), {failed} requests failed", signal.item()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
