//! `jepsen-lite run`: hurts a real cluster under load, shows how it goes, and says what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, ValueEnum};
use jepsen_lite::clients::{self, Front, NodeAddress, Phase, Plan, Targets};
use jepsen_lite::history::event::{FORMAT, Start};
use jepsen_lite::local::{self, Settings, Work, cluster};
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::nemesis::partition::Cuts;
use jepsen_lite::nemesis::schedule::{possible, schedule};
use jepsen_lite::nemesis::topology::Topology;
use jepsen_lite::report;
use jepsen_lite::workload::item::Run;
use oteld_env::{Env, Random};
use tokio::sync::watch;

use super::progress::Line;

const EXAMPLES: &str = "Examples:
  jepsen-lite run --time 60s --rate 1k                     every kind of fault, five storage nodes
  jepsen-lite run --nodes 3 --meta 0 --faults kill,power   three nodes with all roles but the front's
  jepsen-lite run --nodes 5 --rf 3 --time 10m --faults kill,power,pause,partition,disk,clock --rate 20k --seed 7

With `power` among the kinds, unsynced bytes are lost at every kill.
Ctrl-C ends the faults early; everything is read and judged all the same.
Exit status: 0 every promise held, 1 a promise was broken, 2 it could not be told.";

/// When the first fault strikes: something has been written.
const FIRST_FAULT_MS: u64 = 3_000;

/// How long after the last fault everything must be served.
const RECOVER_MAX: Duration = Duration::from_secs(120);

/// Most memory that a node may have resident: its budgets for requests, memtables and queries, twice.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunOptions {
    /// What runs the cluster
    #[arg(long, value_enum, default_value = "local")]
    driver: Driver,
    /// Storage nodes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=32))]
    nodes: u32,
    /// Nodes of the meta group alone; 0: the storage nodes are its members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=7))]
    meta: u32,
    /// Front nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    fronts: u32,
    /// Replicas of each shard
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    rf: u32,
    /// Shards, a power of two
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: u32,
    /// How long to write, read and hurt, such as 90s, 10m or 2h
    #[arg(long, default_value = "60s", value_parser = time)]
    time: Duration,
    /// Kinds of faults, each of which must be proven to have struck; all that can strike where none are named
    #[arg(long, value_delimiter = ',')]
    faults: Vec<FaultKind>,
    /// Items a second of all writers together, such as 500 or 20k
    #[arg(long, default_value = "2k", value_parser = rate)]
    rate: u64,
    /// Decides faults and items; processes and networks have chance of their own
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where history, logs and data go; must be new or empty [default: jepsen-lite-SEED-PID]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The binary to test [default: beside this one]
    #[arg(long)]
    oteld: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// Processes on this machine, with a proxy for every link between them
    Local,
}

/// `90s`, `10m`, `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let number = |unit: char| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let seconds = number('s').or_else(|| Some(number('m')? * 60)).or_else(|| Some(number('h')? * 3_600));
    match seconds {
        Some(seconds @ 10..=864_000) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(format!("{seconds} s is not between 10 s and 10 days")),
        None => Err(format!("`{text}` is no time such as 90s, 10m or 2h")),
    }
}

/// `500`, `20k`.
fn rate(text: &str) -> Result<u64, String> {
    let items = match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u64>().ok().and_then(|thousands| thousands.checked_mul(1_000)),
        None => text.parse().ok(),
    };
    items.filter(|items| *items > 0).ok_or_else(|| format!("`{text}` is no rate such as 500 or 20k"))
}

