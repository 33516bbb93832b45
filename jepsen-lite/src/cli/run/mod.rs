//! `jepsen-lite run`: hurts a real cluster under load, shows how it goes, and says what came of it.

mod options;
mod local;
mod compose;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jepsen_lite::driver::{Settings, Work, Worked};
use jepsen_lite::history::event::{FORMAT, Start};
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::partition::Cuts;
use jepsen_lite::nemesis::schedule::schedule;
use jepsen_lite::nemesis::topology::Topology;
use jepsen_lite::report;
use jepsen_lite::workload::item::Run;
use oteld_env::Env;

pub(crate) use self::options::RunOptions;

use self::options::Driver;
use self::work::{RECOVER_MAX, plan, work_with};
use super::progress::Line;

/// When the first fault strikes: something has been written.
const FIRST_FAULT_MS: u64 = 3_000;

/// Most memory that a node may have resident: its budgets for requests, memtables and queries, twice.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

/// What a driver has to run with.
struct Prepared {
    driver: &'static str,
    /// Version of what is tested, in words.
    tested: String,
    /// The part of the command that is the driver's own.
    command: String,
    topology: Topology,
    kinds: Vec<FaultKind>,
    cuts: Cuts,
    target: Target,
}

enum Target {
    Local { oteld: PathBuf, shards: u32, power_loss: bool },
    Compose(jepsen_lite::compose::Plan),
}

/// Runs until there is a verdict.
///
/// # Errors
/// What of the options cannot be, or why there is no verdict.
pub(crate) fn run(options: RunOptions) -> Result<ExitCode, String> {
    options.check()?;
    let prepared = match options.driver {
        Driver::Local => local::prepare(&options)?,
        Driver::Compose => compose::prepare(&options)?,
    };
    let Prepared { tested, topology, kinds, cuts, .. } = &prepared;
    let dir = dir(&options)?;
    let time_ms = options.time.as_millis() as u64;
    let schedule = schedule(options.seed, topology, *cuts, kinds, FIRST_FAULT_MS, time_ms, options.rf);
    let start = start(&options, &prepared);
    let listed: Vec<String> = schedule.iter().map(|timed| format!("{timed}\n")).collect();
    let told = "what is planned, in seconds since the cluster was ready";
    write(&dir.join("schedule.txt"), &format!("{told}\n{}", listed.concat()))?;
    println!(
        "{tested}: {} storage, {} meta and {} front nodes, {} faults planned; everything goes to {}",
        topology.storage.len(),
        topology.meta.len(),
        topology.fronts.len(),
        schedule.len(),
        dir.display()
    );
    let settings = Settings { start: start.clone(), time: options.time, schedule, dir: dir.clone() };
    let worked = worked(&options, prepared, settings)?;
    for note in &worked.notes {
        println!("not carried out as planned: {note}");
    }
    for failure in &worked.failures {
        println!("FAILED: {failure}");
    }
    if worked.interrupted {
        println!("the run was cut short");
    }
    println!("{}", worked.verdict);
    let page = dir.join("report.html");
    report::write(&dir, &page)?;
    println!("history: {}\nreport:  {}\nagain:   {}", dir.display(), page.display(), start.command);
    Ok(ExitCode::from(worked.verdict.result.status()))
}

fn worked(options: &RunOptions, prepared: Prepared, settings: Settings) -> Result<Worked, String> {
    let Prepared { topology, target, .. } = prepared;
    let (dir, start) = (settings.dir.clone(), &settings.start);
    let run = Run { seed: start.seed, start_unix_nano: start.start_unix_nano };
    let (members, plan) = (topology.meta.clone(), plan(options.rate));
    let mut line = Line::new(options.time);
    // The thread that starts processes must outlive them: this one does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let clients = async move |work: Work| work_with(work, &members, run, plan).await;
    let tasks = tokio::task::LocalSet::new();
    let worked = match target {
        Target::Local { oteld, shards, power_loss } => {
            let cluster = local::cluster(options, topology, &dir, oteld, shards, power_loss);
            let worked = jepsen_lite::local::run(&cluster, settings, clients, |progress| line.show(progress));
            tasks.block_on(&runtime, worked)
        }
        Target::Compose(plan) => {
            let worked = jepsen_lite::compose::run(plan, settings, clients, |progress| line.show(progress));
            tasks.block_on(&runtime, worked)
        }
    };
    line.end();
    worked.map_err(|error| format!("{error}\nWhat there is lies in {}", dir.display()))
}

