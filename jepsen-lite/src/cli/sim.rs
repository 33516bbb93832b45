//! `jepsen-lite sim`: many seeds, and the shortest schedule of one that fails.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jepsen_lite::coverage;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::schedule::Only;
use jepsen_lite::shrink::shrink;
use jepsen_lite::sim::KINDS;
use jepsen_lite::sim::seed_line::SeedLine;
use jepsen_lite::simulations::{SeedOptions, Totals, run_seed, run_seeds, simulator};
use jepsen_lite::verdict::Judgement;

/// Broken promises that are printed of one seed.
const LINES_MAX: usize = 8;

#[derive(Args)]
pub(crate) struct SimOptions {
    /// First and last-but-one seed
    #[arg(long, value_parser = super::seeds, default_value = "0..10")]
    seeds: std::ops::Range<u64>,
    /// Kinds of fault, with commas between [default: all that a simulation can do]
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<FaultKind>>,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Seeds that run at the same time; each is one thread
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Runs that may be spent on shortening the schedule of the first broken seed
    #[arg(long, default_value_t = 40)]
    shrink: usize,
    /// Say what each seed came to
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn sim(options: &SimOptions) -> Result<ExitCode, String> {
    let kinds = options.faults.clone().unwrap_or_else(|| KINDS.to_vec());
    if let Some(kind) = kinds.iter().find(|kind| !KINDS.contains(kind)) {
        let can: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        return Err(format!("a simulation cannot do `{kind}`; it can do {}", can.join(", ")));
    }
    let simulator = simulator(false)?;
    let seed_options = SeedOptions { kinds: options.faults.clone(), ..SeedOptions::default() };
    let bar = progress(options.seeds.end - options.seeds.start);
    let mut totals = Totals::default();
    let run = |seed| {
        let line = run_seed(&simulator, seed, &seed_options)?;
        if options.twice {
            let again = run_seed(&simulator, seed, &seed_options)?;
            if again.trace != line.trace {
                let what =
                    format!("the second run has another trace: {:?}, not {:?}", again.trace, line.trace);
                return Ok(SeedLine { failures: vec![what], result: Judgement::Invalid, ..line });
            }
        }
        Ok(line)
    };
    let each = |line: SeedLine| {
        totals.add(&line);
        bar.inc(1);
        bar.set_message(format!("{} broken", totals.broken.len()));
        if options.verbose || !line.holds() {
            bar.suspend(|| show(&line));
        }
        true
    };
    run_seeds(options.seeds.clone(), options.jobs, run, each)?;
    bar.finish_and_clear();
    let missing = conclude(&totals, &kinds);
    let Some(first) = totals.broken.values().next() else {
        return Ok(ExitCode::from(if missing { 2 } else { 0 }));
    };
    println!("broken seeds: {:?}", totals.broken.keys().collect::<Vec<_>>());
    shorten(options, first, &simulator, &seed_options)?;
    Ok(ExitCode::from(1))
}

/// A line that goes on, where somebody looks.
fn progress(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seeds);
    let style =
        ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} seeds, {msg}, {eta} left");
    bar.set_style(style.expect("the template is one that indicatif knows"));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

fn show(line: &SeedLine) {
    let mut out = std::io::stdout().lock();
    let verdict = if line.holds() { "every promise held" } else { "BROKEN" };
    let count = |what: &str| line.coverage.get(what).copied().unwrap_or(0);
    let _ = writeln!(
        out,
        "seed {}: {verdict}; {} faults, {} processes ended, {} rows read back, {} moves; trace {} lines {}",
        line.seed,
        line.faults.len(),
        count(coverage::KILLED),
        count(coverage::REPLAYED_ROWS),
        count(coverage::MOVES_FINISHED),
        line.trace.0,
        line.trace.1
    );
    let broken = line.broken_in_words();
    for what in broken.iter().take(LINES_MAX) {
        let _ = writeln!(out, "  {what}");
    }
    if broken.len() > LINES_MAX {
        let _ = writeln!(out, "  and {} more", broken.len() - LINES_MAX);
    }
}

/// What random faults must have done at least once over all seeds, and what is unproven without it.
const MUST_HAPPEN: &[(&str, &str)] = &[
    (coverage::REPLAYED_ROWS, "no restart read rows back from the WAL"),
    (coverage::AMBIGUOUS, "no write whose answer was lost was acknowledged in the end"),
    (coverage::LEADER_HIT, "no fault struck the leader of the meta group"),
    (coverage::FLUSHES, "nothing was flushed"),
    (coverage::COMPACTIONS, "nothing was merged"),
    (coverage::MOVES_FINISHED, "no shard moved"),
];

/// Says what all seeds came to; whether something that was asked for never struck.
fn conclude(totals: &Totals, kinds: &[FaultKind]) -> bool {
    println!("{} seeds, {} broken. What they did:", totals.seeds, totals.broken.len());
    for (what, count) in &totals.coverage {
        println!("  {what:<28} {count}");
    }
    let mut missing = Vec::new();
    for kind in kinds {
        let proofs = coverage::evidence_of(*kind);
        if proofs.iter().all(|proof| totals.coverage.get(*proof).is_none_or(|count| *count == 0)) {
            missing.push(format!("no fault `{kind}` is proven to have struck ({})", proofs.join(" or ")));
        }
    }
    if kinds == KINDS {
        let never = |(what, _): &&(&str, &str)| totals.coverage.get(*what).is_none_or(|count| *count == 0);
        missing.extend(MUST_HAPPEN.iter().filter(never).map(|(_, why)| (*why).to_owned()));
    }
    let undecided = totals.undecided.iter();
    missing.extend(undecided.map(|(seed, what)| format!("seed {seed}: {}", what.join("; "))));
    missing.iter().for_each(|what| println!("unknown: {what}"));
    !missing.is_empty()
}

/// The shortest schedule of a broken seed that still breaks the same, as a command.
fn shorten(
    options: &SimOptions,
    whole: &SeedLine,
    simulator: &std::path::Path,
    seed_options: &SeedOptions,
) -> Result<(), String> {
    let seed = whole.seed;
    let all: Vec<u32> = whole.faults.iter().map(|(id, _)| *id).collect();
    let same = |line: &SeedLine| {
        let promises = |line: &SeedLine| line.violations.iter().map(|one| one.promise).collect::<Vec<_>>();
        let before = promises(whole);
        // A simulation that did not run breaks nothing.
        let ran = line.trace.0 > 0 || whole.trace.0 == 0;
        ran && !line.holds() && (before.is_empty() || promises(line).iter().any(|one| before.contains(one)))
    };
    if options.shrink == 0 {
        println!("see it again: jepsen-lite replay --seed {seed} {}", seed_options.arguments().join(" "));
        return Ok(());
    }
    println!(
        "looking for the shortest schedule of seed {seed} that still fails ({} runs at most)",
        options.shrink
    );
    let kept = shrink(&all, options.shrink, |only| {
        let options = SeedOptions { only: Some(Only(only.to_vec())), ..seed_options.clone() };
        run_seed(simulator, seed, &options).map(|line| same(&line))
    })?;
    for (_, fault) in whole.faults.iter().filter(|(id, _)| kept.contains(id)) {
        println!("  {fault}");
    }
    let arguments = SeedOptions { only: Some(Only(kept)), ..seed_options.clone() }.arguments();
    println!("see it again: jepsen-lite replay --seed {seed} {}", arguments.join(" "));
    Ok(())
}
