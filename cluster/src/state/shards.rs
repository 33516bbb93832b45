//! The first placement, and what every change of a shard's set must respect.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterState, NodeState, ShardEntry};
use crate::command::{Applied, Rejected};
use crate::ids::{Epoch, MoveId, NodeId, ReplicaId, ShardId};
use crate::placement::{Candidate, zones_respected};
use crate::shard_map::{Entry, Member};

/// Most replicas that a shard may have.
pub(super) const REPLICAS_MAX: usize = 9;

impl ClusterState {
    /// Nodes that may be given shards, with their stores.
    pub fn placeable(&self) -> Vec<(Candidate, ReplicaId)> {
        let candidate = |(id, node): (&NodeId, &super::Node)| {
            let replica = node.replica.filter(|_| node.roles.storage && node.state == NodeState::Active)?;
            Some((Candidate { node: *id, zone: node.zone.clone() }, replica))
        };
        self.nodes.iter().filter_map(candidate).collect()
    }

    pub(super) fn place_shards(&mut self, sets: &[Vec<(NodeId, ReplicaId)>]) -> Result<Applied, Rejected> {
        let epoch = Epoch(1);
        if !self.shards.is_empty() {
            return Err(Rejected::AlreadyPlaced);
        }
        if sets.len() as u64 != u64::from(self.settings.shards) {
            let (expected, actual) = (self.settings.shards, sets.len() as u32);
            return Err(Rejected::ShardCountIs { expected, actual });
        }
        let nodes: Vec<Candidate> = self.placeable().into_iter().map(|(candidate, _)| candidate).collect();
        let replicas = (self.settings.replication_factor as usize).min(nodes.len());
        let mut shards = Vec::with_capacity(sets.len());
        for (shard, set) in (0..).map(ShardId).zip(sets) {
            self.check_set(set, &[])?;
            let ids: Vec<NodeId> = set.iter().map(|(node, _)| *node).collect();
            if ids.len() != replicas || !zones_respected(&nodes, &ids) {
                let reason = format!("it must name {replicas} nodes, in as many zones as there are");
                return Err(Rejected::Invalid(format!("the set of shard {shard}"), reason));
            }
            let entry = Entry { epoch, old: members(set, epoch, &[]), new: None };
            shards.push(ShardEntry { shard, entry, moving: None, last_move: None, split_from: None });
        }
        self.shards = shards;
        Ok(Applied::Epoch(epoch))
    }

    /// Distinct nodes, registered with exactly these stores; newcomers (not in `kept`) must be active.
    pub(super) fn check_set(&self, set: &[(NodeId, ReplicaId)], kept: &[Member]) -> Result<(), Rejected> {
        let invalid = |reason: String| Err(Rejected::Invalid("the replica set".to_owned(), reason));
        if set.is_empty() || set.len() > REPLICAS_MAX {
            return invalid(format!("it must have 1 to {REPLICAS_MAX} members"));
        }
        let distinct: BTreeSet<NodeId> = set.iter().map(|(node, _)| *node).collect();
        if distinct.len() != set.len() {
            return invalid("it names a node twice".to_owned());
        }
        let placeable: BTreeMap<NodeId, ReplicaId> =
            self.placeable().into_iter().map(|(candidate, replica)| (candidate.node, replica)).collect();
        for (node, replica) in set {
            if kept.iter().any(|member| (member.node, member.replica) == (*node, *replica)) {
                continue;
            }
            let reason = match placeable.get(node) {
                Some(registered) if registered == replica => continue,
                Some(registered) => format!("its store is {registered}, not {replica}"),
                None => "it is not an active storage node".to_owned(),
            };
            return Err(Rejected::NodeCannotHold { node: *node, reason });
        }
        Ok(())
    }

    /// The shard at the expected epoch.
    pub(super) fn shard_at(&mut self, shard: ShardId, expect: Epoch) -> Result<&mut ShardEntry, Rejected> {
        let entry = self.shards.get_mut(shard.0 as usize).ok_or(Rejected::NoSuchShard(shard))?;
        let actual = entry.entry.epoch;
        if actual == expect { Ok(entry) } else { Err(Rejected::EpochIs { shard, expected: expect, actual }) }
    }

    /// Whether a move of that id has already ended in the shard.
    pub(super) fn move_ended(&self, shard: ShardId, id: MoveId) -> bool {
        self.shard(shard).is_some_and(|shard| shard.last_move == Some(id))
    }
}

/// The set as members: those that are in `kept` keep the epoch at which they came.
pub(super) fn members(set: &[(NodeId, ReplicaId)], epoch: Epoch, kept: &[Member]) -> Vec<Member> {
    let member = |(node, replica): &(NodeId, ReplicaId)| {
        let known = kept.iter().find(|known| (known.node, known.replica) == (*node, *replica));
        known.copied().unwrap_or(Member { node: *node, replica: *replica, since_epoch: epoch })
    };
    set.iter().map(member).collect()
}
