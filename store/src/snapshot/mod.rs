//! Snapshots: everything that a replica holds, as files that another one can copy (PROTOCOL, T2).
//!
//! A snapshot is the segments of one moment and the place in the log from which a peer can tail again. Together
//! they hold all that was published: what the log lets go of was flushed before, and what is in the log is pulled
//! from there. A peer asks for the ids of each segment and copies only segments with ids that it lacks and cannot
//! pull, which is what ends the exchange: sets of ids only grow, so two replicas that install each other's
//! segments soon find nothing that they lack.

mod receive;
mod install;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, State};
use crate::error::StoreError;
use crate::floors::floor_of;
use crate::ids::PartId;
use crate::leave::Left;
use crate::model::{RequestId, Shard, Signal, Tenant, Window};
use crate::position::{Position, Prefix};
use crate::segment::{AppliedId, SegmentError, SegmentInfo};
use crate::segments::OpenSegment;

pub(crate) use install::Install;
pub use receive::Incoming;

/// A segment that can be copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOffer {
    /// Names it in its snapshot.
    pub id: u64,
    /// How often it was merged.
    pub level: u32,
    pub info: SegmentInfo,
    /// Those with rows in it, sorted.
    pub tenants: Vec<Tenant>,
    /// Shards that the replica left: rows and ids that the file has of them do not count. Sorted.
    pub left: Vec<Shard>,
}

/// A part as one replica tells another: signal, request, digest and shard.
type PartKey = (Signal, RequestId, u64, Shard);

/// The segments of one moment. Their files stay until it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    covered: Prefix,
    segments: Vec<Arc<OpenSegment>>,
    left: Arc<Left>,
    /// Parts that the log has after `covered` and that are in one segment each. One with rows in several windows is not
    /// left to be pulled: a copy of one of its segments, for other parts, makes it count as held, and it would not be.
    logged: HashSet<PartKey>,
}

impl Snapshot {
    /// Who holds the parts that the segments have can go on tailing from here.
    pub fn covered(&self) -> Prefix {
        self.covered
    }

    /// The segments, by id.
    pub fn offers(&self) -> Vec<SegmentOffer> {
        let offer = |segment: &Arc<OpenSegment>| SegmentOffer {
            id: segment.meta.id,
            level: segment.meta.level,
            info: segment.meta.info.clone(),
            tenants: tenants_of(segment),
            left: self
                .left
                .0
                .keys()
                .filter(|shard| self.left.has(segment.meta.id, **shard))
                .copied()
                .collect(),
        };
        self.segments.iter().map(offer).collect()
    }

    /// The ids of parts of `shards` with rows in a segment, without those that the log still has. Blocks.
    ///
    /// # Errors
    /// Where there is no such segment, or it cannot be read.
    pub fn ids(&self, id: u64, shards: &BTreeSet<Shard>) -> Result<Vec<AppliedId>, StoreError> {
        let segment = self.segment(id)?;
        let signal = segment.meta.info.signal;
        let ids = segment.ids().map_err(|error| damaged(segment, &error))?;
        let lacked = self.left.ids(segment.meta.id, ids).into_iter().filter_map(|mut id| {
            let key = |shard: &Shard| (signal, id.request, id.digest, *shard);
            id.shards = (id.shards.iter())
                .filter(|shard| shards.contains(shard) && !self.logged.contains(&key(shard)))
                .copied()
                .collect();
            (!id.shards.is_empty()).then_some(id)
        });
        Ok(lacked.collect())
    }

    /// At most `len` bytes of a segment's file; none at its end. Blocks.
    ///
    /// # Errors
    /// Where there is no such segment, or it cannot be read, or is damaged: with the last bytes all of it is checked.
    pub fn read(&self, id: u64, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let segment = self.segment(id)?;
        let bytes = segment.segment.read_file(offset, len).map_err(|error| damaged(segment, &error))?;
        // The copy is checked whole where it goes; that a damaged one came from here is known only here.
        if offset.saturating_add(len) >= segment.meta.info.bytes {
            segment.verify().map_err(|error| damaged(segment, &error))?;
        }
        Ok(bytes)
    }

