//! What a fault test says to a process that runs with faults (`oteld run --faults FILE`), and what it hears.
//!
//! FILE is a [`FaultsFile`] in JSON. The process listens on the Unix socket that it names; every line that a client
//! writes is a [`FaultCommand`] in JSON, and is answered by one line, a [`FaultReply`]:
//!
//! ```text
//! {"do":"clock","offset_ms":-30000}                            the clock is this wrong from now on
//! {"do":"clock","offset_ms":0,"drift_ppm":500}                 and goes wrong by this many microseconds a second
//! {"do":"disk","fault":"eio","on":"sync"}                      the next sync of a file fails
//! {"do":"disk","fault":"no_space","on":"write","after":3,"count":null}  every write but the next three, until healed
//! {"do":"disk","fault":"slow","on":"sync","ms":50,"count":null}         every sync takes 50 ms more
//! {"do":"capacity","bytes":1000000}                            so much can still be written; null: what the disk has
//! {"do":"dial","map":{"127.0.0.1:7001":"127.0.0.1:9001"}}      the new detours, instead of all before
//! {"do":"crash_at","point":"flush.before_commit","nth":1}      SIGKILL when the point is reached the nth time from now
//! {"do":"heal"}                                                no disk faults, no capacity, the right clock, no crash armed
//! {"do":"stats"}                                               [`FaultStats`]
//! ```
//!
//! A command that worked is answered by `{"ok":true}`, `stats` by `{"ok":true,…}` with the fields of
//! [`FaultStats`], anything else by
//! `{"ok":false,"error":"why"}`; the connection stays open in each case. `heal` keeps detours: they belong to the
//! network of the test, which has its own end.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::On;

/// What `--faults` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultsFile {
    /// Decides what reaches the disk early.
    #[serde(default)]
    pub seed: u64,
    /// Where to make the Unix socket; none: faults are only those of this file.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// Whether a kill loses what was not synced.
    #[serde(default)]
    pub power_loss: bool,
    /// Where connections to an advertised `host:port` go instead.
    #[serde(default)]
    pub dial: BTreeMap<String, String>,
}

/// One line to the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultCommand {
    Clock {
        offset_ms: i64,
        #[serde(default)]
        drift_ppm: i64,
    },
    Disk(DiskFault),
    Capacity {
        bytes: Option<u64>,
    },
    Dial {
        map: BTreeMap<String, String>,
    },
    CrashAt {
        point: String,
        #[serde(default = "one")]
        nth: u64,
    },
    Heal,
    Stats,
}

/// One line from the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReply {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its fields stand in the reply itself.
    #[serde(flatten)]
    pub stats: Option<FaultStats>,
}

/// A fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFault {
    pub fault: DiskFaultKind,
    pub on: On,
    /// Operations that match and are spared first.
    #[serde(default)]
    pub after: u64,
    /// How many operations it strikes; `null`: all until healed.
    #[serde(default = "once")]
    pub count: Option<u64>,
    /// What `slow` adds to each.
    #[serde(default)]
    pub ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFaultKind {
    /// The operation fails with `EIO`; a failed sync loses its pages where power loss is on.
    Eio,
    /// The operation fails with `ENOSPC`; a write keeps its first half.
    NoSpace,
    /// The operation takes longer.
    Slow,
}

/// What the process has felt so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStats {
    /// What a kill would lose now; these three are 0 without power loss.
    pub unsynced_bytes: u64,
    /// Files with unsynced bytes or an unsynced length.
    pub unsynced_files: u64,
    /// Creates, renames and removals.
    pub unsynced_names: u64,
    /// Disk faults that struck since the start.
    pub struck: Struck,
    pub clock_offset_ms: i64,
    /// Connections that took a detour since the start.
    pub detours: u64,
    /// How often each fault point was reached since the start.
    pub points: BTreeMap<String, u64>,
}

/// Disk faults by kind. A write that a capacity refuses counts as `no_space`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    pub eio: u64,
    pub no_space: u64,
    pub slow: u64,
}

impl FaultReply {
    pub fn ok() -> Self {
        FaultReply { ok: true, error: None, stats: None }
    }

    pub fn stats(stats: FaultStats) -> Self {
        FaultReply { stats: Some(stats), ..FaultReply::ok() }
    }

    pub fn error(reason: String) -> Self {
        FaultReply { ok: false, error: Some(reason), stats: None }
    }
}

fn one() -> u64 {
    1
}

fn once() -> Option<u64> {
    Some(1)
}
