//! Which moves would bring the shards where they belong. Plans only: each move is started by its own command,
//! which expects the epoch that the plan saw.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{Epoch, MoveId, NodeId, ReplicaId, ShardId};
use crate::placement::{Candidate, Ring};
use crate::shard_map::{Member, majority};
use crate::state::{ClusterState, NodeState, ShardEntry};

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

/// The next moves that the leader starts by itself: replacements, at most so many that `at_once` are under way.
///
/// - A shard whose old set has no majority of stores that still exist is left out: it could never be fenced, and
///   would only wait; [`without_majority`] names it to the operator.
/// - No set becomes smaller: a node that drains keeps its shards until another one can take them.
/// - Where old members can stay for a while, newcomers stay a minority of the new set, so that reads need not wait
///   for what they copy; the rest follows in another move.
pub fn next_moves(state: &ClusterState, at_once: usize) -> Vec<PlannedMove> {
    let under_way = state.shards.iter().filter(|shard| shard.moving.is_some()).count();
    let mut moves = plan_replacements(state);
    moves.retain_mut(|planned| {
        let Some(shard) = state.shard(planned.shard) else { return false };
        let old = &shard.entry.old;
        planned.new = few_newcomers(state, old, std::mem::take(&mut planned.new));
        planned.new.len() >= old.len() && has_majority(state, old)
    });
    moves.truncate(at_once.saturating_sub(under_way));
    moves
}

/// Moves under way that lead to a store which does not exist any more, and so to no end: cancelling is always safe
/// (M6), and the next plan starts anew.
pub fn hopeless_moves(state: &ClusterState) -> Vec<(ShardId, Epoch, MoveId)> {
    let newcomer_is_gone = |shard: &&ShardEntry| {
        let is_old = |member: &Member| shard.entry.old.iter().any(|old| old.replica == member.replica);
        shard.entry.new.iter().flatten().any(|member| !is_old(member) && !exists(state, member))
    };
    let hopeless = state.shards.iter().filter(newcomer_is_gone);
    hopeless.filter_map(|shard| Some((shard.shard, shard.entry.epoch, shard.moving.as_ref()?.id))).collect()
}

/// Shards without a majority of stores that still exist. Nothing brings them back but the lost stores themselves;
/// an operator can accept the loss.
pub fn without_majority(state: &ClusterState) -> Vec<ShardId> {
    let without = state.shards.iter().filter(|shard| !has_majority(state, &shard.entry.old));
    without.map(|shard| shard.shard).collect()
}

fn has_majority(state: &ClusterState, set: &[Member]) -> bool {
    majority(set, |replica| set.iter().any(|member| member.replica == replica && exists(state, member)))
}

/// Whether the store was not replaced by another one of its node, and its node was not declared lost.
fn exists(state: &ClusterState, member: &Member) -> bool {
    let node = state.nodes.get(&member.node);
    node.is_some_and(|node| node.replica == Some(member.replica) && node.state != NodeState::Down)
}

