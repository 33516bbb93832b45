//! Faults by kind, as users name them, and one by one, with the nodes that they strike. No driver is known here.

use std::collections::{BTreeMap, BTreeSet};
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

/// A directed link: what the first sends to the second.
pub type Link = (String, String);

/// What is done to a cluster. Drivers know how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// The processes end as by SIGKILL, and start again at the end of the fault.
    Kill {
        nodes: Vec<String>,
    },
    /// The same, and what was not synced is lost. All nodes at the same moment.
    Power {
        nodes: Vec<String>,
    },
    /// A power loss at a named point of the code, the `nth` time that it is reached; the process starts again at the
    /// end of the fault.
    CrashAt {
        node: String,
        point: String,
        nth: u64,
    },
    Pause {
        node: String,
    },
    Partition {
        shape: Shape,
        cut: Vec<Link>,
    },
    Link {
        links: Vec<Link>,
        how: LinkHow,
    },
    Disk {
        node: String,
        how: DiskHow,
    },
    /// Wrong by so much from the beginning, and by `drift_ppm` microseconds more each second; right at the end.
    Clock {
        node: String,
        offset_ms: i64,
        drift_ppm: i64,
    },
    /// The process ends, its store is removed, and it starts again at the end of the fault.
    Wipe {
        node: String,
    },
    /// A majority of the meta group is killed, or paused, while no storage node and no front is.
    Meta {
        nodes: Vec<String>,
        pauses: bool,
    },
}

/// Which links a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One node is alone.
    Single,
    /// Two halves that do not see each other.
    Halves,
    /// Every node sees a majority, and no two see the same one.
    MajorityRing,
    /// Two halves with one node that sees both.
    Bridge,
    /// One node, or half of them, is not heard but hears, or the other way around.
    OneWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum LinkHow {
    /// Every byte comes so much later.
    Delay {
        ms: u64,
    },
    Throttle {
        bytes_per_second: u64,
    },
    /// Connections are reset, those that stand and then each new one after a while.
    Reset,
    /// Connections that stand are reset, and new ones refused.
    Refuse,
    /// Nothing passes until the end, and then everything that was sent.
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum DiskHow {
    /// Every such operation fails.
    Eio {
        on: DiskOp,
    },
    /// One sync fails.
    FailedSync,
    NoSpace,
    /// Every sync takes so much longer.
    Slow {
        ms: u64,
    },
    /// The process ends, bits of its files are flipped, and it starts again at the end of the fault.
    FlipBits {
        bits: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskOp {
    Read,
    Write,
    Sync,
}

impl DiskHow {
    /// Whether a store that felt it takes no writes until a restart, also when the disk is well again (PROTOCOL, A3).
    pub fn needs_restart(self) -> bool {
        matches!(self, DiskHow::FailedSync | DiskHow::Eio { on: DiskOp::Write | DiskOp::Sync })
    }
}

impl Fault {
    pub fn kind(&self) -> FaultKind {
        match self {
            Fault::Kill { .. } => FaultKind::Kill,
            Fault::Power { .. } | Fault::CrashAt { .. } => FaultKind::Power,
            Fault::Pause { .. } => FaultKind::Pause,
            Fault::Partition { .. } => FaultKind::Partition,
            Fault::Link { .. } => FaultKind::Link,
            Fault::Disk { .. } => FaultKind::Disk,
            Fault::Clock { .. } => FaultKind::Clock,
            Fault::Wipe { .. } => FaultKind::Wipe,
            Fault::Meta { .. } => FaultKind::Meta,
        }
    }

    /// Every node that it strikes, once each.
    pub fn nodes(&self) -> Vec<String> {
        match self {
            Fault::Kill { nodes } | Fault::Power { nodes } | Fault::Meta { nodes, .. } => nodes.clone(),
            Fault::CrashAt { node, .. }
            | Fault::Pause { node }
            | Fault::Disk { node, .. }
            | Fault::Clock { node, .. }
            | Fault::Wipe { node } => vec![node.clone()],
            Fault::Partition { cut: links, .. } | Fault::Link { links, .. } => {
                let ends: BTreeSet<&String> = links.iter().flat_map(|(from, to)| [from, to]).collect();
                ends.into_iter().cloned().collect()
            }
        }
    }

    /// Whether its nodes do not run for some or all of its time, so that no other such fault may be in force there.
    pub fn stops_nodes(&self) -> bool {
        match self {
            Fault::Kill { .. }
            | Fault::Power { .. }
            | Fault::CrashAt { .. }
            | Fault::Pause { .. }
            | Fault::Wipe { .. }
            | Fault::Meta { .. } => true,
            Fault::Disk { how, .. } => matches!(how, DiskHow::FlipBits { .. }),
            Fault::Partition { .. } | Fault::Link { .. } | Fault::Clock { .. } => false,
        }
    }

    /// Whether a replica loses for good what it had synced.
    pub fn destroys(&self) -> bool {
        matches!(self, Fault::Wipe { .. } | Fault::Disk { how: DiskHow::FlipBits { .. }, .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { nodes } => write!(f, "kill {}", nodes.join(" ")),
            Fault::Power { nodes } => write!(f, "power loss of {}", nodes.join(" ")),
            Fault::CrashAt { node, point, nth } => write!(f, "power loss of {node} at {point}, time {nth}"),
            Fault::Pause { node } => write!(f, "pause {node}"),
            Fault::Partition { shape, cut } => write!(f, "partition, {shape}: {}", in_words(cut)),
            Fault::Link { links, how } => write!(f, "{how}: {}", in_words(links)),
            Fault::Disk { node, how } => write!(f, "disk of {node}: {how}"),
            Fault::Clock { node, offset_ms, drift_ppm: 0 } => write!(f, "clock of {node}: {offset_ms:+} ms"),
            Fault::Clock { node, offset_ms, drift_ppm } => {
                write!(f, "clock of {node}: {offset_ms:+} ms, drifting by {drift_ppm:+} ppm")
            }
            Fault::Wipe { node } => write!(f, "wipe the store of {node}"),
            Fault::Meta { nodes, pauses: false } => write!(f, "no meta majority: kill {}", nodes.join(" ")),
            Fault::Meta { nodes, pauses: true } => write!(f, "no meta majority: pause {}", nodes.join(" ")),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Shape::Single => "single node",
            Shape::Halves => "halves",
            Shape::MajorityRing => "majority ring",
            Shape::Bridge => "bridge",
            Shape::OneWay => "one way",
        })
    }
}

impl fmt::Display for LinkHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkHow::Delay { ms } => write!(f, "links delayed by {ms} ms"),
            LinkHow::Throttle { bytes_per_second } => write!(f, "links throttled to {bytes_per_second} B/s"),
            LinkHow::Reset => f.write_str("connections reset again and again"),
            LinkHow::Refuse => f.write_str("connections refused"),
            LinkHow::Hold => f.write_str("links held, released at the end"),
        }
    }
}

