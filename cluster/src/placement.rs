//! Where shards go: a consistent-hash ring that spreads replicas over zones. It only plans; the shard map says
//! what is.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use consistent_hash::{RingHash, StaticHashRing};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::{NodeId, ShardId};

/// Virtual nodes of each node on the ring.
const VIRTUAL_NODES: usize = 256;

/// A node that may hold shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// Nodes without one count as a zone each.
    pub zone: Option<String>,
}

impl Candidate {
    fn zone(&self) -> Zone<'_> {
        match &self.zone {
            Some(name) => Zone::Named(name),
            None => Zone::Alone(self.node),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Zone<'a> {
    Named(&'a str),
    Alone(NodeId),
}

/// XXH3 over little-endian bytes. Pinned by a golden test: another order of nodes would plan moves of everything.
#[derive(Clone, Copy, Debug)]
struct LittleEndianXxh3;

impl RingHash for LittleEndianXxh3 {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut bytes = LittleEndianBytes(Xxh3::new());
        bytes.write_u8(0);
        item.hash(&mut bytes);
        bytes.finish()
    }

    fn hash_vnode<K: Hash>(&self, key: &K, sequence: usize) -> u64 {
        let mut bytes = LittleEndianBytes(Xxh3::new());
        bytes.write_u8(1);
        key.hash(&mut bytes);
        bytes.write_u64(sequence as u64);
        bytes.finish()
    }
}

/// Takes the integers that keys consist of; how std frames anything else is not promised.
struct LittleEndianBytes(Xxh3);

impl Hasher for LittleEndianBytes {
    fn finish(&self) -> u64 {
        self.0.digest()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u32(&mut self, number: u32) {
        self.0.update(&number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }
}

/// A ring over some nodes. Building it costs some 100 µs: do it when the nodes change, never per write.
pub struct Ring {
    ring: StaticHashRing<'static, u64, (), LittleEndianXxh3>,
    nodes: BTreeMap<NodeId, Candidate>,
}

impl Ring {
    pub fn new(nodes: &[Candidate]) -> Self {
        let nodes: BTreeMap<NodeId, Candidate> = nodes.iter().map(|node| (node.node, node.clone())).collect();
        let points = nodes.keys().map(|node| consistent_hash::Node::new(node.0).quantity(VIRTUAL_NODES));
        Ring { ring: StaticHashRing::new(LittleEndianXxh3, points), nodes }
    }

    /// The nodes that should hold a shard, first choice first: `min(replication_factor, nodes)` of them, and no
    /// zone twice before every zone is used once.
    pub fn replicas(&self, shard: ShardId, replication_factor: u32) -> Vec<NodeId> {
        self.replicas_keeping(shard, replication_factor, &[])
    }

    /// As [`Ring::replicas`], but the nodes of `kept` that are on the ring stay, before all others.
    pub fn replicas_keeping(&self, shard: ShardId, replication_factor: u32, kept: &[NodeId]) -> Vec<NodeId> {
        let order: Vec<&Candidate> = self
            .ring
            .calc_candidates(&shard.0)
            .filter_map(|point| self.nodes.get(&NodeId(point.key)))
            .collect();
        let wanted = (replication_factor as usize).min(order.len());
        let mut used: BTreeMap<Zone<'_>, usize> = BTreeMap::new();
        let mut chosen: Vec<NodeId> = Vec::with_capacity(wanted);
        for kept in kept.iter().filter_map(|node| self.nodes.get(node)).take(wanted) {
            *used.entry(kept.zone()).or_default() += 1;
            chosen.push(kept.node);
        }
        for level in 0.. {
            for candidate in &order {
                if chosen.len() == wanted {
                    return chosen;
                }
                let count = used.entry(candidate.zone()).or_default();
                if *count == level && !chosen.contains(&candidate.node) {
                    *count += 1;
                    chosen.push(candidate.node);
                }
            }
        }
        chosen
    }
}

/// The first placement of all shards: the set of shard `i` at index `i`.
pub fn plan_initial(nodes: &[Candidate], shards: u32, replication_factor: u32) -> Vec<Vec<NodeId>> {
    let ring = Ring::new(nodes);
    (0..shards).map(|shard| ring.replicas(ShardId(shard), replication_factor)).collect()
}

/// Whether `set` uses as many zones as it can: no zone has two replicas more than another that has nodes to spare.
pub fn zones_respected(nodes: &[Candidate], set: &[NodeId]) -> bool {
    let mut size: BTreeMap<Zone<'_>, usize> = BTreeMap::new();
    let mut used: BTreeMap<Zone<'_>, usize> = BTreeMap::new();
    for candidate in nodes {
        *size.entry(candidate.zone()).or_default() += 1;
        *used.entry(candidate.zone()).or_default() += usize::from(set.contains(&candidate.node));
    }
    let fullest = used.values().copied().max().unwrap_or(0);
    used.iter().all(|(zone, count)| count + 1 >= fullest || *count == size[zone])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(zones: &[Option<u8>]) -> Vec<Candidate> {
        let named = |(id, zone): (u64, &Option<u8>)| Candidate {
            node: NodeId(id),
            zone: zone.map(|zone| format!("zone-{zone}")),
        };
        (1..).zip(zones).map(named).collect()
    }

    #[test]
    fn the_ring_never_changes() {
        let plan = plan_initial(&nodes(&[None; 5]), 8, 3);
        let plan: Vec<Vec<u64>> =
            plan.into_iter().map(|set| set.into_iter().map(|node| node.0).collect()).collect();
        let expected =
            [[5, 3, 2], [1, 4, 5], [5, 2, 1], [2, 4, 3], [4, 5, 3], [2, 3, 1], [1, 2, 3], [2, 1, 4]];
        assert_eq!(plan, expected);
        let bytes = [&[0u8][..], &7u32.to_le_bytes()].concat();
        assert_eq!(LittleEndianXxh3.hash_item(&7u32), xxhash_rust::xxh3::xxh3_64(&bytes));
        let bytes = [&[1u8][..], &7u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
        assert_eq!(LittleEndianXxh3.hash_vnode(&7u64, 3), xxhash_rust::xxh3::xxh3_64(&bytes));
    }

    #[test]
    fn a_new_node_takes_its_share_and_moves_little_else() {
        let (before, after) = (nodes(&[None; 6]), nodes(&[None; 7]));
        let (before, after) = (plan_initial(&before, 512, 3), plan_initial(&after, 512, 3));
        let kept: usize =
            before.iter().zip(&after).map(|(b, a)| b.iter().filter(|node| a.contains(node)).count()).sum();
        assert!(kept > 512 * 3 * 8 / 10, "{kept} of {} replicas stay", 512 * 3);
        let share = after.iter().flatten().filter(|node| node.0 == 7).count();
        assert!((150..300).contains(&share), "the newcomer holds {share} of {} replicas", 512 * 3);
    }

    proptest! {
        #[test]
        fn every_shard_gets_distinct_nodes_over_all_zones(
            zones in prop::collection::vec(prop::option::of(0u8..4), 1..9),
            replication_factor in 1u32..6,
        ) {
            let nodes = nodes(&zones);
            for set in plan_initial(&nodes, 16, replication_factor) {
                let mut distinct = set.clone();
                distinct.sort();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), nodes.len().min(replication_factor as usize));
                prop_assert_eq!(distinct.len(), set.len());
                prop_assert!(zones_respected(&nodes, &set), "{:?} of {:?}", set, nodes);
            }
        }
    }
}
