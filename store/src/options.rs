//! Settings of one node's store.

use std::path::PathBuf;
use std::time::Duration;

/// Where a store lives and what it may use.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data directory; made where there is none.
    pub dir: PathBuf,
    /// Length of a WAL file, preallocated.
    pub wal_file_bytes: u64,
    /// New payload that one fsync covers, unless a single batch is larger.
    pub wal_group_bytes_max: u64,
    /// Appends that may wait for the WAL.
    pub wal_queue_max: usize,
    /// Bytes of batches that may wait for the WAL.
    pub wal_queue_bytes_max: u64,
    /// Flushed WAL that is kept so that peers can tail.
    pub wal_keep_bytes: u64,
    /// The active memtable is flushed above this. Appends are refused when all memtables together hold twice as
    /// much.
    pub memtable_bytes_max: u64,
    /// The active memtable is flushed when its rows lie in more windows of event time, each of which becomes a
    /// file. Appends are refused when all memtables together have twice as many.
    pub memtable_windows_max: usize,
    /// The active memtable is flushed when its oldest part is older.
    pub memtable_age_max: Duration,
    /// Appends are refused where less would be left on the disk.
    pub min_free_bytes: u64,
    /// Definitions in memory that batches may name without carrying them.
    pub definitions_bytes_max: usize,
    /// Request ids in memory; those of windows that were not written to for longest are read again on demand.
    pub ids_max: usize,
    /// How many segments of one window and level are merged at least.
    pub compact_fan_in: usize,
    /// A merge does not make segments larger than this.
    pub compact_bytes_max: u64,
    /// Whether flushes and compactions start by themselves. Off, only [`crate::Store::flush`] and
    /// [`crate::Store::compact`] run them.
    pub background: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            dir: PathBuf::from("oteld-data"),
            wal_file_bytes: 64 << 20,
            wal_group_bytes_max: 512 << 10,
            wal_queue_max: 1024,
            wal_queue_bytes_max: 64 << 20,
            wal_keep_bytes: 256 << 20,
            memtable_bytes_max: 64 << 20,
            memtable_windows_max: 1024,
            memtable_age_max: Duration::from_secs(300),
            min_free_bytes: 256 << 20,
            definitions_bytes_max: 32 << 20,
            ids_max: 4 << 20,
            compact_fan_in: 4,
            compact_bytes_max: 512 << 20,
            background: true,
        }
    }
}