/// Runs until there is a verdict.
///
/// # Errors
/// What of the options cannot be, or why there is no verdict.
pub(crate) fn run(options: RunOptions) -> Result<ExitCode, String> {
    let Driver::Local = options.driver;
    let topology = Topology::new(options.nodes, options.meta, options.fronts);
    let kinds = kinds(&options, &topology)?;
    let oteld = oteld(options.oteld.as_deref())?;
    let tested = version(&oteld)?;
    let dir = dir(&options)?;
    let time_ms = options.time.as_millis() as u64;
    let schedule =
        schedule(options.seed, &topology, Cuts::Links, &kinds, FIRST_FAULT_MS, time_ms, options.rf);
    let start = start(&options, &topology, &kinds, &tested)?;
    let listed: Vec<String> = schedule.iter().map(|timed| format!("{timed}\n")).collect();
    let told = "what is planned, in seconds since the cluster was ready";
    write(&dir.join("schedule.txt"), &format!("{told}\n{}", listed.concat()))?;
    println!(
        "{tested}: {} storage, {} meta and {} front nodes, {} faults planned; everything goes to {}",
        options.nodes,
        options.meta,
        options.fronts,
        schedule.len(),
        dir.display()
    );
    let settings = Settings {
        cluster: cluster::Options {
            dir: dir.clone(),
            oteld,
            replication_factor: options.rf,
            shards: options.shards,
            seed: options.seed,
            power_loss: kinds.contains(&FaultKind::Power),
            guarded: true,
            topology,
        },
        start: start.clone(),
        time: options.time,
        schedule,
        dir: dir.clone(),
    };
    let members = settings.cluster.topology.meta.clone();
    let run = Run { seed: start.seed, start_unix_nano: start.start_unix_nano };
    let plan = plan(options.rate);
    let mut line = Line::new(options.time);
    // The thread that starts processes must outlive them: this one does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let clients = async move |work: Work| work_with(work, &members, run, plan).await;
    let local = tokio::task::LocalSet::new();
    let worked = local.block_on(&runtime, local::run(settings, clients, |progress| line.show(progress)));
    line.end();
    let worked = worked.map_err(|error| format!("{error}\nWhat there is lies in {}", dir.display()))?;
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

async fn work_with(work: Work, members: &[String], run: Run, plan: Plan) -> Vec<String> {
    let front = |name: &String| {
        let addresses = &work.nodes[name];
        Front { name: name.clone(), otlp_http: addresses.otlp_http.clone(), query: addresses.query.clone() }
    };
    let nodes = work.nodes.iter().map(|(name, addresses)| NodeAddress {
        name: name.clone(),
        query: addresses.query.clone(),
        node: addresses.node.clone(),
    });
    let targets = Targets {
        fronts: work.fronts.iter().map(front).collect(),
        nodes: nodes.collect(),
        meta: members.iter().map(|name| work.nodes[name].node.clone()).collect(),
    };
    let env = Env { random: Random::from_seed(run.seed), ..Env::real() };
    let (phases, phase) = watch::channel(Phase::Work);
    let mut healing = work.healing.clone();
    tokio::task::spawn_local(async move {
        // The driver goes only after the clients.
        if healing.wait_for(|healing| *healing).await.is_ok() {
            phases.send_replace(Phase::Heal);
        }
        phases.closed().await;
    });
    clients::run(env, work.timeline, run, plan, targets, work.recorder, phase).await
}

fn plan(rate: u64) -> Plan {
    Plan {
        writers: 8,
        items_per_second: rate,
        // About fifty requests a second, so that the rate is not that of connections.
        items_per_request: 1..(rate / 25).clamp(8, 4_000),
        readers: 4,
        read_pause_ms: 200..2_000,
        cell: 4_096,
        meta_sessions: 3,
        probes: true,
        bursts: true,
        request_bytes_max: cluster::REQUEST_BYTES_MAX,
        answer_wait: Duration::from_secs(5),
        read_wait: Duration::from_secs(20),
        give_up: Duration::from_secs(60),
        recover_max: RECOVER_MAX,
    }
}

/// The kinds that were asked for, or all that can strike.
fn kinds(options: &RunOptions, topology: &Topology) -> Result<Vec<FaultKind>, String> {
    if options.rf > options.nodes {
        return Err(format!("--rf {}: there are only {} storage nodes", options.rf, options.nodes));
    }
    if !options.shards.is_power_of_two() {
        return Err(format!("--shards {} is not a power of two", options.shards));
    }
    let asked: BTreeSet<FaultKind> = options.faults.iter().copied().collect();
    if asked.is_empty() {
        let can = |kind: &FaultKind| possible(*kind, topology, options.rf).is_ok();
        return Ok(FaultKind::ALL.into_iter().filter(can).collect());
    }
    for kind in &asked {
        possible(*kind, topology, options.rf).map_err(|why| {
            format!("--faults {kind}: {why}. A run that asks for it could only end as unknown")
        })?;
    }
    Ok(asked.into_iter().collect())
}

fn oteld(given: Option<&Path>) -> Result<PathBuf, String> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(|error| format!("where is this binary? {error}"))?;
            own.with_file_name("oteld")
        }
    };
    // Processes have another working directory than the one that a relative path is for.
    path.canonicalize().map_err(|error| {
        format!("{}: {error}. Build it with `cargo build -p oteld`, or give --oteld PATH", path.display())
    })
}

