//! Who holds a shard, who may speak for it, and what a message about it is worth: the pure decisions of PROTOCOL.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Epoch, NodeId, ReplicaId, ShardId};
use crate::state::ClusterState;

/// A replica of a shard. The store is named by its identity, so that a node that comes back with an empty disk
/// is somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub replica: ReplicaId,
    /// The epoch at which it came into the shard's set.
    pub since_epoch: Epoch,
}

/// A shard's entry in the map: the fence that every RPC carries and every replica keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub epoch: Epoch,
    pub old: Vec<Member>,
    /// The set that a move leads to; with it the epoch is joint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Vec<Member>>,
}

/// Bytes that are not an [`Entry`].
#[derive(Debug, Error)]
#[error("a shard map entry does not parse: {0}")]
pub struct EntryError(#[from] rmp_serde::decode::Error);

impl Entry {
    /// The form that a store keeps as its fence and messages carry: a MessagePack map by names.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("an entry always packs into memory")
    }

    /// # Errors
    /// When `bytes` are not an encoded entry. Unknown fields are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }

    /// All members of both sets, each store once, by identity.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.old.iter().chain(self.new.iter().flatten()).copied().collect();
        members.sort_by_key(|member| (member.replica, member.since_epoch));
        members.dedup_by_key(|member| member.replica);
        members
    }

    /// Whether the store is in either set.
    pub fn has(&self, replica: ReplicaId) -> bool {
        self.old.iter().chain(self.new.iter().flatten()).any(|member| member.replica == replica)
    }

    /// Whether the epoch is joint.
    pub fn is_joint(&self) -> bool {
        self.new.is_some()
    }

    /// The quorum rule of this entry.
    pub fn quorum(&self) -> Quorum<'_> {
        Quorum(self)
    }
}

/// `Q(e, S)` of PROTOCOL: what counts as a quorum of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Quorum<'a>(&'a Entry);

impl Quorum<'_> {
    /// Whether `stores` hold a majority of the old set and, in a joint epoch, a majority of the new set too.
    pub fn is_reached(&self, stores: &BTreeSet<ReplicaId>) -> bool {
        majority(&self.0.old, |replica| stores.contains(&replica))
            && self.0.new.as_ref().is_none_or(|new| {
                majority(new, |replica| stores.contains(&replica))
                    || oteld_env::mutant("joint-quorum-of-the-old-set")
            })
    }

    /// Whether a quorum can still be reached when the stores in `failed` never answer.
    pub fn is_possible_without(&self, failed: &BTreeSet<ReplicaId>) -> bool {
        majority(&self.0.old, |replica| !failed.contains(&replica))
            && self.0.new.as_ref().is_none_or(|new| majority(new, |replica| !failed.contains(&replica)))
    }
}

/// Whether more than half of `set` is `in_favour`. An empty set has no majority.
pub fn majority(set: &[Member], in_favour: impl Fn(ReplicaId) -> bool) -> bool {
    let distinct: BTreeSet<ReplicaId> = set.iter().map(|member| member.replica).collect();
    let votes = distinct.iter().filter(|replica| in_favour(**replica)).count();
    2 * votes > distinct.len()
}

/// What a message that carries an entry is worth to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Same entry, and the receiver is a member: go on.
    Ok,
    /// The message is older (E2): refuse it and answer with the own entry, whole.
    Stale,
    /// The message is newer (E3): make its entry durable as the own one, then check again.
    Adopt,
    /// Same entry, which does not name the receiver (E4): refuse.
    NotMember,
    /// Same epoch but other sets, which one cluster never makes: refuse, and say so loudly.
    Conflict,
}

/// Compares a message's entry with the receiver's own one (`None`: it never learnt any). The greatest epoch wins.
pub fn check_entry(message: &Entry, own: Option<&Entry>, receiver: ReplicaId) -> Check {
    let Some(own) = own else { return Check::Adopt };
    match message.epoch.cmp(&own.epoch) {
        std::cmp::Ordering::Less => Check::Stale,
        std::cmp::Ordering::Greater => Check::Adopt,
        std::cmp::Ordering::Equal if message != own => Check::Conflict,
        std::cmp::Ordering::Equal if !own.has(receiver) => Check::NotMember,
        std::cmp::Ordering::Equal => Check::Ok,
    }
}

