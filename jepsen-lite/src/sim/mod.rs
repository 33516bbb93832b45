//! Simulation: the real code of a whole cluster, in one thread under one seed.
//!
//! The seed decides the cluster's shape, what clients do, which faults strike when, and every order. Then everything is
//! mended, the cluster must serve within a bound, and all that was written is read back and checked.

pub mod trace;
mod world;
mod nemesis;
pub mod scenario;
pub mod seed_line;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use oteld_env::clock::SIMULATION_EPOCH_NANOS;
use oteld_env::disk::SimDisk;
use oteld_env::{Clock, Random, WorkQueue};
use tokio::sync::watch;

pub use self::nemesis::KINDS;
use self::nemesis::Nemesis;
use self::scenario::Scenario;
use self::trace::Trace;
use self::world::{RECOVERED, Shape, World, env_of};
use crate::clients::{self, Phase};
use crate::coverage;
use crate::history::event::{End, Event, FORMAT, Moment, Start};
use crate::history::file::HistoryWriter;
use crate::history::recorder::{Outcome, Recorder};
use crate::nemesis::fault::FaultKind;
use crate::nemesis::partition::Cuts;
use crate::nemesis::schedule::{Only, Step, Timed, schedule, steps};
use crate::simulations::SeedOptions;
use crate::timeline::Timeline;
use crate::workload::item::Run;

/// The cluster must take writes by then, with no fault before.
const FORMED_MS: u64 = 30_000;

/// How long the faults go on.
const FAULTS_MS: u64 = 30_000;

/// Between two looks at what nodes know.
const SAMPLE_MS: u64 = 1_000;

/// Event time of the first items: shortly before a window ends, so that every run writes two.
const START_UNIX_NANO: u64 = SIMULATION_EPOCH_NANOS + 2 * 3600 * 1_000_000_000 - 20 * 1_000_000;

/// What to simulate.
#[derive(Clone, Default)]
pub struct SimOptions {
    pub seed: u64,
    pub kinds: Vec<FaultKind>,
    /// Instead of faults of the seed's choice.
    pub scenario: Option<&'static Scenario>,
    /// The faults to keep, by number; all where it is `None`.
    pub only: Option<Only>,
    /// The planted bug that is switched on.
    pub mutant: Option<String>,
    /// Where to write the history; nowhere where it is `None`.
    pub dir: Option<PathBuf>,
}

/// What a seed came to.
pub struct SeedReport {
    pub seed: u64,
    pub schedule: Vec<Timed>,
    pub outcome: Outcome,
    /// How often each thing happened, by the names of [`crate::coverage`].
    pub coverage: BTreeMap<String, u64>,
    /// Lines and hash of the trace.
    pub trace: (u64, u64),
}

/// What the clients of a run and the machines' driver tell each other.
struct Shared {
    is_formed: bool,
    /// What the clients could not do; `None` while they are at it.
    failures: Option<Vec<String>>,
}

/// Runs one seed to its end.
///
/// # Errors
/// When the simulation itself fails.
pub fn run_seed(options: &SimOptions, trace: &Trace) -> Result<SeedReport, String> {
    let total = Duration::from_millis(FORMED_MS + FAULTS_MS + 60_000) + RECOVERED * 2;
    let shape = match options.scenario {
        Some(scenario) => (scenario.shape)(),
        None => Shape::of_seed(options.seed),
    };
    let mut world = World::new(options.seed, &shape, total);
    let recorder = recorder(options, &shape)?;
    let (phase, phases) = watch::channel(Phase::Work);
    let shared = Rc::new(RefCell::new(Shared { is_formed: false, failures: None }));
    add_clients(&mut world, options.seed, &shape, &recorder, phases, &shared);
    let mut nemesis = Nemesis::new(trace.clone());
    while !shared.borrow().is_formed && shared.borrow().failures.is_none() {
        step(&mut world, &recorder)?;
    }
    let from_ms = now_ms(&world);
    let faults = faults_of(options, &shape, from_ms);
    let mut coverage = BTreeMap::new();
    for (at_ms, fault) in steps(&faults) {
        while now_ms(&world) < at_ms {
            step(&mut world, &recorder)?;
            nemesis.notice_power_loss(&mut world, &faults);
        }
        match fault {
            Step::Begin(timed) => recorder.record(Event::FaultBegan(nemesis.begin(&mut world, timed))),
            Step::End(timed) => {
                let ended = nemesis.finish(&mut world, timed);
                add_all(&mut coverage, &ended.evidence);
                recorder.record(Event::FaultEnded(ended));
            }
        }
    }
    while now_ms(&world) < from_ms + FAULTS_MS && shared.borrow().failures.is_none() {
        step(&mut world, &recorder)?;
    }
    trace.add("healing");
    recorder.record(Event::Healing(Moment { at_us: now_ms(&world) * 1000 }));
    phase.send_replace(Phase::Heal);
    while shared.borrow().failures.is_none() {
        step(&mut world, &recorder)?;
    }
    let failures = shared.borrow_mut().failures.take().unwrap_or_default();
    let end = end_of(&mut world, trace, &recorder, failures);
    add_all(&mut coverage, &end.coverage);
    let outcome = recorder.finish(end).map_err(|error| format!("cannot write the history: {error}"))?;
    Ok(SeedReport { seed: options.seed, schedule: faults, outcome, coverage, trace: trace.digest() })
}

