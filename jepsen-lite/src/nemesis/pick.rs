//! One fault of a kind, at random, on nodes that are free for it.

use std::collections::BTreeSet;

use oteld_env::Random;

use super::fault::{DiskHow, DiskOp, Fault, FaultKind, Link, LinkHow, Shape};
use super::partition::{self, Cuts, RING_NODES_MIN};
use super::topology::Topology;

/// Named points of the code at which a power loss can strike a storage node.
pub(super) const POINTS: [&str; 12] = [
    "wal.file_created",
    "wal.group_written",
    "wal.group_synced",
    "replace.written",
    "replace.renamed",
    "flush.segment_written",
    "flush.before_commit",
    "flush.after_commit",
    "compaction.before_commit",
    "compaction.after_commit",
    "cursor.before_write",
    "cursor.written",
];

/// What a fault may be at a moment.
pub(super) struct Chooser<'a> {
    pub(super) random: &'a Random,
    pub(super) topology: &'a Topology,
    pub(super) cuts: Cuts,
    /// Nodes that a fault of another kind stops at the moment, or will.
    pub(super) busy: &'a BTreeSet<String>,
    /// Whether a replica may lose for good what it had synced, in this way or in that.
    pub(super) may_wipe: bool,
    pub(super) may_flip: bool,
    /// Whether it may be a fault that only strikes where the node happens to do something: a power loss at a point of
    /// the code, or failing reads.
    pub(super) may_miss: bool,
}