fn few_newcomers(
    state: &ClusterState,
    old: &[Member],
    new: Vec<(NodeId, ReplicaId)>,
) -> Vec<(NodeId, ReplicaId)> {
    let is_old =
        |store: &(NodeId, ReplicaId)| old.iter().any(|member| (member.node, member.replica) == *store);
    let (kept, mut newcomers): (Vec<_>, Vec<_>) = new.iter().copied().partition(|store| is_old(store));
    newcomers.truncate((new.len().saturating_sub(1) / 2).max(1));
    let leavers =
        old.iter().filter(|member| exists(state, member)).map(|member| (member.node, member.replica));
    let is_free = |(node, _): &(NodeId, ReplicaId)| !new.iter().any(|(taken, _)| taken == node);
    let mut step: Vec<_> = kept.into_iter().chain(newcomers).collect();
    step.extend(leavers.filter(is_free).take(new.len() - step.len()));
    if step.len() == new.len() { step } else { new }
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
    use crate::ids::{ClusterId, MetaId};
    use crate::placement::zones_respected;
    use crate::state::{FEATURE_LEVEL, Roles, Settings};

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

    /// The node's store is replaced by an empty one.
    fn wipe(state: &mut ClusterState, index: &mut u64, node: u64) {
        let known = state.nodes[&NodeId(node)].clone();
        let register = Command::RegisterNode {
            name: known.name,
            address: known.address,
            roles: known.roles,
            zone: known.zone,
            replica: Some(ReplicaId(u128::from(node) + 1000)),
            feature_level: FEATURE_LEVEL,
        };
        apply(state, index, register);
    }

    #[test]
    fn a_lost_store_is_replaced_by_the_one_that_its_node_has_now() {
        let mut index = 0;
        let mut state = cluster(3, &mut index);
        wipe(&mut state, &mut index, 2);
        let moves = next_moves(&state, 100);
        assert_eq!(moves.len(), 32);
        for planned in &moves {
            let mut new: Vec<u128> = planned.new.iter().map(|(_, replica)| replica.0).collect();
            new.sort_unstable();
            assert_eq!(new, [1, 3, 1002]);
        }
        for (id, PlannedMove { shard, expect, new }) in (1..).zip(next_moves(&state, 5)) {
            apply(&mut state, &mut index, Command::StartMove { shard, expect, id: MoveId(id), new });
        }
        assert_eq!(state.shards.iter().filter(|shard| shard.moving.is_some()).count(), 5);
        assert_eq!(next_moves(&state, 5), []);
        assert_eq!(next_moves(&state, 7).len(), 2);
    }

    #[test]
    fn nothing_moves_where_no_majority_of_the_old_set_exists() {
        let mut index = 0;
        let mut state = cluster(3, &mut index);
        wipe(&mut state, &mut index, 2);
        assert_eq!(without_majority(&state), []);
        wipe(&mut state, &mut index, 3);
        assert_eq!(next_moves(&state, 100), []);
        assert_eq!(without_majority(&state).len(), 32);
    }

    #[test]
    fn no_set_becomes_smaller_and_newcomers_stay_a_minority() {
        let mut index = 0;
        let mut state = cluster(3, &mut index);
        let drain = |node| Command::SetNodeState {
            node: NodeId(node),
            expect: NodeState::Active,
            to: NodeState::Draining,
        };
        apply(&mut state, &mut index, drain(1));
        assert_eq!(next_moves(&state, 100), [], "nobody can take its place");
        apply(&mut state, &mut index, drain(2));
        add(&mut state, &mut index, 4);
        add(&mut state, &mut index, 5);
        for planned in next_moves(&state, 100) {
            let nodes: Vec<u64> = planned.new.iter().map(|(node, _)| node.0).collect();
            assert_eq!(nodes.iter().filter(|node| **node > 3).count(), 1, "{nodes:?}");
            assert_eq!(nodes.len(), 3);
        }
        assert_eq!(next_moves(&state, 100).len(), 32);
    }

    #[test]
    fn a_move_whose_newcomer_is_gone_is_hopeless() {
        let mut index = 0;
        let mut state = cluster(5, &mut index);
        add(&mut state, &mut index, 6);
        let planned = plan_rebalance(&state);
        let newcomer = |planned: &&PlannedMove| planned.new.iter().any(|(node, _)| *node == NodeId(6));
        let PlannedMove { shard, expect, new } = planned.iter().find(newcomer).unwrap().clone();
        apply(&mut state, &mut index, Command::StartMove { shard, expect, id: MoveId(1), new });
        assert_eq!(hopeless_moves(&state), []);
        let register = Command::RegisterNode {
            name: "n6".into(),
            address: "n6:7070".into(),
            roles: Roles { storage: true, ..Roles::default() },
            zone: None,
            replica: Some(ReplicaId(66)),
            feature_level: FEATURE_LEVEL,
        };
        apply(&mut state, &mut index, register);
        let hopeless = hopeless_moves(&state);
        assert_eq!(hopeless, [(shard, Epoch(expect.0 + 1), MoveId(1))]);
        for (shard, expect, id) in hopeless {
            apply(&mut state, &mut index, Command::CancelMove { shard, expect, id });
        }
        assert_eq!(hopeless_moves(&state), []);
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