/// The faults of a seed or scenario, all of them or those that are to be kept.
fn faults_of(options: &SimOptions, shape: &Shape, from_ms: u64) -> Vec<Timed> {
    let (seed, topology) = (options.seed, &shape.topology);
    let all = match options.scenario {
        Some(scenario) => scenario.schedule(topology, seed, from_ms),
        None => {
            let to_ms = from_ms + FAULTS_MS;
            schedule(seed, topology, Cuts::Links, &options.kinds, from_ms, to_ms, shape.replication_factor)
        }
    };
    match &options.only {
        Some(kept) => kept.of(&all),
        None => all,
    }
}

fn add_all(sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (what, count) in more {
        *sums.entry(what.clone()).or_default() += count;
    }
}

/// One tick; now and then every node is asked what it knows.
fn step(world: &mut World, recorder: &Recorder) -> Result<(), String> {
    world.sim.step().map_err(|error| format!("the simulation failed: {error}"))?;
    if now_ms(world).is_multiple_of(SAMPLE_MS) {
        world.samples().into_iter().for_each(|sample| recorder.record(Event::Sample(sample)));
    }
    Ok(())
}

fn now_ms(world: &World) -> u64 {
    world.sim.elapsed().as_millis() as u64
}

fn replay_command(options: &SimOptions) -> String {
    let SimOptions { seed, kinds, scenario, only, mutant, .. } = options.clone();
    let kinds = (kinds != KINDS).then_some(kinds);
    let scenario = scenario.map(|scenario| scenario.name.to_owned());
    let arguments = SeedOptions { kinds, scenario, only, mutant, dir: None }.arguments();
    [format!("jepsen-lite replay --seed {seed}")].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

fn recorder(options: &SimOptions, shape: &Shape) -> Result<Recorder, String> {
    let topology = &shape.topology;
    let nodes = [("storage", &topology.storage), ("meta", &topology.meta), ("front", &topology.fronts)];
    let start = Start {
        format: FORMAT,
        seed: options.seed,
        start_unix_nano: START_UNIX_NANO,
        driver: "sim".into(),
        command: replay_command(options),
        tested: format!("oteld {}", env!("CARGO_PKG_VERSION")),
        nodes: nodes.into_iter().map(|(role, names)| (role.to_owned(), names.clone())).collect(),
        replication_factor: shape.replication_factor,
        // Whether each kind struck is told over all seeds together.
        faults: Vec::new(),
        mutant: options.mutant.clone(),
        recover_us_max: RECOVERED.as_micros() as u64,
        resident_bytes_max: 0,
    };
    let file = match &options.dir {
        Some(dir) => {
            let created = HistoryWriter::create(dir);
            Some(created.map_err(|error| format!("cannot write to {}: {error}", dir.display()))?)
        }
        None => None,
    };
    Ok(Recorder::new(&start, file, false))
}

fn add_clients(
    world: &mut World,
    seed: u64,
    shape: &Shape,
    recorder: &Recorder,
    phases: watch::Receiver<Phase>,
    shared: &Rc<RefCell<Shared>>,
) {
    let targets = World::targets(&shape.topology);
    let (recorder, shared, plan) = (recorder.clone(), shared.clone(), shape.plan.clone());
    world.sim.client("clients", async move {
        let no_disk = SimDisk::new(Random::from_seed(seed), 0);
        let env = env_of(seed, "clients", 0, no_disk, Clock::simulated(), WorkQueue::default());
        let run = Run { seed, start_unix_nano: START_UNIX_NANO };
        let formed = clients::until_ready(&env, &targets, Duration::from_millis(FORMED_MS)).await;
        let failures = match formed {
            Ok(()) => {
                shared.borrow_mut().is_formed = true;
                clients::run(env, Timeline::simulated(), run, plan, targets, recorder, phases).await
            }
            Err(error) => vec![error],
        };
        shared.borrow_mut().failures = Some(failures);
        Ok(())
    });
}

fn end_of(world: &mut World, trace: &Trace, recorder: &Recorder, failures: Vec<String>) -> End {
    let counters = world.counters();
    let counted = |name: &str| counters.get(name).copied().unwrap_or(0);
    let coverage = [
        (coverage::REPLAYED_ROWS, trace.seen().replayed_rows),
        (coverage::FLUSHES, counted("oteld.store.flushes")),
        (coverage::COMPACTIONS, counted("oteld.store.compactions")),
        (coverage::SEGMENTS_INSTALLED, counted("oteld.store.segments_installed")),
        (coverage::PARTIAL_READS, recorder.live().partial),
        (coverage::MOVES_FINISHED, trace.seen().moves_finished),
    ];
    let coverage = coverage.into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
    End { at_us: world.sim.elapsed().as_micros() as u64, failures, coverage }
}
