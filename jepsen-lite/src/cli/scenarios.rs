//! `jepsen-lite scenarios`: what broke others, done to oteld.

use std::process::ExitCode;

use clap::Args;
use jepsen_lite::sim::scenario::{ALL, Scenario};
use jepsen_lite::simulations::{SeedOptions, Totals, run_seed, run_seeds, simulator};

const EXAMPLES: &str = "Examples:
  jepsen-lite scenarios --list
  jepsen-lite scenarios
  jepsen-lite scenarios --only a-retry-overtakes-its-original --seeds 0..50";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScenariosOptions {
    /// These, by name [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// List them, and where each is known from
    #[arg(long)]
    list: bool,
    /// Seeds of each
    #[arg(long, value_parser = super::seeds, default_value = "0..2")]
    seeds: std::ops::Range<u64>,
    /// Seeds that run at the same time; each is one thread
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
}

pub(crate) fn scenarios(options: &ScenariosOptions) -> Result<ExitCode, String> {
    if options.list {
        for Scenario { name, known_from, what, .. } in ALL {
            println!("{name:<44} {known_from:<32} {what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&Scenario> = match &options.only {
        None => ALL.iter().collect(),
        Some(names) => {
            let find = |name: &String| {
                let unknown = || format!("there is no scenario `{name}`; see `jepsen-lite scenarios --list`");
                Scenario::find(name).ok_or_else(unknown)
            };
            names.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    let simulator = simulator(false)?;
    let (mut broken, mut unknown) = (0, 0);
    for scenario in chosen {
        let seed_options = SeedOptions { scenario: Some(scenario.name.into()), ..SeedOptions::default() };
        let mut totals = Totals::default();
        let each = |line| {
            totals.add(&line);
            true
        };
        run_seeds(
            options.seeds.clone(),
            options.jobs,
            |seed| run_seed(&simulator, seed, &seed_options),
            each,
        )?;
        let happened = |what: &str| totals.coverage.get(what).copied().unwrap_or(0);
        let missing: Vec<&str> = scenario.proof.iter().copied().filter(|what| happened(what) == 0).collect();
        let proof = scenario.proof.iter().map(|what| format!("{what} {}", happened(what)));
        let proof = proof.collect::<Vec<_>>().join(", ");
        let verdict = match (totals.broken.is_empty(), missing.is_empty()) {
            (false, _) => "BROKEN",
            (true, false) => "unknown",
            (true, true) => "held",
        };
        println!("{:<8} {:<44} {} seeds; {proof}", verdict, scenario.name, totals.seeds);
        for line in totals.broken.values() {
            line.broken_in_words().iter().take(6).for_each(|what| println!("         {what}"));
            println!("         jepsen-lite replay --seed {} --scenario {}", line.seed, scenario.name);
        }
        if !missing.is_empty() {
            println!("         it did not happen: {}", missing.join(", "));
        }
        broken += usize::from(!totals.broken.is_empty());
        unknown += usize::from(totals.broken.is_empty() && !missing.is_empty());
    }
    println!("{broken} scenarios broken, {unknown} unknown");
    Ok(ExitCode::from(if broken > 0 {
        1
    } else if unknown > 0 {
        2
    } else {
        0
    }))
}
