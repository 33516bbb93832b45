//! Epochs and terms, the half of P6 that samples of the nodes show: the epoch of a shard never falls on a node, one
//! epoch of a shard has one set of replicas everywhere, the meta group's term never falls, and a term has one leader.
//!
//! Samples are taken now and then, so that what happened between two of them is not seen. A node's copy of the metadata
//! may lag and, after a restart, begin with an older one; so epochs are compared within a boot. Terms are on the disk
//! of a member before it votes, so that the terms of a member never fall, across all its boots; but members that do not
//! hear of each other are in different terms, and a node asks whichever it reaches. So terms are compared by the member
//! that told them, and by the node that asked, whose questions come one after the other. After Raft's election safety
//! (one leader a term) and etcd's linearizable revision checks.

use std::collections::BTreeMap;

use super::words::seconds;
use super::{Found, Promise};
use crate::history::event::Sample;

#[derive(Default)]
struct Node {
    boot: u32,
    /// By shard, epoch and when it was seen.
    epochs: BTreeMap<u32, (u64, u64)>,
    /// By member of the meta group, its term and when it was seen.
    terms: BTreeMap<String, (u64, u64)>,
}

/// Where something was seen first.
struct Seen<T> {
    what: T,
    node: String,
    at_us: u64,
}

#[derive(Default)]
pub(crate) struct Epochs {
    nodes: BTreeMap<String, Node>,
    /// By shard and epoch.
    sets: BTreeMap<(u32, u64), Seen<Vec<String>>>,
    leaders: BTreeMap<u64, Seen<String>>,
}

impl Epochs {
    pub(crate) fn sample(&mut self, sample: &Sample, found: &mut Found) {
        let node = self.nodes.entry(sample.node.clone()).or_default();
        if node.boot != sample.boot {
            (node.boot, node.epochs) = (sample.boot, BTreeMap::new());
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
        let Some(member) = &sample.seen_by else { return };
        let node = self.nodes.entry(sample.node.clone()).or_default();
        let (before, before_us) = node.terms.insert(member.clone(), (term, at_us)).unwrap_or((term, at_us));
        if term < before {
            let what = format!(
                "{member} was in term {before} of the meta group at {}, and is in term {term} at {}, both as {} heard",
                seconds(before_us),
                seconds(at_us),
                sample.node,
            );
            found.add(Promise::P6, at_us, what, None);
        }
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