/// Version of the binary, which has to know `--faults`.
fn version(oteld: &Path) -> Result<String, String> {
    let ask = |arguments: &[&str]| {
        let output = Command::new(oteld).args(arguments).output();
        let output = output.map_err(|error| format!("cannot start {}: {error}", oteld.display()))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if !ask(&["run", "--help"])?.contains("--faults") {
        return Err(format!("{} has no `run --faults`: it cannot be hurt", oteld.display()));
    }
    Ok(format!("{} ({})", ask(&["--version"])?, oteld.display()))
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

fn start(
    options: &RunOptions,
    topology: &Topology,
    kinds: &[FaultKind],
    tested: &str,
) -> Result<Start, String> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let oteld = options.oteld.as_ref().map(|path| format!(" --oteld {}", path.display()));
    let command = format!(
        "jepsen-lite run --driver local --nodes {} --meta {} --fronts {} --rf {} --shards {} --time {}s --faults {} \
         --rate {} --seed {}{}",
        options.nodes,
        options.meta,
        options.fronts,
        options.rf,
        options.shards,
        options.time.as_secs(),
        names.join(","),
        options.rate,
        options.seed,
        oteld.unwrap_or_default()
    );
    // Whole seconds: readable times of items.
    let start_unix_nano = Env::real().clock.now_unix_nanos() / 1_000_000_000 * 1_000_000_000;
    let roles = [("storage", &topology.storage), ("meta", &topology.meta), ("front", &topology.fronts)];
    let nodes: BTreeMap<String, Vec<String>> =
        roles.into_iter().map(|(role, names)| (role.to_owned(), names.clone())).collect();
    Ok(Start {
        format: FORMAT,
        seed: options.seed,
        start_unix_nano,
        driver: "local".into(),
        command,
        tested: tested.to_owned(),
        nodes,
        replication_factor: options.rf,
        faults: kinds.to_vec(),
        mutant: None,
        recover_us_max: RECOVER_MAX.as_micros() as u64,
        resident_bytes_max: RESIDENT_BYTES_MAX,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunOptions,
    }

    fn options(arguments: &[&str]) -> Result<RunOptions, clap::Error> {
        let all = std::iter::once("run").chain(arguments.iter().copied());
        Cli::try_parse_from(all).map(|cli| cli.run)
    }

    fn kinds_of(arguments: &[&str]) -> Result<Vec<FaultKind>, String> {
        let options = options(arguments).unwrap();
        kinds(&options, &Topology::new(options.nodes, options.meta, options.fronts))
    }

    #[test]
    fn times_and_rates_are_read() {
        assert_eq!(time("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(rate("20k").unwrap(), 20_000);
        for wrong in ["5s", "10", "m", "-1m", "1000h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "k", "20m", "99999999999999999999k"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_that_cannot_strike_are_refused_with_the_reason() {
        for (arguments, reason) in [
            (&["--faults", "kill,store"][..], "object store"),
            (&["--faults", "meta", "--meta", "0"], "storage nodes"),
            (&["--faults", "wipe", "--rf", "2"], "no minority"),
            (&["--rf", "7"], "only 5 storage nodes"),
            (&["--shards", "12"], "power of two"),
        ] {
            let error = kinds_of(arguments).unwrap_err();
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
        assert!(options(&["--faults", "flood"]).is_err());
    }

    #[test]
    fn without_a_choice_there_are_all_faults_that_can_strike() {
        let all = kinds_of(&[]).unwrap();
        assert_eq!(all.len(), FaultKind::ALL.len() - 1);
        assert!(!all.contains(&FaultKind::Store));
        assert_eq!(kinds_of(&["--faults", "power,kill,power"]).unwrap(), [FaultKind::Kill, FaultKind::Power]);
    }
}
