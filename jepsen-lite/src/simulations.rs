//! Many simulations, each seed a process of its own, and what they come to together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::nemesis::fault::FaultKind;
use crate::nemesis::schedule::Only;
use crate::sim::seed_line::SeedLine;

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct SeedOptions {
    pub kinds: Option<Vec<FaultKind>>,
    pub scenario: Option<String>,
    pub only: Option<Only>,
    pub mutant: Option<String>,
    pub dir: Option<PathBuf>,
}

impl SeedOptions {
    /// The arguments after the seed.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.map(|value| [name.to_owned(), value]).into_iter().flatten());
        };
        let join = |texts: Vec<String>| texts.join(",");
        add("--faults", self.kinds.as_ref().map(|kinds| join(kinds.iter().map(|k| k.to_string()).collect())));
        add("--scenario", self.scenario.clone());
        add("--only", self.only.as_ref().map(Only::to_string));
        add("--mutant", self.mutant.clone());
        add("--dir", self.dir.as_ref().map(|dir| dir.display().to_string()));
        arguments
    }
}

/// The simulator that lies beside this binary.
///
/// # Errors
/// When there is none, with how to build it.
pub fn simulator(with_mutants: bool) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("where is this binary? {error}"))?;
    let (name, how) = match with_mutants {
        false => ("jepsen-sim", "cargo build --release -p jepsen-lite"),
        true => {
            ("jepsen-mutant", "cargo build --release -p jepsen-lite --features mutants --bin jepsen-mutant")
        }
    };
    let path = own.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is missing: build it beside this one (`{how}`)", path.display())),
    }
}

/// Runs one seed to its end.
///
/// # Errors
/// When the process cannot be started. One that crashes is a broken seed.
pub fn run_seed(simulator: &Path, seed: u64, options: &SeedOptions) -> Result<SeedLine, String> {
    let mut command = Command::new(simulator);
    command.arg("--seed").arg(seed.to_string()).args(options.arguments());
    let output =
        command.output().map_err(|error| format!("cannot start {}: {error}", simulator.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    Ok(line.unwrap_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = errors.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        SeedLine::failed(seed, format!("the simulation ended with {}: {}", output.status, tail.join(" | ")))
    }))
}

/// Runs seeds, `jobs` at a time; `each` sees every line as it comes, and says whether to go on.
///
/// # Errors
/// When a process cannot be started.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    jobs: u16,
    run: impl Fn(u64) -> Result<SeedLine, String> + Sync,
    each: impl FnMut(SeedLine) -> bool + Send,
) -> Result<(), String> {
    let next = AtomicU64::new(seeds.start);
    let is_over = AtomicBool::new(false);
    let each = Mutex::new(each);
    let work = || -> Result<(), String> {
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let line = run(seed)?;
            let goes_on = (each.lock().unwrap_or_else(PoisonError::into_inner))(line);
            is_over.fetch_or(!goes_on, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let joined =
            workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?);
        // All are joined before the first error is told.
        joined.collect::<Vec<Result<(), String>>>().into_iter().collect()
    })
}

/// What several seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    /// By seed.
    pub broken: BTreeMap<u64, SeedLine>,
    /// By seed, what its checkers could not tell.
    pub undecided: BTreeMap<u64, Vec<String>>,
    pub coverage: BTreeMap<String, u64>,
}

impl Totals {
    pub fn add(&mut self, line: &SeedLine) {
        self.seeds += 1;
        if !line.holds() {
            self.broken.insert(line.seed, line.clone());
        }
        if !line.undecided.is_empty() {
            self.undecided.insert(line.seed, line.undecided.clone());
        }
        for (what, count) in &line.coverage {
            *self.coverage.entry(what.clone()).or_default() += count;
        }
    }
}
