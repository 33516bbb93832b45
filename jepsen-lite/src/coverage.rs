//! What must have happened for a run to prove anything. A run whose faults did not really strike is *unknown*, never
//! valid.
//!
//! Drivers report these by name, in [`FaultEnded::evidence`](crate::history::event::FaultEnded) and
//! [`End::coverage`](crate::history::event::End).

/// Processes that were running when they were killed or lost power.
pub const KILLED: &str = "killed";
/// Of those, how many led the meta group at that moment.
pub const LEADER_HIT: &str = "leader_hit";
/// Bytes that a power loss found written and not synced.
pub const UNSYNCED_BYTES: &str = "unsynced_bytes";
/// Milliseconds that stopped processes did not run.
pub const PAUSED_MS: &str = "paused_ms";
/// Bytes, messages or connection attempts between nodes that a cut held back.
pub const HELD_BACK: &str = "held_back";
/// Bytes that slow links delayed, throttled or held.
pub const DELAYED: &str = "delayed";
/// Operations of a disk that failed or were slow because of a fault.
pub const DISK_STRUCK: &str = "disk_struck";
/// Bits that were flipped in files with data.
pub const BITS_FLIPPED: &str = "bits_flipped";
/// Clocks that were really wrong, as read back from the process.
pub const CLOCK_WRONG: &str = "clock_wrong";
/// Stores that were wiped and held data.
pub const WIPED: &str = "wiped";
/// Named fault points at which a process died.
pub const POINT_HIT: &str = "point_hit";
/// Times that the meta group was seen without a leader.
pub const LEADERLESS: &str = "leaderless";
/// Rows that restarts read back from the WAL.
pub const REPLAYED_ROWS: &str = "replayed_rows";
/// Segments that replicas copied from peers.
pub const SEGMENTS_INSTALLED: &str = "segments_installed";
/// Memtables flushed, and segments merged.
pub const FLUSHES: &str = "flushes";
pub const COMPACTIONS: &str = "compactions";
/// Shards that changed their set of replicas.
pub const MOVES_FINISHED: &str = "moves_finished";
