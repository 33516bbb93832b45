//! What peers pull from a store's log, and how far the store has pulled of theirs (PROTOCOL, T1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::append::Command;
use crate::batch::Batch;
use crate::engine::{Engine, WriteState};
use crate::error::{StoreError, TailError};
use crate::ids::PartId;
use crate::model::{RequestId, Shard, Signal, Window};
use crate::position::{Cursor, Position, Prefix, ReplicaId};
use crate::store::Store;
use crate::tail::{TailEntry, TailLocation, TailPage};
use crate::wal::record::CursorAdvance;

impl Store {
    /// Published parts of `shards` after `after`, oldest first, at most `entries_max`. The page may be short of
    /// that and still not be the last: go on from its `covered` until that is the store's position.
    ///
    /// # Errors
    /// Where the log does not reach back that far, or `after` is no prefix of it.
    pub fn tail(
        &self,
        after: Prefix,
        shards: &BTreeSet<Shard>,
        entries_max: usize,
    ) -> Result<TailPage, TailError> {
        if let Some(reason) = self.lost() {
            return Err(TailError::Lost { reason });
        }
        let state = self.engine().state.lock();
        let own = |position| state.prefix(position).expect("the boot of an own position is known");
        if !state.has_published(&after) {
            let end = state.ends.get(&after.boot).map(|end| Position { boot: after.boot, n: *end });
            return Err(TailError::BeyondEnd { end: own(end.unwrap_or(state.position)) });
        }
        // The end of one boot is the start of the next.
        let mut after = after.position();
        while after.boot < state.position.boot
            && state.ends.get(&after.boot).is_none_or(|end| *end == after.n)
        {
            after = Position { boot: after.boot + 1, n: 0 };
        }
        let page = state.tail.page(after, shards, entries_max)?;
        Ok(TailPage { entries: page.entries, covered: own(page.covered), has_more: page.has_more })
    }

    /// The bodies of entries of the tail: one batch for each stored one, with only the asked parts.
    ///
    /// # Errors
    /// Where a position is not in the log (any more), or its bytes cannot be read.
    pub async fn read_parts(&self, positions: &[Position]) -> Result<Vec<Batch>, StoreError> {
        let mut by_batch: BTreeMap<(u64, u64), (TailLocation, Vec<usize>)> = BTreeMap::new();
        {
            let state = self.engine().state.lock();
            for position in positions {
                let location = state.tail.locate(*position).ok_or(StoreError::NoSuchPosition(*position))?;
                let part = location.part as usize;
                let key = (location.wal.seq, location.batch_offset);
                by_batch.entry(key).or_insert_with(|| (location, Vec::new())).1.push(part);
            }
        }
        let read = move || {
            let one = |(location, parts): (TailLocation, _)| {
                read_parts(&location, parts).map_err(|error| (location.wal.seq, error))
            };
            by_batch.into_values().map(one).collect::<Result<_, _>>()
        };
        match self.engine().env.tasks.blocking(read).await {
            Ok(batches) => Ok(batches),
            Err((seq, error)) => {
                if matches!(error, StoreError::Damaged { .. }) {
                    self.engine().abandon_log(seq).await?;
                }
                Err(error)
            }
        }
    }

    /// Whether a part, with this body, is published and durable here. `window` is that of its first row.
    ///
    /// # Errors
    /// Where the ids of that window cannot be read.
    pub async fn has_part(
        &self,
        signal: Signal,
        window: Window,
        request: RequestId,
        digest: u64,
        shard: Shard,
    ) -> Result<bool, StoreError> {
        let part = PartId { signal, window, request, digest, shard };
        loop {
            if let Some(has) = self.engine().state.lock().ids.has(&part) {
                return Ok(has);
            }
            self.engine().load_ids(signal, window).await?;
        }
    }

