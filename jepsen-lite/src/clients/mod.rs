//! The clients of a run: writers, readers, sessions of the metadata, moves of shards, and probes with bad input. The same code against
//! simulated clusters, processes and containers; one thread, many tasks.

pub mod exchange;
mod write;
mod read;
mod probe;
pub mod meta;
mod mover;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use oteld_env::Env;
use tokio::sync::watch;
use tokio::time::Instant;

use self::exchange::Pool;
use crate::history::recorder::Recorder;
use crate::timeline::Timeline;
use crate::workload::item::{Run, Signal};

/// Where a front listens, `host:port` each.
#[derive(Clone, Debug)]
pub struct Front {
    pub name: String,
    pub otlp_http: String,
    /// Queries and administration.
    pub query: String,
}

/// Where any node listens, `host:port` each.
#[derive(Clone, Debug)]
pub struct NodeAddress {
    pub name: String,
    /// Administration and `/metrics`.
    pub query: String,
    /// Other nodes.
    pub node: String,
}

/// What the clients talk to.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pub fronts: Vec<Front>,
    pub nodes: Vec<NodeAddress>,
    /// Where the members of the meta group listen for other nodes.
    pub meta: Vec<String>,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub writers: u32,
    /// Of all writers together.
    pub items_per_second: u64,
    pub items_per_request: Range<u64>,
    pub readers: u32,
    /// Between two reads of a reader.
    pub read_pause_ms: Range<u64>,
    /// Sequences of each writer that one read covers; a multiple of [`crate::workload::item::LANES`].
    pub cell: u64,
    /// Sessions that change registers of the metadata.
    pub meta_sessions: u32,
    /// Whether to send what must be refused, too.
    pub probes: bool,
    /// One probe of so many, a multiple of 4, is a burst that is more than a front may hold; 0: none is.
    pub burst_every: usize,
    /// `ingest.request_bytes_max` of the fronts.
    pub request_bytes_max: u64,
    /// How long a client waits for an answer before it sends the same bytes again.
    pub answer_wait: Duration,
    /// How long a reader waits for an answer.
    pub read_wait: Duration,
    /// How long a write is tried before its outcome is left unknown.
    pub give_up: Duration,
    /// After healing, how long until everything must be served.
    pub recover_max: Duration,
}

/// What is asked of the clients now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Work,
    /// Faults are over: finish, and read everything.
    Heal,
}

/// What all clients of a run share.
struct Shared {
    env: Env,
    timeline: Timeline,
    run: Run,
    plan: Plan,
    targets: Targets,
    recorder: Recorder,
    phase: watch::Receiver<Phase>,
    pool: Pool,
    /// By signal and writer, the first sequence that was never sent.
    ends: RefCell<BTreeMap<(Signal, u32), u64>>,
}

/// Waits until a front says that it is ready.
///
/// # Errors
/// After `wait`, with what the fronts say.
pub async fn until_ready(env: &Env, targets: &Targets, wait: Duration) -> Result<(), String> {
    let pool = Pool::new(env.clone());
    let deadline = Instant::now() + wait;
    let mut said = String::from("nothing");
    loop {
        let mut ready = 0;
        for front in &targets.fronts {
            let request = Request::get("/readyz");
            match pool.exchange(&front.query, request, Bytes::new(), Duration::from_secs(2)).await {
                Ok(answer) if answer.status == 200 => ready += 1,
                Ok(answer) => said = String::from_utf8_lossy(&answer.body).trim().to_owned(),
                Err(error) => said = error.reason().to_owned(),
            }
        }
        if ready == targets.fronts.len() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("the cluster is not ready after {} s: {said}", wait.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Works until the phase changes, then sends something fresh, and reads everything that was ever written. Must run on
/// a `LocalSet`. Returns what could not be done: broken liveness.
pub async fn run(
    env: Env,
    timeline: Timeline,
    run: Run,
    plan: Plan,
    targets: Targets,
    recorder: Recorder,
    phase: watch::Receiver<Phase>,
) -> Vec<String> {
    let pool = Pool::new(env.clone());
    let ends = RefCell::default();
    let shared = Rc::new(Shared { env, timeline, run, plan, targets, recorder, phase, pool, ends });
    let writers = (0..shared.plan.writers).map(|writer| {
        let shared = shared.clone();
        tokio::task::spawn_local(async move { write::writer(shared, writer).await })
    });
    let mut running: Vec<_> = writers.collect();
    running.extend((0..shared.plan.readers).map(|session| {
        let shared = shared.clone();
        tokio::task::spawn_local(async move { read::reader(shared, session).await })
    }));
    running.extend((0..shared.plan.meta_sessions).map(|session| {
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let record = |event| shared.recorder.record(event);
            let stop = || shared.phase() != Phase::Work;
            let (env, members) = (shared.env.clone(), shared.targets.meta.clone());
            meta::session(session, env, shared.timeline, members, record, stop).await;
        })
    }));
    running.push(tokio::task::spawn_local(mover::mover(shared.clone())));
    if shared.plan.probes {
        let shared = shared.clone();
        running.push(tokio::task::spawn_local(async move { probe::prober(shared).await }));
    }
    let mut failures = Vec::new();
    for task in running {
        if let Err(error) = task.await {
            failures.push(format!("a client ended: {error}"));
        }
    }
    let deadline = Instant::now() + shared.plan.recover_max;
    failures.extend(write::fresh(&shared, 0, deadline).await);
    let session = shared.plan.readers;
    failures.extend(read::last(&shared, session, deadline).await);
    failures
}

impl Shared {
    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The next `count` sequences of a writer.
    fn extend(&self, signal: Signal, writer: u32, count: u64) -> Range<u64> {
        let mut ends = self.ends.borrow_mut();
        let end = ends.entry((signal, writer)).or_default();
        let from = *end;
        *end += count;
        from..*end
    }

    /// The first sequence that no writer has sent.
    fn end(&self, signal: Signal) -> u64 {
        let ends = self.ends.borrow();
        ends.iter().filter(|((of, _), _)| *of == signal).map(|(_, end)| *end).max().unwrap_or(0)
    }

    fn some_front(&self) -> usize {
        self.env.random.in_range(0..self.targets.fronts.len() as u64) as usize
    }

    fn one_in(&self, count: u64) -> bool {
        self.env.random.in_range(0..count) == 0
    }

    /// How long a writer pauses after `items`, so that all of them together keep their rate.
    fn pause_after(&self, items: u64) -> Duration {
        let writers = u64::from(self.plan.writers);
        let mean_us = items * 1_000_000 * writers / self.plan.items_per_second.max(1);
        Duration::from_micros(self.env.random.in_range(mean_us / 2..mean_us * 3 / 2 + 1))
    }

    /// Sleeps, and wakes when the work is over.
    async fn sleep_in_work(&self, pause: Duration) {
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            // An error means that the driver is gone; the work is then over as well.
            _ = phase.wait_for(|phase| *phase != Phase::Work) => {}
        }
    }

    fn count(&self, what: &'static str) {
        self.recorder.count(what);
    }
}