/// Acknowledgements of one part, all counted at one epoch (F1); a newer entry starts the count afresh (F2).
#[derive(Clone, Debug)]
pub struct Tally {
    entry: Entry,
    acknowledged: BTreeSet<ReplicaId>,
}

impl Tally {
    pub fn new(entry: Entry) -> Self {
        Tally { entry, acknowledged: BTreeSet::new() }
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Counts an acknowledgement; one of another epoch or of a stranger counts for nothing. True once the part
    /// has its quorum.
    pub fn acknowledge(&mut self, epoch: Epoch, replica: ReplicaId) -> bool {
        if epoch == self.entry.epoch && self.entry.has(replica) {
            let is_new = self.acknowledged.insert(replica);
            if !is_new && oteld_env::mutant("same-replica-counted-twice") {
                let others = self.entry.members().into_iter().map(|member| member.replica);
                self.acknowledged.extend(others.filter(|other| *other != replica).take(1));
            }
        }
        self.is_complete()
    }

    /// Whether a quorum has acknowledged.
    pub fn is_complete(&self) -> bool {
        self.entry.quorum().is_reached(&self.acknowledged)
            || !self.acknowledged.is_empty() && oteld_env::mutant("quorum-of-one")
    }

    /// Takes a newer entry and forgets what was counted; false when `entry` is not newer.
    pub fn adopt(&mut self, entry: &Entry) -> bool {
        if entry.epoch <= self.entry.epoch {
            return false;
        }
        self.entry = entry.clone();
        if self.acknowledged.is_empty() || !oteld_env::mutant("epochs-mixed") {
            self.acknowledged.clear();
        }
        true
    }
}

/// A node's view of all shards: the watched state, plus newer entries that STALE answers taught it.
#[derive(Clone, Debug, Default)]
pub struct ShardMap(Vec<Option<Entry>>);

impl ShardMap {
    /// The entry of a shard that has been placed.
    pub fn entry(&self, shard: ShardId) -> Option<&Entry> {
        self.0.get(shard.0 as usize)?.as_ref()
    }

    /// How many shards there are; 0 before they are placed.
    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ShardId, &Entry)> {
        (0..).map(ShardId).zip(&self.0).filter_map(|(shard, entry)| Some((shard, entry.as_ref()?)))
    }

    /// Takes an entry if it is newer than the known one; says whether it was. A shard beyond the known count is
    /// not invented: how many there are comes from the metadata only.
    pub fn adopt(&mut self, shard: ShardId, entry: &Entry) -> bool {
        let Some(slot) = self.0.get_mut(shard.0 as usize) else { return false };
        if slot.as_ref().is_some_and(|known| known.epoch >= entry.epoch) {
            return false;
        }
        *slot = Some(entry.clone());
        true
    }

