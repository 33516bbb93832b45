//! Leaving shards: deleting what this store has of them once it is no replica of them any more (PROTOCOL, M5).
//!
//! # Why nothing of it counts when the store comes back
//! A part that is known by its id is taken for held: it is acknowledged and not pulled again. So rows, ids and
//! cursors of a shard go together. One manifest says, for the shard, that segments below a number have neither rows
//! nor ids of it, and the state that scans, id look-ups, merges and snapshots use changes in the same step. Segments
//! of a higher number came after it, each part with all of its rows: a flush is one commit, and none can be under way,
//! since it needs a lock that is held while the number is taken. An install is one commit, too; its segments may have
//! lower numbers, and is refused then where a shard is left that it has rows of.
//! - Parts that were in memory were flushed before. A pull that was cut off may still bring a part afterwards; it is
//!   there whole, with its id. An install of segments that were compared before is refused.
//! - The log read back at a start brings rows and ids of what was not flushed, and cursors. The cursors are of the
//!   membership that ended, so none of them counts in the next one; see [`crate::position::Cursor`].
//! - A scan that is pinned shows what it was pinned at.
//!
//! The bytes go when segments are merged, and when a quarter of a segment's shards are gone, at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::MutexGuard;

use crate::engine::Engine;
use crate::error::StoreError;
use crate::model::Shard;
use crate::segment::AppliedId;
use crate::segments::OpenSegment;

/// A segment is written anew when at least one in so many of its shards is gone.
const REWRITE_SHARE: usize = 4;

/// Shards that were left: what segments below a number have of them is not there any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Left(pub BTreeMap<Shard, u64>);

/// How far a store had left some shards at a moment. What was found out about them before they were left does not hold
/// for the next membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBefore(BTreeMap<Shard, u64>);

impl LeftBefore {
    /// Some of a part's segments may be wanted only because the others were here.
    ///
    /// # Errors
    /// Where one of the shards was left since.
    pub(crate) fn still_holds(&self, left: &Left, shards: &BTreeSet<Shard>) -> Result<(), StoreError> {
        if left.before(shards) == *self { Ok(()) } else { Err(StoreError::LeftMeanwhile) }
    }
}

impl Left {
    /// Of `shards`, as it is now.
    pub(crate) fn before(&self, shards: &BTreeSet<Shard>) -> LeftBefore {
        LeftBefore(self.0.iter().filter(|(shard, _)| shards.contains(shard)).map(|(s, n)| (*s, *n)).collect())
    }

    /// Whether what a segment has of a shard is gone.
    pub(crate) fn has(&self, segment: u64, shard: Shard) -> bool {
        self.0.get(&shard).is_some_and(|below| segment < *below)
    }

    /// Those of a segment's shards that are gone.
    pub(crate) fn of(&self, segment: &OpenSegment) -> BTreeSet<Shard> {
        let id = segment.meta.id;
        segment.meta.info.shards.iter().filter(|shard| self.has(id, **shard)).copied().collect()
    }

    /// The ids of a segment's footer without those of shards that are gone.
    pub(crate) fn ids(&self, segment: u64, ids: Vec<AppliedId>) -> Vec<AppliedId> {
        if !self.0.values().any(|below| segment < *below) {
            return ids;
        }
        let mut ids = ids;
        ids.iter_mut().for_each(|id| id.shards.retain(|shard| !self.has(segment, *shard)));
        ids.retain(|id| !id.shards.is_empty());
        ids
    }

    /// Whether so much of a segment is gone that it is worth writing it anew.
    pub(crate) fn is_rewrite_due(&self, segment: &OpenSegment) -> bool {
        let gone = self.of(segment).len();
        gone > 0 && gone * REWRITE_SHARE >= segment.meta.info.shards.len()
    }
}

/// A store in which nothing is flushed or merged until shards were left, or this is dropped.
#[derive(Debug)]
pub struct Leaving<'a> {
    engine: &'a Arc<Engine>,
    _locks: [MutexGuard<'a, ()>; 2],
}

impl Leaving<'_> {
    /// Deletes rows, ids and cursors of `shards`, in one step and durably. Nothing of them may be appended meanwhile.
    ///
    /// # Errors
    /// Those of the disk; all of it is still there then, or it is not known and the store takes no writes until a
    /// restart.
    pub async fn leave(self, shards: BTreeSet<Shard>) -> Result<(), StoreError> {
        // Only now: the caller keeps epochs from changing, which appends hold up, and an append may wait for this lock.
        // Nobody who holds it waits for epochs.
        let loading = self.engine.loading.clone().lock_owned().await;
        let below = self.engine.next_segment.load(Ordering::Relaxed);
        let left: BTreeMap<Shard, u64> = shards.iter().map(|shard| (*shard, below)).collect();
        let published = left.clone();
        let gone = shards.clone();
        self.engine.env.disk.reach("leave.before_commit");
        self.engine
            .commit(
                move |manifest| {
                    manifest
                        .cursors
                        .values_mut()
                        .for_each(|held| held.retain(|shard, _| !gone.contains(shard)));
                    manifest.next_segment = manifest.next_segment.max(below);
                    manifest.left.0.extend(left);
                    true
                },
                move |state| {
                    let _loading = loading;
                    state
                        .cursors
                        .values_mut()
                        .for_each(|held| held.retain(|shard, _| !shards.contains(shard)));
                    state.ids.forget_shards(&shards);
                    state.counters.shards_left += shards.len() as u64;
                    Arc::make_mut(&mut state.left).0.extend(published);
                },
            )
            .await?;
        self.engine.env.disk.reach("leave.after_commit");
        self.engine.wake_compaction.notify_one();
        Ok(())
    }
}

impl Engine {
    /// See [`crate::Store::prepare_leave`].
    pub(crate) async fn prepare_leave(self: &Arc<Self>) -> Result<Leaving<'_>, StoreError> {
        // First, so that nothing waits to be flushed while a long merge ends.
        let compacting = self.compacting.lock().await;
        let flushing = loop {
            self.flush().await?;
            let flushing = self.flushing.lock().await;
            // Segments that wait for their manifest have numbers already.
            if self.state.lock().frozen.is_empty() {
                break flushing;
            }
        };
        self.is_not_closed()?;
        Ok(Leaving { engine: self, _locks: [compacting, flushing] })
    }

    /// See [`crate::Store::held_shards`].
    pub(crate) fn held_shards(&self) -> BTreeSet<Shard> {
        let state = self.state.lock();
        let memtables = state.frozen.iter().map(|frozen| &frozen.memtable).chain([&state.memtable]);
        let mut held: BTreeSet<Shard> =
            memtables.flat_map(|memtable| memtable.parts()).map(|part| part.header().shard).collect();
        for segment in &state.segments.0 {
            let shards = segment.meta.info.shards.iter();
            held.extend(shards.filter(|shard| !state.left.has(segment.meta.id, **shard)));
        }
        held
    }
}
