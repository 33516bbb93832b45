//! Faults by kind, as users name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of fault, as `--faults` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// SIGKILL; what the kernel has is kept.
    Kill,
    /// Power loss: what was not fsynced is lost.
    Power,
    /// SIGSTOP for a while.
    Pause,
    /// Links between nodes are cut: single nodes, halves, a ring of majorities, a bridge, one way.
    Partition,
    /// Links are slow: delayed, throttled, reset, or held and released later.
    Link,
    /// EIO, failed fsync, full disk, slow disk, flipped bits.
    Disk,
    /// A node's wall clock is wrong or jumps.
    Clock,
    /// A storage node's disk is gone for good.
    Wipe,
    /// The object store fails, is slow, or commits and loses the reply.
    Store,
    /// The meta group loses its majority.
    Meta,
}

impl FaultKind {
    pub const ALL: [FaultKind; 10] = [
        FaultKind::Kill,
        FaultKind::Power,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::Link,
        FaultKind::Disk,
        FaultKind::Clock,
        FaultKind::Wipe,
        FaultKind::Store,
        FaultKind::Meta,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Power => "power",
            FaultKind::Pause => "pause",
            FaultKind::Partition => "partition",
            FaultKind::Link => "link",
            FaultKind::Disk => "disk",
            FaultKind::Clock => "clock",
            FaultKind::Wipe => "wipe",
            FaultKind::Store => "store",
            FaultKind::Meta => "meta",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        FaultKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("`{text}` is no kind of fault; there are {}", names.join(", "))
        })
    }
}