    /// Those of a peer's entries that are not published and durable here.
    ///
    /// # Errors
    /// Where ids cannot be read.
    pub async fn missing_parts(&self, entries: &[TailEntry]) -> Result<Vec<TailEntry>, StoreError> {
        let mut missing = Vec::new();
        for entry in entries {
            let PartId { signal, window, request, digest, shard } = entry.id();
            if !self.has_part(signal, window, request, digest, shard).await? {
                missing.push(*entry);
            }
        }
        Ok(missing)
    }

    /// The prefix of `peer`'s log that is durably held here for `shard`, of which this store is a replica since the
    /// epoch `since`.
    pub fn cursor(&self, peer: ReplicaId, shard: Shard, since: u64) -> Prefix {
        let state = self.engine().state.lock();
        let cursor = state.cursors.get(&peer).and_then(|cursors| cursors.get(&shard));
        cursor.filter(|cursor| cursor.since == since).map(|cursor| cursor.held).unwrap_or_default()
    }

    /// Records that everything of `shards` in `peer`'s log up to `to` was appended here (PROTOCOL, T1). Each shard
    /// comes with the epoch since which this store is a replica of it. Cursors only grow within one membership. It
    /// becomes durable with a later group of the WAL; losing it means pulling again.
    ///
    /// # Errors
    /// Where the store takes no writes.
    pub async fn advance_cursor(
        &self,
        peer: ReplicaId,
        shards: &BTreeMap<Shard, u64>,
        to: Prefix,
    ) -> Result<(), StoreError> {
        let engine = self.engine();
        let slot = engine.queue.reserve().await.map_err(|_| StoreError::Closed)?;
        let mut advanced = Vec::new();
        {
            let mut state = engine.state.lock();
            match &state.writes {
                WriteState::Failed(reason) => return Err(StoreError::ReadOnly { reason: reason.clone() }),
                WriteState::Closed => return Err(StoreError::Closed),
                WriteState::Open | WriteState::Full(_) => {}
            }
            let cursors = state.cursors.entry(peer).or_default();
            for (shard, since) in shards {
                if cursors.entry(*shard).or_default().advance(Cursor { since: *since, held: to }) {
                    advanced.push((*shard, *since));
                }
            }
        }
        if !advanced.is_empty() {
            slot.send(Command::Cursor(CursorAdvance { peer, to, shards: advanced }));
        }
        Ok(())
    }
}

impl Engine {
    /// Takes a damaged file, and those before it, off the list that peers tail, so that they take a snapshot instead
    /// of asking for it again and again. Its rows are in memory or in segments; after the flush they are in segments.
    async fn abandon_log(self: &Arc<Self>, seq: u64) -> Result<(), StoreError> {
        tracing::error!(file = seq, "a file of the WAL is damaged; peers that need it copy segments instead");
        self.flush().await?;
        self.state.lock().tail.abandon(seq);
        Ok(())
    }
}

/// Reads one stored batch and takes the asked parts out of it.
fn read_parts(location: &TailLocation, mut parts: Vec<usize>) -> Result<Batch, StoreError> {
    let what = || format!("WAL file {} at {}", location.wal.seq, location.batch_offset);
    let mut bytes = vec![0; location.batch_len as usize];
    location
        .wal
        .file
        .read_exact_at(location.batch_offset, &mut bytes)
        .map_err(|error| StoreError::Io { what: format!("read {}", what()), reason: error.to_string() })?;
    let damaged = |reason: String| StoreError::Damaged { what: what(), reason };
    let batch = Batch::parse(bytes.into()).map_err(|error| damaged(error.to_string()))?;
    let mut failed = None;
    let batch = batch.resolve(|hash, carried| {
        let read = || match location.wal.definitions.read(&*location.wal.file, hash) {
            Ok(found) => found.map(Arc::new),
            Err(error) => {
                failed = Some(error.to_string());
                None
            }
        };
        carried.cloned().or_else(read)
    });
    let batch = batch.map_err(|error| damaged(failed.unwrap_or_else(|| error.to_string())))?;
    parts.sort_unstable();
    parts.dedup();
    batch.select(&parts).map_err(|error| damaged(error.to_string()))
}
