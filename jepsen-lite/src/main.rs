//! The `jepsen-lite` command.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  jepsen-lite sim --seeds 0..20      twenty simulated clusters under faults
  jepsen-lite replay --seed 7 --trace 2> seed-7.trace

Exit status: 0 every promise held, 1 a promise was broken, 2 it could not be told.";

/// Tries to break oteld's promises.
#[derive(Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Run simulated clusters, one a seed, each twice when asked to prove that a seed replays
    Sim(SimOptions),
    /// Run one seed again
    Replay(ReplayOptions),
}

#[derive(Args)]
struct SimOptions {
    /// First and last-but-one seed
    #[arg(long, value_parser = range, default_value = "0..10")]
    seeds: std::ops::Range<u64>,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Seeds that run at the same time; each is one thread
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
}

#[derive(Args)]
struct ReplayOptions {
    #[arg(long)]
    seed: u64,
    /// Write the whole trace to standard error
    #[arg(long)]
    trace: bool,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    match parsed {
        Some(range) if range.start < range.end => Ok(range),
        _ => Err(format!("`{text}` is not FROM..TO with FROM below TO")),
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Cmd::Sim(options) => sim(&options),
        Cmd::Replay(options) => replay(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("jepsen-lite: {error}");
        ExitCode::from(2)
    })
}

/// The simulation has a process of its own for each seed, beside this binary.
fn simulator() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("where is this binary? {error}"))?;
    let path = own.with_file_name("jepsen-sim");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: build it beside this one", path.display()))
    }
}

fn run_once(seed: u64) -> Result<(bool, String), String> {
    let output = Command::new(simulator()?).arg("--seed").arg(seed.to_string()).output();
    let output = output.map_err(|error| format!("cannot start the simulation: {error}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code().is_none_or(|code| code > 1) {
        text.push_str(&format!("seed {seed}: the simulation ended with {}\n", output.status));
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    Ok((output.status.success(), text))
}

/// One seed, twice where asked: whether every promise held, and what to print.
fn run_seed(seed: u64, twice: bool) -> Result<(bool, String), String> {
    let (mut held, mut text) = run_once(seed)?;
    if twice {
        let (_, again) = run_once(seed)?;
        if again != text {
            held = false;
            text.push_str(&format!("seed {seed}: the second run differs: {again}"));
        }
    }
    Ok((held, text))
}

fn sim(options: &SimOptions) -> Result<ExitCode, String> {
    let next = AtomicU64::new(options.seeds.start);
    let broken = Mutex::new(Vec::new());
    let work = || -> Result<(), String> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.seeds.end {
                return Ok(());
            }
            let (held, text) = run_seed(seed, options.twice)?;
            // One print a seed, so that seeds that run at the same time do not mix their lines.
            print!("{text}");
            if !held {
                broken.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })?;
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_unstable();
    if broken.is_empty() {
        println!("every promise held in {} seeds", options.seeds.end - options.seeds.start);
        return Ok(ExitCode::SUCCESS);
    }
    println!("broken seeds: {broken:?}; see one with `jepsen-lite replay --seed {} --trace`", broken[0]);
    Ok(ExitCode::from(1))
}

fn replay(options: &ReplayOptions) -> Result<ExitCode, String> {
    let mut command = Command::new(simulator()?);
    command.arg("--seed").arg(options.seed.to_string());
    if options.trace {
        command.arg("--trace");
    }
    let status = command.status().map_err(|error| format!("cannot start the simulation: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