impl Chooser<'_> {
    /// `None` where no node is free for it.
    pub(super) fn fault(&self, kind: FaultKind) -> Option<Fault> {
        match kind {
            FaultKind::Kill => self.kill(),
            FaultKind::Power => self.power(),
            FaultKind::Pause => Some(Fault::Pause { node: self.any_node()? }),
            FaultKind::Partition => self.partition(),
            FaultKind::Link => self.link(),
            FaultKind::Disk => self.disk(),
            FaultKind::Clock => self.clock(),
            FaultKind::Wipe if self.may_wipe => Some(Fault::Wipe { node: self.storage_node()? }),
            FaultKind::Meta => self.meta(),
            FaultKind::Wipe | FaultKind::Store => None,
        }
    }

    fn below(&self, end: u64) -> u64 {
        self.random.in_range(0..end)
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn shuffled(&self, mut names: Vec<String>) -> Vec<String> {
        for i in (1..names.len()).rev() {
            names.swap(i, self.below(i as u64 + 1) as usize);
        }
        names
    }

    fn free(&self, names: &[String]) -> Vec<String> {
        self.shuffled(names.iter().filter(|name| !self.busy.contains(*name)).cloned().collect())
    }

    fn storage_node(&self) -> Option<String> {
        self.free(&self.topology.storage).pop()
    }

    /// Roles in turn are as likely, so that a few meta members are struck as often as many storage nodes.
    fn any_node(&self) -> Option<String> {
        let role = match self.below(6) {
            0..=2 => &self.topology.storage,
            3 | 4 => &self.topology.meta,
            _ => &self.topology.fronts,
        };
        self.free(role).pop().or_else(|| self.free(&self.topology.all()).pop())
    }

    fn kill(&self) -> Option<Fault> {
        let mut nodes = vec![self.any_node()?];
        if self.one_in(3) {
            let others = self.free(&self.topology.all()).into_iter().filter(|name| *name != nodes[0]);
            nodes.extend(others.take(1 + self.below(2) as usize).collect::<Vec<_>>());
        }
        Some(Fault::Kill { nodes })
    }

    /// Often of most or all storage nodes: an acknowledgement that was not synced shows only there.
    fn power(&self) -> Option<Fault> {
        if self.may_miss && self.one_in(4) {
            let point = POINTS[self.below(POINTS.len() as u64) as usize].to_owned();
            return Some(Fault::CrashAt { node: self.storage_node()?, point, nth: 1 + self.below(2) });
        }
        let mut nodes = self.free(&self.topology.storage);
        let count = match self.below(4) {
            0 => 1,
            1 => nodes.len() / 2 + 1,
            2 => nodes.len(),
            _ => {
                nodes = self.free(&self.topology.all());
                1 + self.below(nodes.len().max(1) as u64) as usize
            }
        };
        nodes.truncate(count);
        Some(Fault::Power { nodes }).filter(|fault| !fault.nodes().is_empty())
    }

    fn partition(&self) -> Option<Fault> {
        if self.cuts == Cuts::Nodes {
            return self.isolation();
        }
        // Among the storage nodes alone, all fronts reach all of them, and only repair is cut.
        let group = if self.one_in(3) { self.topology.storage.clone() } else { self.topology.all() };
        let nodes = self.shuffled(group);
        let shape = match self.below(5) {
            0 => Shape::Single,
            1 => Shape::OneWay,
            2 if nodes.len() >= 3 => Shape::Bridge,
            3 if nodes.len() >= RING_NODES_MIN => Shape::MajorityRing,
            _ => Shape::Halves,
        };
        if nodes.len() < 2 {
            return None;
        }
        let mut cut = partition::cut(shape, &nodes);
        if shape == Shape::OneWay && self.one_in(2) {
            // Heard by all, and hears nobody.
            cut = cut.into_iter().map(|(from, to)| (to, from)).collect();
        }
        Some(Fault::Partition { shape, cut })
    }

    /// One node without all others. One that runs, so that it could be heard.
    fn isolation(&self) -> Option<Fault> {
        let node = self.any_node()?;
        let mut nodes = self.topology.all();
        nodes.retain(|other| *other != node);
        nodes.insert(0, node);
        let shape = Shape::Single;
        (nodes.len() >= 2).then(|| Fault::Partition { shape, cut: partition::cut(shape, &nodes) })
    }

    fn link(&self) -> Option<Fault> {
        let nodes = self.shuffled(self.topology.all());
        let (first, others) = nodes.split_first().filter(|(_, others)| !others.is_empty())?;
        let links: Vec<Link> = match self.below(3) {
            0 => vec![(first.clone(), others[0].clone())],
            1 => partition::both_ways(std::slice::from_ref(first), others),
            _ => partition::one_way(&nodes, &nodes).into_iter().filter(|(from, to)| from != to).collect(),
        };
        let how = match self.below(5) {
            0 => LinkHow::Delay { ms: [5, 50, 300, 1500][self.below(4) as usize] },
            1 => LinkHow::Throttle { bytes_per_second: [4, 64, 512][self.below(3) as usize] << 10 },
            2 => LinkHow::Reset,
            3 => LinkHow::Refuse,
            _ => LinkHow::Hold,
        };
        Some(Fault::Link { links, how })
    }

    fn disk(&self) -> Option<Fault> {
        let node = self.storage_node()?;
        let how = match self.below(7) {
            0 if self.may_flip => DiskHow::FlipBits { bits: [1, 8, 64][self.below(3) as usize] },
            1 if self.may_miss => DiskHow::Eio { on: DiskOp::Read },
            2 => DiskHow::Eio { on: DiskOp::Write },
            3 => DiskHow::Eio { on: DiskOp::Sync },
            4 => DiskHow::FailedSync,
            5 => DiskHow::NoSpace,
            _ => DiskHow::Slow { ms: [20, 100, 500][self.below(3) as usize] },
        };
        Some(Fault::Disk { node, how })
    }

    fn clock(&self) -> Option<Fault> {
        let node = self.any_node()?;
        let magnitude_ms = [200, 5_000, 60_000, 600_000][self.below(4) as usize];
        let sign = if self.one_in(2) { -1 } else { 1 };
        let offset_ms = sign * (magnitude_ms + self.below(magnitude_ms as u64) as i64);
        let drift_ppm = if self.one_in(3) { sign * 50_000 } else { 0 };
        Some(Fault::Clock { node, offset_ms, drift_ppm })
    }

    fn meta(&self) -> Option<Fault> {
        let majority = self.topology.meta.len() / 2 + 1;
        let mut nodes = self.free(&self.topology.meta);
        if nodes.len() < majority {
            return None;
        }
        nodes.truncate(majority + self.below((nodes.len() - majority) as u64 + 1) as usize);
        Some(Fault::Meta { nodes, pauses: self.one_in(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_has_all_points() {
        let unknown: Vec<_> =
            POINTS.iter().filter(|point| !oteld_env::disk::POINTS.contains(point)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
