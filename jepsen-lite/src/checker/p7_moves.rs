//! P7 moves are invisible: whatever happens to the rows, a read of the same items shows the same bytes; and ingest goes
//! on while shards move.
//!
//! Two complete reads of the same way, signal and scope that show the same items must have the same digest of labels,
//! times, values and ids, whatever was flushed, merged, moved or restarted between them: items never change. Which items
//! must be there is P1 to P5's, so that nothing is asked twice; a field outside of the digest is not seen here. For
//! ingest: no time of more than [`GAP_US`] between acknowledgements of a signal that clients tried to get, while a
//! shard was seen moving and with no fault in force, or over for less than the run's bound, that could explain it. The
//! digest is the comparison of query results before and after a reorganisation that storage engines test with.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::words::{ReadRef, seconds};
use super::{Found, Promise, Scene};
use crate::history::event::{Outcome, Read, Sample, Way, Write};
use crate::workload::item::Signal;

/// Nobody waits longer for an acknowledgement without a reason.
pub(crate) const GAP_US: u64 = 5_000_000;

/// Answers that are kept to compare later ones with; the oldest scopes are forgotten first.
const KEPT_MAX: usize = 200_000;

type Key = (Signal, Way, (u32, u32), (u64, u64));

struct Shown {
    /// Hash of which items and echoes, and how often.
    items: u64,
    digest: u64,
    read: ReadRef,
}

#[derive(Default)]
struct Ingest {
    acknowledged_us: u64,
    /// The last attempt after that which came to nothing: when it ended, and how long it had been tried.
    failed: Option<(u64, u64)>,
}

#[derive(Default)]
pub(crate) struct Moves {
    kept: BTreeMap<Key, Shown>,
    order: VecDeque<Key>,
    ingest: BTreeMap<Signal, Ingest>,
    /// When shards were last seen on the move, in seconds.
    moving: VecDeque<u64>,
    /// Reads that were compared with an earlier one.
    pub(crate) compared: u64,
}

impl Moves {
    pub(crate) fn read(&mut self, read: &Read, scene: &Scene, found: &mut Found) {
        if read.partial || read.strange_count > 0 || read.digest == 0 {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (&read.seen, &read.repeated, &read.echoes).hash(&mut hasher);
        let items = hasher.finish();
        let scope = &read.scope;
        let key = (read.signal, read.way, (scope.writers.start, scope.writers.end), (scope.from, scope.to));
        let shown = Shown { items, digest: read.digest, read: ReadRef::of(read) };
        let Some(before) = self.kept.get_mut(&key) else {
            self.kept.insert(key, shown);
            self.order.push_back(key);
            if self.order.len() > KEPT_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.kept.remove(&oldest);
            }
            return;
        };
        if before.items == items {
            self.compared += 1;
            if before.digest != read.digest {
                let what = format!(
                    "{} and {} show the same {} of writers {}..{} and sequences {}..{}, and other bytes",
                    before.read.words(&scene.start),
                    shown.read.words(&scene.start),
                    read.signal.name(),
                    scope.writers.start,
                    scope.writers.end,
                    scope.from,
                    scope.to
                );
                found.add(Promise::P7, read.completed_us, what, None);
            }
        }
        *before = shown;
    }

    pub(crate) fn sample(&mut self, sample: &Sample) {
        let second = sample.at_us / 1_000_000;
        let moves = sample.shards.values().any(|shard| shard.new.is_some());
        if moves && self.moving.back() != Some(&second) {
            self.moving.push_back(second);
            if self.moving.len() > 10_000 {
                self.moving.pop_front();
            }
        }
    }

    pub(crate) fn write(&mut self, write: &Write, scene: &Scene, found: &mut Found) {
        let tried_us = write.completed_us.saturating_sub(write.invoked_us);
        let ingest = self.ingest.entry(write.signal).or_default();
        if write.outcome != Outcome::Acknowledged {
            ingest.failed = Some((write.completed_us, tried_us));
            return;
        }
        let from_us = std::mem::replace(&mut ingest.acknowledged_us, write.completed_us);
        let tried = tried_us > GAP_US || ingest.failed.is_some_and(|(_, tried_us)| tried_us > GAP_US);
        ingest.failed = None;
        if tried {
            self.gap(write.signal, from_us, write.completed_us, scene, found);
        }
    }

    fn gap(&self, signal: Signal, from_us: u64, to_us: u64, scene: &Scene, found: &mut Found) {
        // Before the first acknowledgement a cluster is starting.
        if from_us == 0 || to_us - from_us <= GAP_US {
            return;
        }
        let seconds_of = from_us / 1_000_000..=to_us / 1_000_000;
        let moving = self.moving.iter().rev().any(|second| seconds_of.contains(second));
        if moving && !scene.faults.any(from_us, to_us, scene.start.recover_us_max) {
            let what = format!(
                "no {} were acknowledged from {} to {}, while shards moved and no fault was in force",
                signal.name(),
                seconds(from_us),
                seconds(to_us)
            );
            found.add(Promise::P7, to_us, what, None);
        }
    }

    pub(crate) fn finish(self, scene: &Scene, found: &mut Found) {
        for (signal, ingest) in &self.ingest {
            if let Some((at_us, tried_us)) = ingest.failed
                && tried_us > GAP_US
            {
                self.gap(*signal, ingest.acknowledged_us, at_us, scene, found);
            }
        }
    }
}
