//! One seed in a process of its own: the simulation replaces the C library's random numbers and clocks for the whole
//! process (mad-turmoil), so that hash maps, and whatever crates draw by themselves, are under the seed too.
//!
//! Part of the binaries that need it and not of the library: whatever links mad-turmoil has clocks that stand still.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::schedule::Only;
use jepsen_lite::sim::scenario::Scenario;
use jepsen_lite::sim::seed_line::SeedLine;
use jepsen_lite::sim::trace::Trace;
use jepsen_lite::sim::{KINDS, SimOptions, run_seed};
use rand_for_mad_turmoil::SeedableRng;
use rand_for_mad_turmoil::rngs::StdRng;
use tracing_subscriber::layer::SubscriberExt;

/// Run one seed of the simulation and print what it came to as one line of JSON; `jepsen-lite` starts this by itself.
#[derive(Parser)]
struct Cli {
    #[arg(long)]
    seed: u64,
    /// Kinds of fault [default: all that a simulation can do]
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<FaultKind>>,
    /// A scenario instead of faults of the seed's choice
    #[arg(long, value_parser = scenario)]
    scenario: Option<&'static Scenario>,
    /// Only these faults of the seed's schedule, by number and with commas between; or `none`
    #[arg(long)]
    only: Option<Only>,
    /// Write the history to this directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the whole trace to standard error
    #[arg(long)]
    trace: bool,
    /// Switch a planted bug on, where the build has them
    #[arg(long)]
    mutant: Option<String>,
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(name) = &cli.mutant
        && let Err(error) = select(name)
    {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(cli.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let trace = match cli.trace {
        true => Trace::with_output(Box::new(std::io::stderr())),
        false => Trace::default(),
    };
    let options = SimOptions {
        seed: cli.seed,
        kinds: cli.faults.unwrap_or_else(|| KINDS.to_vec()),
        scenario: cli.scenario,
        only: cli.only,
        mutant: cli.mutant,
        dir: cli.dir,
    };
    let subscriber = tracing_subscriber::registry().with(trace.clone());
    let outcome = tracing::subscriber::with_default(subscriber, || run_seed(&options, &trace));
    let mut line = match &outcome {
        Ok(report) => SeedLine::of(report),
        Err(error) => SeedLine::failed(cli.seed, error.clone()),
    };
    line.mutant_struck = struck();
    println!("{}", line.to_json());
    ExitCode::from(line.result.status())
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::find(name).ok_or_else(|| format!("there is no scenario `{name}`"))
}

#[cfg(feature = "mutants")]
fn select(name: &str) -> Result<(), String> {
    oteld_env::mutant::select(name).map_err(|error| error.to_string())
}

#[cfg(not(feature = "mutants"))]
fn select(_: &str) -> Result<(), String> {
    Err("this build has no planted bugs: build jepsen-mutant with --features mutants".into())
}

#[cfg(feature = "mutants")]
fn struck() -> u64 {
    oteld_env::mutant::struck()
}

#[cfg(not(feature = "mutants"))]
fn struck() -> u64 {
    0
}
