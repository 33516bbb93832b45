//! Installing received segments: all of a snapshot in one commit.
//!
//! # Why in one commit
//! The rows of one part may lie in segments of several windows, while a part is known, and acknowledged, by the id
//! in the window of its first row. Were segments installed one by one, a crash in between could leave a part that
//! is known here with only some of its rows, and nothing would ever fetch the rest.
//!
//! # Why the log's start rises
//! Installed rows have no entry in this replica's log, so a peer that tails it would never learn of them. So the
//! install takes a position `m` of its own, which no entry has, and raises the start of the log to it: who has a
//! cursor before `m` pulls the entries up to there, is told then that the log does not reach back, takes a snapshot in
//! turn and compares ids. The rows, `m` as the published position, and the new start appear in one step, and one
//! manifest has the rows and the start; after a restart no entry before it is there to pull. Hence
//! - a cursor at or after `m` belongs to a peer that took a snapshot or tailed after the rows were here, and has
//!   compared or pulled them;
//! - a scan that shows the rows is pinned at `m` or later, so that making it durable on a quorum (PROTOCOL, R3)
//!   makes the peers reach `m`, which is to say compare ids;
//! - after a crash both are there or neither. A position `m` that was taken but not committed leaves a gap that
//!   nobody saw.
//!
//! # Which rows
//! A peer's file may also hold rows of shards that were not asked for: of shards that this replica is no member of,
//! or is a member of together with others, or that the peer left. The ids of those were not compared, so counting them
//! as applied here could hide that other rows of the same parts are missing. Such a file is written anew with the asked
//! shards only; a file without any is installed as it is, byte by byte.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::receive::{io, name, open_verified, whole_path};
use super::{SegmentOffer, damaged};
use crate::append::Command;
use crate::compaction::merge::{self, Target};
use crate::engine::{Engine, State, segments_dir};
use crate::error::StoreError;
use crate::floors::Floors;
use crate::leave::{Left, LeftBefore};
use crate::manifest::SegmentMeta;
use crate::model::{Shard, Signal, Window};
use crate::position::Position;
use crate::segment::AppliedId;
use crate::segments::{self, Loss, OpenSegment, Trash, Uncommitted};

/// Received segments with their final names, to be committed and shown by the WAL task between two groups.
#[derive(Debug)]
pub(crate) struct Install {
    pub segments: Uncommitted,
    /// Ids of windows that are in memory.
    pub ids: Vec<(Signal, Window, Vec<AppliedId>)>,
    /// Held until they are shown, also where the caller goes away: no shard is left meanwhile.
    pub loading: OwnedMutexGuard<()>,
    pub reply: oneshot::Sender<Result<Position, StoreError>>,
}

impl Engine {
    /// See [`crate::Store::install_received`].
    pub(crate) async fn install_received(
        self: &Arc<Self>,
        offers: Vec<SegmentOffer>,
        shards: BTreeSet<Shard>,
        compared: &LeftBefore,
    ) -> Result<Option<Position>, StoreError> {
        // Files are read, and some written anew, before anything waits for it.
        let segments = self.name_all_received(offers, shards.clone(), compared).await?;
        if segments.as_slice().is_empty() {
            return Ok(None);
        }
        // No window's ids are loaded between the look at which are and the commit.
        let loading = self.loading.clone().lock_owned().await;
        let loaded = self.state_as_compared(compared, &shards)?.ids.loaded_windows();
        let read = move || ids_of(segments.as_slice(), &loaded).map(|ids| (segments, ids));
        let (segments, ids) = self.env.tasks.blocking(read).await?;
        let (reply, installed) = oneshot::channel();
        let install = Install { segments, ids, loading, reply };
        self.queue.send(Command::Install(install)).await.map_err(|_| StoreError::Closed)?;
        installed.await.map_err(|_| StoreError::Closed)?.map(Some)
    }