impl fmt::Display for DiskHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskHow::Eio { on: DiskOp::Read } => f.write_str("reads fail"),
            DiskHow::Eio { on: DiskOp::Write } => f.write_str("writes fail"),
            DiskHow::Eio { on: DiskOp::Sync } => f.write_str("syncs fail"),
            DiskHow::FailedSync => f.write_str("one sync fails"),
            DiskHow::NoSpace => f.write_str("no space"),
            DiskHow::Slow { ms } => write!(f, "every sync takes {ms} ms more"),
            DiskHow::FlipBits { bits } => write!(f, "{bits} bits flip while it is stopped"),
        }
    }
}

/// Links as `a b | c d` where both ways are, and `a > b c` where one is.
fn in_words(links: &[Link]) -> String {
    let all: BTreeSet<(&str, &str)> = links.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let ends: BTreeSet<&str> = all.iter().map(|(from, _)| *from).collect();
    if ends.len() > 2
        && all.len() == ends.len() * (ends.len() - 1)
        && all.iter().all(|(_, to)| ends.contains(to))
    {
        return format!("all links of {} nodes", ends.len());
    }
    let (mut both, mut one_way) = (BTreeMap::new(), BTreeMap::new());
    for &(from, to) in &all {
        let peers = if all.contains(&(to, from)) { &mut both } else { &mut one_way };
        peers.entry(from).or_insert_with(BTreeSet::new).insert(to);
    }
    let mut parts = Vec::new();
    for (peers, sign, mutual) in [(both, "|", true), (one_way, ">", false)] {
        // Nodes with the same peers stand together.
        let mut sides: BTreeMap<BTreeSet<&str>, BTreeSet<&str>> = BTreeMap::new();
        for (node, of) in peers {
            sides.entry(of).or_default().insert(node);
        }
        for (right, left) in &sides {
            let said_already = mutual && sides.get(left) == Some(right) && right < left;
            if !said_already {
                let side = |side: &BTreeSet<&str>| side.iter().copied().collect::<Vec<_>>().join(" ");
                parts.push(format!("{} {sign} {}", side(left), side(right)));
            }
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(pairs: &[(&str, &str)]) -> Vec<Link> {
        pairs.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect()
    }

    #[test]
    fn links_read_as_sides() {
        let table: [(&[(&str, &str)], &str); 5] = [
            (
                &[("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")],
                "all links of 3 nodes",
            ),
            (&[("a", "b"), ("b", "a")], "a | b"),
            (&[("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")], "a b | c"),
            (&[("a", "b"), ("a", "c")], "a > b c"),
            (&[], ""),
        ];
        for (pairs, words) in table {
            assert_eq!(in_words(&links(pairs)), words);
        }
    }

    #[test]
    fn a_fault_reads_back_from_its_json() {
        let fault = Fault::Link { links: links(&[("a", "b")]), how: LinkHow::Delay { ms: 7 } };
        let json = serde_json::to_string(&fault).unwrap();
        assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault);
        assert_eq!(fault.to_string(), "links delayed by 7 ms: a > b");
        assert_eq!(fault.nodes(), ["a", "b"]);
    }
}
