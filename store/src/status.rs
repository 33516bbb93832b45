//! What an operator wants to know of a store.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Engine;
use crate::model::Signal;
use crate::position::Position;

/// Sizes, counts and health of a store, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    pub position: Position,
    /// Bytes of segments.
    pub segment_bytes: u64,
    pub segments: u64,
    /// Bytes of groups in WAL files, flushed ones that are kept for peers included.
    pub wal_bytes: u64,
    /// Bytes in all memtables, roughly.
    pub memtable_bytes: u64,
    /// Memtables that wait for their segments.
    pub memtables_frozen: u64,
    /// Stored rows of each signal; a row that several segments hold counts in each.
    pub rows: BTreeMap<Signal, u64>,
    /// Request ids in memory.
    pub ids: u64,
    pub flushes: u64,
    pub compactions: u64,
    /// Segments that came from peers.
    pub segments_installed: u64,
    /// Shards whose rows were deleted here, since they are other stores' now.
    pub shards_left: u64,
    pub wal_groups: u64,
    /// Bytes of a torn group that the start cut off the WAL.
    pub torn_bytes: u64,
    /// Why no writes are taken.
    pub read_only: Option<String>,
    /// Why the last flush failed, or the last merge or deletion; `None` when both went well.
    pub maintenance_error: Option<String>,
}

impl StoreStatus {
    pub(crate) fn of(engine: &Engine) -> Self {
        let state = engine.state.lock();
        let mut rows: BTreeMap<Signal, u64> = BTreeMap::new();
        let memtables =
            std::iter::once(&state.memtable).chain(state.frozen.iter().map(|frozen| &frozen.memtable));
        for memtable in memtables {
            memtable.rows().iter().for_each(|(signal, count)| *rows.entry(*signal).or_default() += count);
        }
        for segment in &state.segments.0 {
            *rows.entry(segment.meta.info.signal).or_default() += segment.meta.info.rows;
        }
        StoreStatus {
            position: state.position,
            segment_bytes: state.segments.0.iter().map(|segment| segment.meta.info.bytes).sum(),
            segments: state.segments.0.len() as u64,
            wal_bytes: state.tail.bytes(),
            memtable_bytes: state.memtable_bytes(),
            memtables_frozen: state.frozen.len() as u64,
            rows,
            ids: state.ids.len() as u64,
            flushes: state.counters.flushes,
            compactions: state.counters.compactions,
            segments_installed: state.counters.segments_installed,
            shards_left: state.counters.shards_left,
            wal_groups: state.counters.wal_groups,
            torn_bytes: state.counters.torn_bytes,
            read_only: state.writes.read_only(),
            maintenance_error: state.counters.maintenance_errors.values().next().cloned(),
        }
    }
}
