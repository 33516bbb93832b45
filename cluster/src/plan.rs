//! Which moves would bring the shards where they belong. Plans only: each move is started by its own command,
//! which expects the epoch that the plan saw.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{Epoch, NodeId, ReplicaId, ShardId};
use crate::placement::{Candidate, Ring};
use crate::shard_map::Member;
use crate::state::{ClusterState, ShardEntry};

/// A move to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    pub shard: ShardId,
    /// The shard's epoch that the plan is made for.
    pub expect: Epoch,
    pub new: Vec<(NodeId, ReplicaId)>,
}

/// Replaces what should not hold shards any more (nodes that drain, are down, or lost their store) and fills sets
/// that are too small; whatever may stay, stays. For `node drain` and lost nodes. Shards that move are left out.
pub fn plan_replacements(state: &ClusterState) -> Vec<PlannedMove> {
    plan(state, |member, placeable| placeable.get(&member.node) == Some(&member.replica))
}

/// Brings every shard to where the ring would place it now. For `shards rebalance`. Shards that move are left out.
pub fn plan_rebalance(state: &ClusterState) -> Vec<PlannedMove> {
    plan(state, |_, _| false)
}

type Placeable = BTreeMap<NodeId, ReplicaId>;

fn plan(state: &ClusterState, stays: impl Fn(&Member, &Placeable) -> bool) -> Vec<PlannedMove> {
    let nodes: Vec<(Candidate, ReplicaId)> = state.placeable();
    let placeable: Placeable = nodes.iter().map(|(candidate, replica)| (candidate.node, *replica)).collect();
    let candidates: Vec<Candidate> = nodes.into_iter().map(|(candidate, _)| candidate).collect();
    if candidates.is_empty() || state.split.is_some() {
        return Vec::new();
    }
    let ring = Ring::new(&candidates);
    let planned = |shard: &ShardEntry| {
        let current: Vec<(NodeId, ReplicaId)> =
            shard.entry.old.iter().map(|member| (member.node, member.replica)).collect();
        let kept = shard.entry.old.iter().filter(|member| stays(member, &placeable));
        let kept: Vec<NodeId> = kept.map(|member| member.node).collect();
        let chosen = ring.replicas_keeping(shard.shard, state.settings.replication_factor, &kept);
        let new: Vec<(NodeId, ReplicaId)> =
            chosen.into_iter().filter_map(|node| Some((node, *placeable.get(&node)?))).collect();
        let same = new.len() == current.len() && new.iter().all(|store| current.contains(store));
        let idle = shard.moving.is_none();
        (idle && !same).then_some(PlannedMove { shard: shard.shard, expect: shard.entry.epoch, new })
    };
    state.shards.iter().filter_map(planned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ids::{ClusterId, MetaId, MoveId};
    use crate::placement::zones_respected;
    use crate::state::{FEATURE_LEVEL, NodeState, Roles, Settings};

    fn cluster(nodes: u64, index: &mut u64) -> ClusterState {
        let mut state = ClusterState::default();
        let settings = Settings {
            replication_factor: 3,
            shards: 32,
            expected_storage_nodes: 3,
            split_version: 1,
            ..Settings::default()
        };
        apply(
            &mut state,
            index,
            Command::InitCluster { cluster: ClusterId(1), settings, next_meta: MetaId(2) },
        );
        (1..=nodes).for_each(|node| add(&mut state, index, node));
        let sets = plan_of(&state);
        apply(&mut state, index, Command::PlaceShards { sets });
        state
    }

    fn plan_of(state: &ClusterState) -> Vec<Vec<(NodeId, ReplicaId)>> {
        let nodes: Vec<Candidate> = state.placeable().into_iter().map(|(candidate, _)| candidate).collect();
        let sets = crate::placement::plan_initial(&nodes, 32, 3);
        sets.into_iter()
            .map(|set| set.into_iter().map(|node| (node, ReplicaId(node.0.into()))).collect())
            .collect()
    }

    fn apply(state: &mut ClusterState, index: &mut u64, command: Command) {
        *index += 1;
        state.apply(*index, command).expect("is accepted");
    }

    fn add(state: &mut ClusterState, index: &mut u64, node: u64) {
        let register = Command::RegisterNode {
            name: format!("n{node}"),
            address: format!("n{node}:7070"),
            roles: Roles { storage: true, ..Roles::default() },
            zone: Some(format!("z{}", node % 3)),
            replica: Some(ReplicaId(node.into())),
            feature_level: FEATURE_LEVEL,
        };
        apply(state, index, register);
    }

    #[test]
    fn a_cluster_in_its_place_needs_no_moves() {
        let state = cluster(5, &mut 0);
        assert_eq!(plan_replacements(&state), []);
        assert_eq!(plan_rebalance(&state), []);
    }

    #[test]
    fn a_draining_node_is_replaced_and_nothing_else_moves() {
        let mut index = 0;
        let mut state = cluster(6, &mut index);
        let (expect, to) = (NodeState::Active, NodeState::Draining);
        apply(&mut state, &mut index, Command::SetNodeState { node: NodeId(1), expect, to });
        let nodes: Vec<Candidate> = state.placeable().into_iter().map(|(candidate, _)| candidate).collect();
        let moves = plan_replacements(&state);
        let held = |shard: &&ShardEntry| shard.entry.old.iter().any(|member| member.node == NodeId(1));
        assert_eq!(moves.len(), state.shards.iter().filter(held).count());
        for planned in &moves {
            let old: Vec<NodeId> =
                state.shards[planned.shard.0 as usize].entry.old.iter().map(|m| m.node).collect();
            let new: Vec<NodeId> = planned.new.iter().map(|(node, _)| *node).collect();
            assert_eq!(old.iter().filter(|node| new.contains(node)).count(), 2, "{old:?} to {new:?}");
            assert!(!new.contains(&NodeId(1)) && zones_respected(&nodes, &new));
        }
        for (id, PlannedMove { shard, expect, new }) in (1..).zip(moves) {
            apply(&mut state, &mut index, Command::StartMove { shard, expect, id: MoveId(id), new });
        }
        assert_eq!(plan_replacements(&state), [], "shards that move are left out");
    }

    #[test]
    fn a_new_node_gets_its_share_by_a_rebalance_only() {
        let mut index = 0;
        let mut state = cluster(5, &mut index);
        add(&mut state, &mut index, 6);
        assert_eq!(plan_replacements(&state), []);
        let moves = plan_rebalance(&state);
        let ring = plan_of(&state);
        for planned in &moves {
            assert_eq!(planned.new, ring[planned.shard.0 as usize]);
        }
        let takes = |planned: &&PlannedMove| planned.new.iter().any(|(node, _)| *node == NodeId(6));
        let taken = moves.iter().filter(takes).count();
        assert!((8..=32).contains(&taken), "the newcomer gets {taken} of {} replicas", 32 * 3);
    }
}
