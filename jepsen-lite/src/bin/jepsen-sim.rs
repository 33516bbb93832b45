//! One seed of the simulation, in a process of its own.
//!
//! A binary apart from `jepsen-lite`, because it replaces the C library's random numbers and clocks for the whole
//! process (mad-turmoil): hash maps, and whatever crates draw by themselves, are under the seed too.

use std::process::ExitCode;

use clap::Parser;
use jepsen_lite::sim::trace::Trace;
use jepsen_lite::sim::{SeedReport, run_seed};
use rand_for_mad_turmoil::SeedableRng;
use rand_for_mad_turmoil::rngs::StdRng;
use tracing_subscriber::layer::SubscriberExt;

/// Run one seed of the simulation; exit 0 when every promise held, 1 when one was broken.
#[derive(Parser)]
struct Cli {
    #[arg(long)]
    seed: u64,
    /// Write the whole trace to standard error
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(cli.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let trace = match cli.trace {
        true => Trace::with_output(Box::new(std::io::stderr())),
        false => Trace::default(),
    };
    let subscriber = tracing_subscriber::registry().with(trace.clone());
    let outcome = tracing::subscriber::with_default(subscriber, || run_seed(cli.seed, &trace));
    match outcome {
        Ok(report) => {
            println!("{}", line(&report));
            for violation in &report.violations {
                println!("  {}: {}", violation.promise, violation.what);
            }
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("seed {}: {error}", cli.seed);
            ExitCode::FAILURE
        }
    }
}

fn line(report: &SeedReport) -> String {
    let SeedReport {
        seed, acknowledged, unknown, retried, reads, partial_reads, crashes, wipes, cuts, ..
    } = report;
    format!(
        "seed {seed}: {acknowledged} writes acknowledged, {unknown} unknown, {retried} retried; {reads} reads, \
         {partial_reads} partial; {crashes} crashes, {wipes} wipes, {cuts} cuts; trace {} lines {:016x}; {} violations",
        report.trace.0,
        report.trace.1,
        report.violations.len()
    )
}
