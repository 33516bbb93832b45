//! `jepsen-lite replay`: one seed of the simulation again.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::schedule::Only;
use jepsen_lite::planted::scenario_of;
use jepsen_lite::sim::seed_line::SeedLine;
use jepsen_lite::simulations::{SeedOptions, simulator};

#[derive(Args)]
pub(crate) struct ReplayOptions {
    #[arg(long)]
    seed: u64,
    /// The kinds of fault that the seed was run with
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<FaultKind>>,
    /// The scenario that the seed was run with [default: for a planted bug, the one that `mutants` takes for the seed]
    #[arg(long)]
    scenario: Option<String>,
    /// Only these faults of the seed's schedule, by number and with commas between; or `none`
    #[arg(long)]
    only: Option<Only>,
    /// The planted bug to switch on; needs jepsen-mutant, see `jepsen-lite mutants --help`
    #[arg(long)]
    mutant: Option<String>,
    /// Write the history to this directory, for `check` and its report
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the whole trace to standard error
    #[arg(long)]
    trace: bool,
}

pub(crate) fn replay(options: &ReplayOptions) -> Result<ExitCode, String> {
    let simulator = simulator(options.mutant.is_some())?;
    let of_mutant = || {
        let scenario = scenario_of(options.mutant.as_deref()?, options.seed)?;
        Some(scenario.name.to_owned())
    };
    let seed_options = SeedOptions {
        kinds: options.faults.clone(),
        scenario: options.scenario.clone().or_else(of_mutant),
        only: options.only.clone(),
        mutant: options.mutant.clone(),
        dir: options.dir.clone(),
    };
    let mut command = Command::new(&simulator);
    command.arg("--seed").arg(options.seed.to_string()).args(seed_options.arguments());
    if options.trace {
        command.arg("--trace");
    }
    let child = command.stdout(Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|error| format!("cannot run {}: {error}", simulator.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line: Option<SeedLine> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let line = line.ok_or_else(|| format!("the simulation ended with {} and said nothing", output.status))?;
    println!("seed {}, its faults:", line.seed);
    line.faults.iter().for_each(|(_, fault)| println!("  {fault}"));
    for (what, count) in &line.coverage {
        println!("  {what:<28} {count}");
    }
    println!("trace: {} lines, {}", line.trace.0, line.trace.1);
    match line.broken_in_words().as_slice() {
        [] => println!("every promise held"),
        broken => broken.iter().for_each(|what| println!("BROKEN {what}")),
    }
    Ok(ExitCode::from(line.result.status()))
}
