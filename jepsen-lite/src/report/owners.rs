//! Who owned each shard when, and who led the meta group, as far as samples show it.
//!
//! Nodes learn of a change at different times, and a node that was cut off tells of old epochs for long. What counts
//! is the highest epoch (or term) that any node has told of, from the moment of the first sample that has it.

use std::collections::BTreeMap;

use crate::history::event::{Sample, ShardSample};

/// Most changes that are kept of one shard, and of the leader; later ones are counted.
const CHANGES_MAX: usize = 10_000;

/// One epoch of a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch {
    pub(super) from_us: u64,
    pub(super) epoch: u64,
    /// Names, sorted.
    pub(super) set: Vec<String>,
    /// The set that a move leads to, sorted: the epoch is joint.
    pub(super) new: Option<Vec<String>>,
}

impl Epoch {
    /// In words: `s1 s2 s3`, `s1 s2 s3 → s1 s2 s4`.
    pub(super) fn words(&self) -> String {
        match &self.new {
            Some(new) => format!("{} → {}", self.set.join(" "), new.join(" ")),
            None => self.set.join(" "),
        }
    }
}

/// A stretch under one leader, or without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reign {
    pub(super) from_us: u64,
    pub(super) term: u64,
    pub(super) leader: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    shards: BTreeMap<u32, Vec<Epoch>>,
    reigns: Vec<Reign>,
    /// Changes beyond [`CHANGES_MAX`].
    pub(super) left_out: u64,
}

/// Shards with the same history of sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alike {
    pub(super) shards: Vec<u32>,
    pub(super) epochs: Vec<Epoch>,
}

impl Owners {
    pub(super) fn sample(&mut self, sample: &Sample) {
        for (shard, told) in &sample.shards {
            let epochs = self.shards.entry(*shard).or_default();
            if epochs.last().is_some_and(|last| last.epoch >= told.epoch) {
                continue;
            }
            if epochs.len() == CHANGES_MAX {
                self.left_out += 1;
                continue;
            }
            epochs.push(epoch(sample.at_us, told));
        }
        self.leader(sample);
    }

    /// Within a term a leader can only become known; the next term begins without one.
    fn leader(&mut self, sample: &Sample) {
        let told = Reign { from_us: sample.at_us, term: sample.term, leader: sample.leader.clone() };
        let newer = match self.reigns.last() {
            None => sample.term > 0 || sample.leader.is_some(),
            Some(last) => {
                told.term > last.term
                    || (told.term == last.term && last.leader.is_none() && told.leader.is_some())
            }
        };
        if newer && self.reigns.len() < CHANGES_MAX {
            self.reigns.push(told);
        } else if newer {
            self.left_out += 1;
        }
    }

    pub(super) fn reigns(&self) -> &[Reign] {
        &self.reigns
    }

    /// Names of all that ever owned a shard, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let epochs = self.shards.values().flatten();
        let names = epochs.flat_map(|epoch| epoch.set.iter().chain(epoch.new.iter().flatten()));
        let names: std::collections::BTreeSet<&String> = names.collect();
        names.into_iter().cloned().collect()
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Shards by history, those that changed most first.
    pub(super) fn alike(&self) -> Vec<Alike> {
        let mut groups: BTreeMap<&[Epoch], Vec<u32>> = BTreeMap::new();
        for (shard, epochs) in &self.shards {
            groups.entry(epochs).or_default().push(*shard);
        }
        let alike = |(epochs, shards): (&[Epoch], Vec<u32>)| Alike { shards, epochs: epochs.to_vec() };
        let mut groups: Vec<Alike> = groups.into_iter().map(alike).collect();
        groups.sort_by_key(|group| (usize::MAX - group.epochs.len(), group.shards[0]));
        groups
    }

    /// Changes after the first sight of a shard, in time: shards that changed alike at the same moment are one.
    pub(super) fn changes(&self) -> Vec<(Vec<u32>, Epoch)> {
        let mut changes: BTreeMap<&Epoch, Vec<u32>> = BTreeMap::new();
        for (shard, epochs) in &self.shards {
            for epoch in epochs.iter().skip(1) {
                changes.entry(epoch).or_default().push(*shard);
            }
        }
        changes.into_iter().map(|(epoch, shards)| (shards, epoch.clone())).collect()
    }

    /// Who owned what at a moment: set in words, and the shards.
    pub(super) fn at(&self, us: u64) -> BTreeMap<String, Vec<u32>> {
        let mut sets: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (shard, epochs) in &self.shards {
            if let Some(epoch) = epochs.iter().rev().find(|epoch| epoch.from_us <= us) {
                sets.entry(epoch.words()).or_default().push(*shard);
            }
        }
        sets
    }
}

fn epoch(from_us: u64, told: &ShardSample) -> Epoch {
    let sorted = |names: &Vec<String>| {
        let mut names = names.clone();
        names.sort();
        names
    };
    Epoch { from_us, epoch: told.epoch, set: sorted(&told.set), new: told.new.as_ref().map(sorted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(
        at_us: u64,
        shards: &[(u32, u64, &str, Option<&str>)],
        leader: Option<&str>,
        term: u64,
    ) -> Sample {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let told = |(shard, epoch, set, new): &(u32, u64, &str, Option<&str>)| {
            (*shard, ShardSample { epoch: *epoch, set: names(set), new: new.map(names) })
        };
        Sample {
            at_us,
            shards: shards.iter().map(told).collect(),
            leader: leader.map(str::to_owned),
            term,
            ..Sample::default()
        }
    }

    #[test]
    fn a_node_that_tells_of_an_old_epoch_changes_nothing() {
        let mut owners = Owners::default();
        owners.sample(&sample(1, &[(0, 1, "b a", None), (1, 1, "a b", None), (2, 1, "a c", None)], None, 0));
        owners.sample(&sample(2, &[(0, 2, "a b", Some("a c"))], None, 0));
        owners.sample(&sample(3, &[(0, 1, "b a", None)], None, 0));
        owners.sample(&sample(4, &[(0, 3, "a c", None)], None, 0));
        let alike = owners.alike();
        let shards: Vec<&[u32]> = alike.iter().map(|group| &group.shards[..]).collect();
        assert_eq!(shards, [&[0][..], &[1], &[2]]);
        assert_eq!(alike[0].epochs.iter().map(|epoch| epoch.from_us).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(owners.changes().len(), 2);
        assert_eq!(owners.at(2)["a b → a c"], [0]);
        assert_eq!(owners.names(), ["a", "b", "c"]);
    }

    #[test]
    fn a_new_term_begins_without_a_leader() {
        let mut owners = Owners::default();
        for (at, leader, term) in
            [(1, Some("a"), 1), (2, None, 2), (3, Some("a"), 1), (4, Some("b"), 2), (5, None, 2)]
        {
            owners.sample(&sample(at, &[], leader, term));
        }
        let reigns: Vec<(u64, Option<&str>)> =
            owners.reigns().iter().map(|reign| (reign.from_us, reign.leader.as_deref())).collect();
        assert_eq!(reigns, [(1, Some("a")), (2, None), (4, Some("b"))]);
    }
}
