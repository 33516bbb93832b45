//! Epochs and terms, the half of P6 that samples of the nodes show: the epoch of a shard never falls on a node, one
//! epoch of a shard has one set of replicas everywhere, the meta group's term never falls, and a term has one leader.
//!
//! Samples are taken now and then, so that what happened between two of them is not seen. A node's copy of the metadata
//! may lag and, after a restart, begin with an older one; so epochs are compared within a boot. Terms are on the disk
//! of a meta node before it votes, so there they are compared across boots. After Raft's election safety (one leader
//! a term) and etcd's linearizable revision checks.

use std::collections::{BTreeMap, BTreeSet};

use super::words::seconds;
use super::{Found, Promise};
use crate::history::event::{Sample, Start};

#[derive(Default)]
struct Node {
    boot: u32,
    /// By shard, epoch and when it was seen.
    epochs: BTreeMap<u32, (u64, u64)>,
    term: u64,
    term_at_us: u64,
}

/// Where something was seen first.
struct Seen<T> {
    what: T,
    node: String,
    at_us: u64,
}

#[derive(Default)]
pub(crate) struct Epochs {
    meta: BTreeSet<String>,
    nodes: BTreeMap<String, Node>,
    /// By shard and epoch.
    sets: BTreeMap<(u32, u64), Seen<Vec<String>>>,
    leaders: BTreeMap<u64, Seen<String>>,
}

impl Epochs {
    pub(crate) fn new(start: &Start) -> Self {
        let meta = start.nodes.get("meta").into_iter().flatten().cloned().collect();
        Epochs { meta, ..Epochs::default() }
    }

    pub(crate) fn sample(&mut self, sample: &Sample, found: &mut Found) {
        let node = self.nodes.entry(sample.node.clone()).or_default();
        if node.boot != sample.boot {
            let keeps_term = self.meta.contains(&sample.node);
            let (term, term_at_us) = if keeps_term { (node.term, node.term_at_us) } else { (0, 0) };
            *node = Node { boot: sample.boot, term, term_at_us, ..Node::default() };
        }
        let at = seconds(sample.at_us);
        for (shard, now) in &sample.shards {
            let (epoch, at_us) = node.epochs.entry(*shard).or_insert((now.epoch, sample.at_us));
            if now.epoch < *epoch {
                let what = format!(
                    "{} was in epoch {epoch} of shard {shard} at {}, and is in epoch {} at {at}",
                    sample.node,
                    seconds(*at_us),
                    now.epoch
                );
                found.add(Promise::P6, sample.at_us, what, None);
            }
            (*epoch, *at_us) = (now.epoch, sample.at_us);
            one_set(&mut self.sets, (*shard, now.epoch), &now.set, sample, found);
        }
        self.term(sample, found);
    }

    fn term(&mut self, sample: &Sample, found: &mut Found) {
        let (term, at_us) = (sample.term, sample.at_us);
        if term == 0 {
            return;
        }
        let node = self.nodes.entry(sample.node.clone()).or_default();
        if term < node.term {
            let what = format!(
                "{} was in term {} of the meta group at {}, and is in term {term} at {}",
                sample.node,
                node.term,
                seconds(node.term_at_us),
                seconds(at_us)
            );
            found.add(Promise::P6, at_us, what, None);
        }
        (node.term, node.term_at_us) = (term, at_us);
        let Some(leader) = &sample.leader else { return };
        let node = sample.node.clone();
        let first = self.leaders.entry(term).or_insert_with(|| Seen { what: leader.clone(), node, at_us });
        if first.what != *leader {
            let what = format!(
                "term {term} of the meta group is led by {} for {} at {}, and by {leader} for {} at {}",
                first.what,
                first.node,
                seconds(first.at_us),
                sample.node,
                seconds(at_us)
            );
            found.add(Promise::P6, at_us, what, None);
        }
    }
}

/// The order in which a set is named does not matter.
fn one_set(
    sets: &mut BTreeMap<(u32, u64), Seen<Vec<String>>>,
    (shard, epoch): (u32, u64),
    set: &[String],
    sample: &Sample,
    found: &mut Found,
) {
    let mut set = set.to_vec();
    set.sort_unstable();
    let (node, at_us) = (sample.node.clone(), sample.at_us);
    let first = sets.entry((shard, epoch)).or_insert_with(|| Seen { what: set.clone(), node, at_us });
    if first.what != set {
        let what = format!(
            "epoch {epoch} of shard {shard} is {} for {} at {}, and {} for {} at {}",
            first.what.join("+"),
            first.node,
            seconds(first.at_us),
            set.join("+"),
            sample.node,
            seconds(at_us)
        );
        found.add(Promise::P6, at_us, what, None);
    }
}
