//! Requests that wait for the same replica set share a batch: while some batches are under way, what arrives waits,
//! and the next batch takes all of it. An idle set costs a request no wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use oteld_cluster::shard_map::Member;
use oteld_env::Env;
use oteld_store::model::Signal;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::sending::{Problem, Sending};
use super::{Links, Share};
use crate::write::request::WriteError;

/// Batches of one lane under way. Few enough that small requests gather, enough that large ones need not wait: rows that
/// wait are encoded when they are out of the cache, which made metrics a quarter dearer.
const UNDER_WAY_MAX: usize = 8;

/// Rows of a batch, and bytes of the requests in it, unless a single one has more.
const BATCH_ROWS_MAX: usize = 4 << 10;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// How often those are looked for who wait no longer.
const ABANDONED_EVERY: usize = 64;

/// One lane for each signal and replica set. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lanes(Arc<Inner>);

struct Inner {
    env: Env,
    links: Links,
    lanes: Mutex<BTreeMap<LaneKey, Lane>>,
}

type LaneKey = (Signal, Vec<Member>);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    under_way: usize,
    /// Why the latest round of sending did not succeed.
    problem: Option<Problem>,
}

/// A request's share of a set, and who waits for it.
pub(super) struct Waiting {
    pub(super) share: Share,
    pub(super) done: oneshot::Sender<Result<(), WriteError>>,
    pub(super) deadline: Instant,
}

impl Waiting {
    fn rows(&self) -> usize {
        self.share.parts.iter().map(|part| part.rows.len()).sum()
    }
}

impl Lanes {
    pub(super) fn new(env: Env, links: Links) -> Self {
        Lanes(Arc::new(Inner { env, links, lanes: Mutex::default() }))
    }

    /// Until a majority has the share, or the deadline.
    pub(super) async fn write(
        &self,
        signal: Signal,
        set: Vec<Member>,
        share: Share,
        deadline: Instant,
    ) -> Result<(), WriteError> {
        let shards = share.parts.len();
        let key = (signal, set);
        let (done, outcome) = oneshot::channel();
        self.join(&key, Waiting { share, done, deadline });
        match timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(WriteError::Internal { reason: "the batch of the request was given up".into() })
            }
            Err(_) => {
                let problem = self.0.lanes.lock().get(&key).and_then(|lane| lane.problem.clone());
                Err(problem.unwrap_or_default().into_error(shards))
            }
        }
    }

    fn join(&self, key: &LaneKey, waiting: Waiting) {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.entry(key.clone()).or_default();
        lane.waiting.push_back(waiting);
        // Those whose clients went away no longer count against the budget of memory, so they must not stay.
        if lane.waiting.len().is_multiple_of(ABANDONED_EVERY) {
            lane.waiting.retain(|waiting| !waiting.done.is_closed());
        }
        if lane.under_way < UNDER_WAY_MAX {
            lane.under_way += 1;
            self.0.env.tasks.spawn(self.clone().run(key.clone()));
        }
    }

    /// Sends one batch after the other until nobody waits.
    async fn run(self, key: LaneKey) {
        while let Some(waiting) = self.next(&key) {
            let turn = Turn { lanes: &self, key: &key };
            let mut sending = Sending::new(&self.0.links, key.0, waiting);
            sending.run(&|problem| self.report(&key, problem)).await;
            // It ended well: the place is kept for the next batch.
            std::mem::forget(turn);
        }
    }

    /// The requests of the next batch; `None` ends the caller's turn.
    fn next(&self, key: &LaneKey) -> Option<Vec<Waiting>> {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.get_mut(key)?;
        let mut taken: Vec<Waiting> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(first) = lane.waiting.front() {
            rows += first.rows();
            bytes += first.share.bytes;
            if !taken.is_empty() && (rows > BATCH_ROWS_MAX || bytes > BATCH_BYTES_MAX) {
                break;
            }
            // Who gave up waiting does not want it sent any more.
            taken.extend(lane.waiting.pop_front().filter(|waiting| !waiting.done.is_closed()));
        }
        if taken.is_empty() {
            leave(&mut lanes, key);
            return None;
        }
        Some(taken)
    }

    fn report(&self, key: &LaneKey, problem: Option<Problem>) {
        if let Some(lane) = self.0.lanes.lock().get_mut(key) {
            lane.problem = problem;
        }
    }
}

/// Ends one turn of a lane; one without any is forgotten.
fn leave(lanes: &mut BTreeMap<LaneKey, Lane>, key: &LaneKey) {
    if let Some(lane) = lanes.get_mut(key) {
        lane.under_way -= 1;
        if lane.under_way == 0 && lane.waiting.is_empty() {
            lanes.remove(key);
        }
    }
}

/// A batch that is being sent. Dropped by a panic it gives its place to others.
struct Turn<'a> {
    lanes: &'a Lanes,
    key: &'a LaneKey,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        leave(&mut self.lanes.0.lanes.lock(), self.key);
    }
}
