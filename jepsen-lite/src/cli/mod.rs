//! The command line: one file a command.

mod run;
mod progress;
mod guard;
mod sim;
mod replay;
mod scenarios;
mod check;
mod mutants;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  jepsen-lite run --driver local --nodes 5 --rf 3 --time 10m --faults kill,power,partition
  jepsen-lite sim --seeds 0..100            a hundred simulated clusters under faults
  jepsen-lite replay --seed 7 --trace 2> seed-7.trace
  jepsen-lite check DIR --report run.html   judge a saved history once more
  jepsen-lite mutants --all                 whether planted bugs are found

Exit status: 0 every promise held, 1 a promise was broken, 2 it could not be told, 3 nothing was tried, for the reason
that it prints.";

/// Exit status of what could not even begin: not that of a run that proves too little.
const NOT_TRIED: u8 = 3;

/// Tries to break oteld's promises, and proves what it tried.
#[derive(Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Hurt a real cluster under load: processes or containers
    Run(run::RunOptions),
    /// Become a process of a run, which ends when the run does
    #[command(name = jepsen_lite::local::process::GUARD, hide = true)]
    Guard(guard::GuardOptions),
    /// Run simulated clusters, each seed in a process of its own
    Sim(sim::SimOptions),
    /// Run one seed of the simulation again
    Replay(replay::ReplayOptions),
    /// Do to simulated clusters what broke others
    Scenarios(scenarios::ScenariosOptions),
    /// Judge the history of a run, offline
    Check(check::CheckOptions),
    /// Plant bugs, one at a time, and see whether simulations find them
    Mutants(mutants::MutantsOptions),
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also what was asked for with --help.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { NOT_TRIED } else { 0 });
        }
    };
    let outcome = match cli.command {
        Cmd::Run(options) => run::run(options),
        Cmd::Guard(options) => guard::guard(&options),
        Cmd::Sim(options) => sim::sim(&options),
        Cmd::Replay(options) => replay::replay(&options),
        Cmd::Scenarios(options) => scenarios::scenarios(&options),
        Cmd::Check(options) => check::check(&options),
        Cmd::Mutants(options) => mutants::mutants(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("jepsen-lite: {error}");
        ExitCode::from(NOT_TRIED)
    })
}

/// `FROM..TO`, for clap.
fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    match parsed {
        Some(range) if range.start < range.end => Ok(range),
        _ => Err(format!("`{text}` is not FROM..TO with FROM below TO")),
    }
}