    fn segment(&self, id: u64) -> Result<&OpenSegment, StoreError> {
        let found = self.segments.iter().find(|segment| segment.meta.id == id);
        found.map(|segment| &**segment).ok_or(StoreError::NoSuchSegment(id))
    }
}

/// The log never starts in a boot that the manifest does not know.
fn own_prefix(state: &State, position: Position) -> Prefix {
    state.prefix(position).expect("the boot of a position that this store gave is known")
}

fn tenants_of(segment: &OpenSegment) -> Vec<Tenant> {
    let tenants: BTreeSet<&Tenant> = segment.segment.groups().iter().map(|group| &group.tenant).collect();
    tenants.into_iter().cloned().collect()
}

fn damaged(segment: &OpenSegment, error: &SegmentError) -> StoreError {
    StoreError::Damaged { what: segment.path().display().to_string(), reason: error.to_string() }
}

/// The parts that a store holds in one window.
#[derive(Debug)]
pub struct HeldIds {
    signal: Signal,
    held: HashSet<PartKey>,
}

impl HeldIds {
    /// Whether some part of `id` is not held.
    pub fn lacks(&self, id: &AppliedId) -> bool {
        id.shards.iter().any(|shard| !self.held.contains(&(self.signal, id.request, id.digest, *shard)))
    }
}

impl Engine {
    /// See [`crate::Store::snapshot`].
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        loop {
            let installed = self.state.lock().counters.segments_installed;
            // What the log may let go of next is in segments from here on.
            self.flush().await?;
            let (covered, segments, left, logged) = {
                let state = self.state.lock();
                // An install raises the log's start over what came while the flush was under way, and flushes nothing
                // of it.
                if state.counters.segments_installed != installed {
                    continue;
                }
                let all = |id: PartId| (id.signal, id.request, id.digest, id.shard);
                let logged: Vec<PartKey> = state.tail.ids_in_one_window().map(all).collect();
                (own_prefix(&state, state.tail.start()), state.segments.0.clone(), state.left.clone(), logged)
            };
            return Ok(Snapshot { covered, segments, left, logged: logged.into_iter().collect() });
        }
    }

    /// See [`crate::Store::held_ids`].
    pub(crate) async fn held_ids(&self, signal: Signal, window: Window) -> Result<HeldIds, StoreError> {
        // A part in a memtable is held whole, whichever window it is kept under. Memtables first: what a flush
        // moves meanwhile is then in the segments.
        let (mut held, segments, left) = {
            let state = self.state.lock();
            let memtables = state.frozen.iter().map(|frozen| &frozen.memtable).chain([&state.memtable]);
            let parts = memtables.flat_map(|memtable| memtable.parts()).map(|part| part.id());
            let held: HashSet<PartKey> = parts
                .filter(|id| id.signal == signal)
                .map(|id| (signal, id.request, id.digest, id.shard))
                .collect();
            (held, state.segments.of(signal, window), state.left.clone())
        };
        let read = move || {
            for segment in segments {
                let ids = segment.ids().map_err(|error| damaged(&segment, &error))?;
                for id in left.ids(segment.meta.id, ids) {
                    held.extend(id.shards.iter().map(|shard| (signal, id.request, id.digest, *shard)));
                }
            }
            Ok(held)
        };
        let held = self.env.tasks.blocking(read).await?;
        Ok(HeldIds { signal, held })
    }

    /// See [`crate::Store::may_want`].
    pub(crate) fn may_want(&self, offer: &SegmentOffer, shards: &BTreeSet<Shard>) -> bool {
        let SegmentInfo { signal, window, max_time_unix_nano, .. } = offer.info;
        let state = self.state.lock();
        let exists = |tenant: &Tenant| floor_of(&state.floors, signal, tenant) <= max_time_unix_nano;
        let mut offered = offer.info.shards.iter();
        let offered: Vec<Shard> =
            offered.by_ref().filter(|s| shards.contains(s) && !offer.left.contains(s)).copied().collect();
        let has = |held: &OpenSegment| {
            held.meta.info == offer.info && !offered.iter().any(|shard| state.left.has(held.meta.id, *shard))
        };
        let is_held = || state.segments.of(signal, window).iter().any(|held| has(held));
        !offered.is_empty() && offer.tenants.iter().any(exists) && !is_held()
    }
}