    /// The state of a store that is not closed, in which what was compared counts.
    fn state_as_compared(
        &self,
        compared: &LeftBefore,
        shards: &BTreeSet<Shard>,
    ) -> Result<MutexGuard<'_, State>, StoreError> {
        self.is_not_closed()?;
        let state = self.state.lock();
        compared.still_holds(&state.left, shards)?;
        Ok(state)
    }

    async fn name_all_received(
        self: &Arc<Self>,
        offers: Vec<SegmentOffer>,
        shards: BTreeSet<Shard>,
        compared: &LeftBefore,
    ) -> Result<Uncommitted, StoreError> {
        let naming = self.naming.clone().lock_owned().await;
        let floors = self.state_as_compared(compared, &shards)?.floors.clone();
        let engine = self.clone();
        let name = move || {
            let _naming = naming;
            let mut named = Uncommitted::default();
            for offer in each_file_once(offers) {
                engine.is_not_closed()?;
                if let Some(segment) = engine.name_received(&offer, &shards, &floors)? {
                    named.push(segment);
                }
            }
            engine.sync_segments_dir()?;
            Ok(named)
        };
        self.env.tasks.blocking(name).await
    }

    /// Gives a received file its place among the segments, or writes one with only the rows of `shards`; none
    /// where no row of them exists.
    fn name_received(
        &self,
        offer: &SegmentOffer,
        shards: &BTreeSet<Shard>,
        floors: &Floors,
    ) -> Result<Option<Arc<OpenSegment>>, StoreError> {
        let received = whole_path(&segments_dir(&self.options), &offer.info);
        let segment = open_verified(&self.env.disk, &received, &offer.info)?;
        let shards: BTreeSet<Shard> =
            shards.iter().filter(|shard| !offer.left.contains(shard)).copied().collect();
        let id = self.new_segment_id();
        let path = segments::path(&segments_dir(&self.options), id);
        // With a trash and a loss of its own: as an input of a merge it is never shown, and nobody was told of it.
        let meta = SegmentMeta { id, level: offer.level, info: offer.info.clone() };
        let (trash, loss) = (Trash::default(), Loss::default());
        let source = Arc::new(OpenSegment::new(meta.clone(), segment, received.clone(), trash, loss));
        if has_only(&source, &shards)? {
            drop(source);
            self.env.disk.rename(&received, &path).map_err(io("give a received segment its name"))?;
            return self.adopt(meta, &path).map(Some);
        }
        let target = Target { id, level: offer.level, shards: Some(&shards), left: &Left::default() };
        let written = merge::write(self, &target, &[source], floors)?;
        self.remove_received(received)?;
        Ok(written)
    }

    fn remove_received(&self, received: PathBuf) -> Result<(), StoreError> {
        self.env.disk.remove_file(&received).map_err(io("remove a received segment"))
    }
}

/// A peer may have the same file twice: where it got a part from two sides, each time alone in a segment. What counts
/// in either counts.
fn each_file_once(offers: Vec<SegmentOffer>) -> Vec<SegmentOffer> {
    let mut files: BTreeMap<String, SegmentOffer> = BTreeMap::new();
    for offer in offers {
        match files.entry(name(&offer.info)) {
            Entry::Vacant(place) => drop(place.insert(offer)),
            Entry::Occupied(mut place) => place.get_mut().left.retain(|shard| offer.left.contains(shard)),
        }
    }
    files.into_values().collect()
}

/// Whether a segment has rows and ids of no other shards.
fn has_only(segment: &OpenSegment, shards: &BTreeSet<Shard>) -> Result<bool, StoreError> {
    let ids = segment.ids().map_err(|error| damaged(segment, &error))?;
    let mut all = segment.meta.info.shards.iter().chain(ids.iter().flat_map(|id| &id.shards));
    Ok(all.all(|shard| shards.contains(shard)))
}

fn ids_of(
    segments: &[Arc<OpenSegment>],
    loaded: &BTreeSet<(Signal, Window)>,
) -> Result<Vec<(Signal, Window, Vec<AppliedId>)>, StoreError> {
    let segments = segments.iter().filter(|segment| loaded.contains(&segment.key()));
    let read = segments.map(|segment| {
        let (signal, window) = segment.key();
        let ids = segment.ids().map_err(|error| damaged(segment, &error))?;
        Ok((signal, window, ids))
    });
    read.collect()
}
