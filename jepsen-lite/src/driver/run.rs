//! A run against a real cluster: it starts, clients work while faults strike, then everything heals, and what was
//! written is read. Which cluster, and how it is hurt, the driver knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::sample::{self, Seen};
use super::{Addresses, Cluster, Nemesis, Scene};
use crate::history::event::{End, Event, Moment, Start};
use crate::history::file::HistoryWriter;
use crate::history::recorder::{Live, Recorder};
use crate::nemesis::schedule::{Step, Timed, steps};
use crate::timeline::Timeline;
use crate::verdict::Verdict;

const TICK: Duration = Duration::from_millis(250);

/// What to run.
pub struct Settings {
    /// The first line of the history.
    pub start: Start,
    /// How long clients work under faults, from when the cluster is ready.
    pub time: Duration,
    pub schedule: Vec<Timed>,
    /// Where the history goes.
    pub dir: PathBuf,
}

/// What clients need.
pub struct Work {
    pub timeline: Timeline,
    pub recorder: Recorder,
    /// By name.
    pub nodes: BTreeMap<String, Addresses>,
    pub fronts: Vec<String>,
    /// Becomes true when faults are over.
    pub healing: watch::Receiver<bool>,
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Working,
    Healing,
}

/// What there is to show.
pub struct Progress {
    pub stage: Stage,
    pub elapsed: Duration,
    pub live: Live,
    pub in_force: Vec<String>,
}

/// What a run came to.
pub struct Worked {
    pub verdict: Verdict,
    /// Faults that could not be carried out as they were meant, in words.
    pub notes: Vec<String>,
    /// What the clients could not do.
    pub failures: Vec<String>,
    /// Whether the time was cut short.
    pub interrupted: bool,
}

/// Must run on a `LocalSet`. `clients` returns what it could not do, once it has read everything after the change to
/// healing. The cluster is dropped when this returns.
///
/// # Errors
/// When the cluster does not start, or the history cannot be written.
pub(crate) async fn run<C: Cluster>(
    mut cluster: C,
    settings: Settings,
    clients: impl AsyncFnOnce(Work) -> Vec<String> + 'static,
    mut show: impl FnMut(&Progress),
) -> Result<Worked, String> {
    let live = Live::default();
    show(&Progress { stage: Stage::Starting, elapsed: Duration::ZERO, live, in_force: Vec::new() });
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        started = cluster.start() => started?,
        () = interrupts.next() => return Err("interrupted before the cluster was ready".into()),
    }
    let unwritten = |error| format!("cannot write the history to {}: {error}", settings.dir.display());
    let file = HistoryWriter::create(&settings.dir).map_err(unwritten)?;
    let timeline = Timeline::begin();
    let recorder = Recorder::new(&settings.start, Some(file), false);
    let (heal, healing) = watch::channel(false);
    let fronts = settings.start.nodes.get("front").cloned().unwrap_or_default();
    let work = Work { timeline, recorder: recorder.clone(), nodes: cluster.addresses(), fronts, healing };
    let cluster = Rc::new(RefCell::new(cluster));
    let seen = Rc::<RefCell<Seen>>::default();
    let sampler = sample::run(cluster.clone(), timeline, recorder.clone(), seen.clone());
    let sampler = tokio::task::spawn_local(sampler);
    let scene = Scene { timeline, recorder: recorder.clone(), seen, seed: settings.start.seed };
    let mut conductor = Conductor {
        nemesis: C::nemesis(cluster, scene),
        begun: Instant::now(),
        recorder: recorder.clone(),
        clients: tokio::task::spawn_local(clients(work)),
        interrupts,
        failures: None,
    };
    let interrupted = conductor.faults(&settings.schedule, settings.time, &mut show).await;
    recorder.record(Event::Healing(Moment { at_us: timeline.now_us() }));
    // Whoever was listening has ended, and that is seen there.
    let _ = heal.send(true);
    conductor.until_read(&mut show).await?;
    sampler.abort();
    // It has a share of the cluster until it is gone.
    let _ = sampler.await;
    let failures = conductor.failures.unwrap_or_default();
    let end = End { at_us: timeline.now_us(), failures: failures.clone(), ..End::default() };
    let outcome = recorder.finish(end).map_err(unwritten)?;
    Ok(Worked { verdict: outcome.verdict, notes: conductor.nemesis.notes(), failures, interrupted })
}

/// What asks a process to end: Ctrl-C, and what a supervisor sends. Both end a run in order.
struct Interrupts {
    keyboard: Signal,
    supervisor: Signal,
}

impl Interrupts {
    fn listen() -> Result<Interrupts, String> {
        let failed = |error| format!("cannot listen for interrupts: {error}");
        let keyboard = signal(SignalKind::interrupt()).map_err(failed)?;
        let supervisor = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Interrupts { keyboard, supervisor })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.keyboard.recv() => {}
            _ = self.supervisor.recv() => {}
        }
    }
}

/// Carries the schedule out while the clients work.
struct Conductor<N> {
    nemesis: N,
    begun: Instant,
    recorder: Recorder,
    clients: JoinHandle<Vec<String>>,
    interrupts: Interrupts,
    /// What the clients could not do, once they ended.
    failures: Option<Vec<String>>,
}

impl<N: Nemesis> Conductor<N> {
    /// Until the time is up; says whether it was cut short. All faults are over afterwards.
    async fn faults(&mut self, schedule: &[Timed], time: Duration, show: &mut impl FnMut(&Progress)) -> bool {
        let mut steps: VecDeque<(u64, Step<'_>)> = steps(schedule).into();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupted = loop {
            let next = steps.front().map_or(time, |(at_ms, _)| Duration::from_millis(*at_ms).min(time));
            tokio::select! {
                () = sleep_until(self.begun + next) => match steps.pop_front() {
                    Some((_, Step::Begin(timed))) if next < time => self.nemesis.begin(timed).await,
                    Some((_, Step::End(timed))) if next < time => self.nemesis.end(timed.id).await,
                    _ => break false,
                },
                _ = ticks.tick() => {
                    self.nemesis.tick().await;
                    self.show(Stage::Working, show);
                }
                ended = &mut self.clients => {
                    self.note_end(ended);
                    break true;
                }
                () = self.interrupts.next() => break true,
            }
        };
        self.nemesis.heal().await;
        interrupted
    }

    /// Until the clients have read everything.
    ///
    /// # Errors
    /// When somebody does not want to wait for that.
    async fn until_read(&mut self, show: &mut impl FnMut(&Progress)) -> Result<(), String> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.failures.is_none() {
            tokio::select! {
                _ = ticks.tick() => {
                    self.nemesis.tick().await;
                    self.show(Stage::Healing, show);
                }
                ended = &mut self.clients => self.note_end(ended),
                () = self.interrupts.next() => {
                    return Err("interrupted before everything was read: the history has no end and proves little".into());
                }
            }
        }
        Ok(())
    }

    fn note_end(&mut self, ended: Result<Vec<String>, tokio::task::JoinError>) {
        self.failures = Some(ended.unwrap_or_else(|error| vec![format!("the clients broke: {error}")]));
    }

    fn show(&self, stage: Stage, show: &mut impl FnMut(&Progress)) {
        let in_force = self.nemesis.in_force();
        show(&Progress { stage, elapsed: self.begun.elapsed(), live: self.recorder.live(), in_force });
    }
}