    /// Takes all entries of a watched state that are newer. No entry goes back, even when the state is older.
    pub fn adopt_state(&mut self, state: &ClusterState) {
        if state.shards.len() > self.0.len() {
            self.0.resize(state.shards.len(), None);
        }
        for shard in &state.shards {
            self.adopt(shard.shard, &shard.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(replicas: &[u128]) -> Vec<Member> {
        let member = |&replica: &u128| Member {
            node: NodeId(replica as u64),
            replica: ReplicaId(replica),
            since_epoch: Epoch(1),
        };
        replicas.iter().map(member).collect()
    }

    fn entry(epoch: u64, old: &[u128], new: Option<&[u128]>) -> Entry {
        Entry { epoch: Epoch(epoch), old: set(old), new: new.map(set) }
    }

    fn stores(replicas: &[u128]) -> BTreeSet<ReplicaId> {
        replicas.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_set() {
        let plain = entry(1, &[1, 2, 3], None);
        let joint = entry(2, &[1, 2, 3], Some(&[1, 4, 5]));
        let shrinking = entry(2, &[1, 2, 3, 4, 5], Some(&[1, 2, 3]));
        for (entry, held, expected) in [
            (&plain, &[1, 2][..], true),
            (&plain, &[1], false),
            (&plain, &[1, 9], false),
            (&plain, &[], false),
            (&joint, &[1, 2], false),
            (&joint, &[1, 2, 4], true),
            (&joint, &[4, 5, 1], false),
            (&joint, &[2, 3, 4, 5], true),
            (&shrinking, &[1, 4, 5], false),
            (&shrinking, &[1, 2, 5], true),
            (&entry(1, &[], None), &[1], false),
            (&entry(1, &[1, 1, 2], None), &[1], false),
        ] {
            assert_eq!(entry.quorum().is_reached(&stores(held)), expected, "{entry:?} with {held:?}");
        }
    }

    #[test]
    fn the_greatest_epoch_wins() {
        let (old, new) = (entry(3, &[1, 2, 3], None), entry(4, &[2, 3, 4], None));
        let me = ReplicaId(1);
        assert_eq!(check_entry(&old, None, me), Check::Adopt);
        assert_eq!(check_entry(&old, Some(&old), me), Check::Ok);
        assert_eq!(check_entry(&old, Some(&new), me), Check::Stale);
        assert_eq!(check_entry(&new, Some(&old), me), Check::Adopt);
        assert_eq!(check_entry(&new, Some(&new), me), Check::NotMember);
        assert_eq!(check_entry(&entry(4, &[1], None), Some(&new), me), Check::Conflict);
    }

    #[test]
    fn acknowledgements_of_two_epochs_do_not_mix() {
        let mut tally = Tally::new(entry(1, &[1, 2, 3], None));
        assert!(!tally.acknowledge(Epoch(1), ReplicaId(1)));
        assert!(!tally.acknowledge(Epoch(1), ReplicaId(1)), "the same store counts once");
        assert!(tally.adopt(&entry(2, &[1, 2, 3], Some(&[1, 2, 4]))));
        assert!(!tally.acknowledge(Epoch(1), ReplicaId(2)), "an acknowledgement of the old epoch");
        assert!(!tally.acknowledge(Epoch(2), ReplicaId(2)));
        assert!(!tally.acknowledge(Epoch(2), ReplicaId(9)), "a stranger");
        assert!(tally.acknowledge(Epoch(2), ReplicaId(1)));
        assert!(!tally.adopt(&entry(2, &[1], None)), "an entry that is not newer");
    }

    #[test]
    fn entries_read_back() {
        let entry = entry(7, &[1, 2, 3], Some(&[2, 3, 4]));
        assert_eq!(Entry::decode(&entry.encode()).expect("decodes"), entry);
        assert!(Entry::decode(b"nonsense").is_err());
    }

    proptest! {
        #[test]
        fn two_quorums_of_an_entry_share_a_store(
            old in prop::collection::btree_set(0u128..8, 1..6),
            new in prop::option::of(prop::collection::btree_set(0u128..8, 1..6)),
            left in prop::collection::btree_set(0u128..8, 0..8),
            right in prop::collection::btree_set(0u128..8, 0..8),
        ) {
            let old: Vec<u128> = old.into_iter().collect();
            let new: Option<Vec<u128>> = new.map(|new| new.into_iter().collect());
            let entry = entry(1, &old, new.as_deref());
            let ids = |set: &BTreeSet<u128>| set.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
            let (left, right) = (ids(&left), ids(&right));
            let quorum = entry.quorum();
            if quorum.is_reached(&left) && quorum.is_reached(&right) {
                prop_assert!(left.intersection(&right).any(|replica| entry.has(*replica)));
            }
        }

        #[test]
        fn a_quorum_is_possible_exactly_when_the_others_are_one(
            old in prop::collection::btree_set(0u128..8, 1..6),
            new in prop::option::of(prop::collection::btree_set(0u128..8, 1..6)),
            failed in prop::collection::btree_set(0u128..8, 0..8),
        ) {
            let old: Vec<u128> = old.into_iter().collect();
            let new: Option<Vec<u128>> = new.map(|new| new.into_iter().collect());
            let entry = entry(1, &old, new.as_deref());
            let failed: BTreeSet<ReplicaId> = failed.into_iter().map(ReplicaId).collect();
            let others = (0..8).map(ReplicaId).filter(|replica| !failed.contains(replica)).collect();
            prop_assert_eq!(entry.quorum().is_possible_without(&failed), entry.quorum().is_reached(&others));
        }

        #[test]
        fn a_map_never_goes_back(epochs in prop::collection::vec(0u64..20, 1..20)) {
            let mut map = ShardMap(vec![None]);
            let mut greatest = None;
            for epoch in epochs {
                let newer = greatest.is_none_or(|known| epoch > known);
                prop_assert_eq!(map.adopt(ShardId(0), &entry(epoch, &[1], None)), newer);
                greatest = greatest.max(Some(epoch));
                prop_assert_eq!(map.entry(ShardId(0)).map(|entry| entry.epoch.0), greatest);
            }
        }
    }
}