/// The kinds that were asked for, or all that can strike.
fn kinds(
    asked: &[FaultKind],
    topology: &Topology,
    rf: u32,
    possible: fn(FaultKind, &Topology, u32) -> Result<(), String>,
) -> Result<Vec<FaultKind>, String> {
    if rf as usize > topology.storage.len() {
        return Err(format!("--rf {rf}: there are only {} storage nodes", topology.storage.len()));
    }
    let asked: BTreeSet<FaultKind> = asked.iter().copied().collect();
    if asked.is_empty() {
        let can = |kind: &FaultKind| possible(*kind, topology, rf).is_ok();
        return Ok(FaultKind::ALL.into_iter().filter(can).collect());
    }
    for kind in &asked {
        possible(*kind, topology, rf).map_err(|why| {
            format!("--faults {kind}: {why}. A run that asks for it could only end as unknown")
        })?;
    }
    Ok(asked.into_iter().collect())
}

/// Made, absolute and empty.
fn dir(options: &RunOptions) -> Result<PathBuf, String> {
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => PathBuf::from(format!("jepsen-lite-{}-{}", options.seed, std::process::id())),
    };
    let failed = |error: std::io::Error| format!("cannot use {} for the run: {error}", dir.display());
    make(&dir).map_err(failed)?;
    let dir = dir.canonicalize().map_err(failed)?;
    let is_empty = entries(&dir).map_err(failed)? == 0;
    is_empty
        .then_some(())
        .ok_or_else(|| format!("{} is not empty: a run needs a new directory", dir.display()))?;
    Ok(dir)
}

#[allow(clippy::disallowed_methods, reason = "files of the tool, and of no node")]
fn make(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)
}

#[allow(clippy::disallowed_methods, reason = "files of the tool, and of no node")]
fn entries(dir: &Path) -> std::io::Result<usize> {
    Ok(std::fs::read_dir(dir)?.count())
}

#[allow(clippy::disallowed_methods, reason = "files of the tool, and of no node")]
fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn start(options: &RunOptions, prepared: &Prepared) -> Start {
    let Prepared { driver, tested, command, topology, kinds, .. } = prepared;
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let command = format!(
        "{command} --rf {} --time {}s --faults {} --rate {} --seed {}",
        options.rf,
        options.time.as_secs(),
        names.join(","),
        options.rate,
        options.seed,
    );
    // Whole seconds: readable times of items.
    let start_unix_nano = Env::real().clock.now_unix_nanos() / 1_000_000_000 * 1_000_000_000;
    let roles = [("storage", &topology.storage), ("meta", &topology.meta), ("front", &topology.fronts)];
    let nodes: BTreeMap<String, Vec<String>> =
        roles.into_iter().map(|(role, names)| (role.to_owned(), names.clone())).collect();
    Start {
        format: FORMAT,
        seed: options.seed,
        start_unix_nano,
        driver: (*driver).to_owned(),
        command,
        tested: tested.clone(),
        nodes,
        replication_factor: options.rf,
        faults: kinds.clone(),
        mutant: None,
        recover_us_max: RECOVER_MAX.as_micros() as u64,
        resident_bytes_max: RESIDENT_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use jepsen_lite::nemesis::schedule::possible;

    use super::*;

    fn of(asked: &[FaultKind], topology: &Topology, rf: u32) -> Result<Vec<FaultKind>, String> {
        kinds(asked, topology, rf, possible)
    }

    #[test]
    fn faults_that_cannot_strike_are_refused_with_the_reason() {
        let topology = Topology::new(5, 3, 2);
        let without_meta = Topology::new(5, 0, 2);
        for (asked, topology, rf, reason) in [
            (&[FaultKind::Kill, FaultKind::Store][..], &topology, 3, "object store"),
            (&[FaultKind::Meta], &without_meta, 3, "storage nodes"),
            (&[FaultKind::Wipe], &topology, 2, "no minority"),
            (&[], &topology, 7, "only 5 storage nodes"),
        ] {
            let error = of(asked, topology, rf).unwrap_err();
            assert!(error.contains(reason), "{asked:?}: {error}");
        }
    }

    #[test]
    fn without_a_choice_there_are_all_faults_that_can_strike() {
        let topology = Topology::new(5, 3, 2);
        let all = of(&[], &topology, 3).unwrap();
        assert_eq!(all.len(), FaultKind::ALL.len() - 1);
        assert!(!all.contains(&FaultKind::Store));
        let twice = [FaultKind::Power, FaultKind::Kill, FaultKind::Power];
        assert_eq!(of(&twice, &topology, 3).unwrap(), [FaultKind::Kill, FaultKind::Power]);
    }
}
