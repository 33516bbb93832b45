//! `jepsen-lite mutants`: whether planted bugs are found, each by the checker of the promise that it breaks.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use jepsen_lite::planted::{not_shown, scenario_of};
use jepsen_lite::sim::seed_line::SeedLine;
use jepsen_lite::simulations::{SeedOptions, run_seed, run_seeds, simulator};
use oteld_env::mutant::{self, Mutant};

const NOTES: &str = "Examples:
  jepsen-lite mutants --list
  jepsen-lite mutants --all
  jepsen-lite mutants --only ack-before-fsync,quorum-of-one
  jepsen-lite mutants --some 6 --turn 12    six of those that must be found, others with every turn

Exit status: 0 all are found that must be, 1 one is not. `--list` tells which ones no simulation has shown yet, with the likely reason.

A build with planted bugs has a binary of its own:
  cargo build --release -p jepsen-lite --features mutants --bin jepsen-mutant";

#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct MutantsOptions {
    /// Try every planted bug
    #[arg(long, conflicts_with_all = ["only", "some", "list"])]
    all: bool,
    /// Try these, by name
    #[arg(long, value_delimiter = ',', conflicts_with = "some")]
    only: Option<Vec<String>>,
    /// Try so many of those that must be found; which ones depends on --turn
    #[arg(long)]
    some: Option<usize>,
    /// Which turn of --some this is
    #[arg(long, default_value_t = 0)]
    turn: usize,
    /// List them and what each does
    #[arg(long)]
    list: bool,
    /// Seeds that a bug may take to be found
    #[arg(long, value_parser = super::seeds, default_value = "0..40")]
    seeds: std::ops::Range<u64>,
    /// Seeds that run at the same time; each is one thread
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
}

/// What became of a planted bug.
struct Tried {
    mutant: &'static Mutant,
    /// The seed whose history its own promise's checker found broken.
    caught: Option<u64>,
    /// Other promises that were seen broken, and broken liveness.
    also: Vec<String>,
    seeds: u64,
    struck: u64,
}

pub(crate) fn mutants(options: &MutantsOptions) -> Result<ExitCode, String> {
    if options.list {
        for Mutant { name, what, promise, rule } in mutant::ALL {
            println!("{name:<36} {promise:<4} {rule:<12} {what}");
            if let Some(why) = not_shown(name) {
                println!("{:<54}not shown yet, probably since {why}", "");
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(options)?;
    let simulator = simulator(true)?;
    let mut tried = Vec::new();
    for mutant in chosen {
        let one = attempt(options, mutant, |seed, seed_options| run_seed(&simulator, seed, seed_options))?;
        println!("{}", in_words(&one));
        let _ = std::io::stdout().flush();
        tried.push(one);
    }
    println!("{}", table(&tried));
    let caught = tried.iter().filter(|one| one.caught.is_some()).count();
    println!("{caught} of {} planted bugs found by the checker of their own promise", tried.len());
    let missed =
        tried.iter().filter(|one| one.caught.is_none() && not_shown(one.mutant.name).is_none()).count();
    Ok(ExitCode::from(u8::from(missed > 0)))
}

fn chosen(options: &MutantsOptions) -> Result<Vec<&'static Mutant>, String> {
    if let Some(names) = &options.only {
        let find = |name: &String| {
            let found = mutant::ALL.iter().find(|mutant| mutant.name == name);
            found.ok_or_else(|| format!("there is no planted bug `{name}`; see `jepsen-lite mutants --list`"))
        };
        return names.iter().map(find).collect();
    }
    match options.some {
        Some(count) => {
            let must: Vec<_> = mutant::ALL.iter().filter(|mutant| not_shown(mutant.name).is_none()).collect();
            let first = options.turn.wrapping_mul(count) % must.len();
            Ok(must.iter().copied().cycle().skip(first).take(count.min(must.len())).collect())
        }
        None if options.all => Ok(mutant::ALL.iter().collect()),
        None => Err("say which: --all, --only NAMES, --some COUNT, or --list".into()),
    }
}

/// Runs seeds until the bug is found.
fn attempt(
    options: &MutantsOptions,
    mutant: &'static Mutant,
    run: impl Fn(u64, &SeedOptions) -> Result<SeedLine, String> + Sync,
) -> Result<Tried, String> {
    let seed_options = SeedOptions { mutant: Some(mutant.name.into()), ..SeedOptions::default() };
    let mut tried = Tried { mutant, caught: None, also: Vec::new(), seeds: 0, struck: 0 };
    let each = |line: SeedLine| {
        tried.seeds += 1;
        tried.struck += line.mutant_struck;
        for violation in &line.violations {
            match violation.promise.number() == mutant.promise {
                true => tried.caught = Some(tried.caught.map_or(line.seed, |seed| seed.min(line.seed))),
                false => tried.also.push(violation.promise.number().to_owned()),
            }
        }
        tried.also.extend(line.failures.first().map(|_| "liveness".to_owned()));
        tried.caught.is_none()
    };
    let run = |seed: u64| {
        let scenario = scenario_of(mutant.name, seed).map(|scenario| scenario.name.to_owned());
        run(seed, &SeedOptions { scenario, ..seed_options.clone() })
    };
    run_seeds(options.seeds.clone(), options.jobs, run, each)?;
    tried.also.sort();
    tried.also.dedup();
    Ok(tried)
}

fn in_words(tried: &Tried) -> String {
    let Tried { mutant, caught, also, seeds, struck } = tried;
    let name = mutant.name;
    match caught {
        Some(seed) => format!("{name}: found by {} with seed {seed}, after {seeds} seeds", mutant.promise),
        None if *struck == 0 => format!("{name}: NOT FOUND in {seeds} seeds: none reached it"),
        None if also.is_empty() => format!("{name}: NOT FOUND in {seeds} seeds, met {struck} times"),
        None => {
            format!("{name}: found by {} only, not by {}, in {seeds} seeds", also.join(", "), mutant.promise)
        }
    }
}

fn table(tried: &[Tried]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["planted bug", "rule", "breaks", "found", "seeds", "also broken"]);
    for Tried { mutant, caught, also, seeds, .. } in tried {
        let found = caught.map_or("no".to_owned(), |seed| format!("seed {seed}"));
        table.add_row([
            mutant.name,
            mutant.rule,
            mutant.promise,
            &found,
            &seeds.to_string(),
            &also.join(", "),
        ]);
    }
    table
}
