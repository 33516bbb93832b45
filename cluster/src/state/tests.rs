//! Properties of [`ClusterState::apply`] under random commands, and the steps of a move and a split one by one.

use proptest::prelude::*;

use super::*;
use crate::placement::plan_initial;

fn formed(nodes: u64, shards: u32) -> ClusterState {
    let mut state = ClusterState::default();
    let settings = Settings {
        replication_factor: 3,
        shards,
        expected_storage_nodes: nodes as u32,
        split_version: 1,
        ..Settings::default()
    };
    let init = Command::InitCluster { cluster: ClusterId(1), settings, next_meta: MetaId(4) };
    assert_eq!(state.apply(1, init), Ok(Applied::Done));
    for node in 1..=nodes {
        assert_eq!(state.apply(1 + node, register(node)), Ok(Applied::Node(NodeId(node))));
    }
    let sets = placement(&state);
    assert_eq!(state.apply(2 + nodes, Command::PlaceShards { sets }), Ok(Applied::Epoch(Epoch(1))));
    state
}

fn register(node: u64) -> Command {
    Command::RegisterNode {
        name: format!("node-{node}"),
        address: format!("127.0.0.1:{node}"),
        roles: Roles { storage: true, ..Roles::default() },
        zone: Some(format!("zone-{}", node % 3)),
        replica: Some(store(node)),
        feature_level: FEATURE_LEVEL,
    }
}

fn store(node: u64) -> ReplicaId {
    ReplicaId(u128::from(node) << 64 | 7)
}

fn placement(state: &ClusterState) -> Vec<Vec<(NodeId, ReplicaId)>> {
    let nodes: Vec<_> = state.placeable().into_iter().map(|(candidate, _)| candidate).collect();
    let plan = plan_initial(&nodes, state.settings.shards, state.settings.replication_factor);
    plan.into_iter().map(|set| set.into_iter().map(|node| (node, store(node.0))).collect()).collect()
}

fn pairs(nodes: &[u64]) -> Vec<(NodeId, ReplicaId)> {
    nodes.iter().map(|&node| (NodeId(node), store(node))).collect()
}

fn stores(nodes: &[u64]) -> BTreeSet<ReplicaId> {
    nodes.iter().copied().map(store).collect()
}

fn positions(nodes: &[u64]) -> BTreeMap<ReplicaId, Position> {
    nodes.iter().map(|&node| (store(node), Position { boot: 1, nonce: 5, n: node })).collect()
}

const SHARD: ShardId = ShardId(0);
const ID: MoveId = MoveId(9);

fn start(expect: u64, new: &[u64]) -> Command {
    Command::StartMove { shard: SHARD, expect: Epoch(expect), id: ID, new: pairs(new) }
}

fn fence(expect: u64, nodes: &[u64]) -> Command {
    Command::RecordFence { shard: SHARD, expect: Epoch(expect), id: ID, positions: positions(nodes) }
}

fn finish(expect: u64, nodes: &[u64]) -> Command {
    Command::FinishMove { shard: SHARD, expect: Epoch(expect), id: ID, holds: stores(nodes) }
}

fn cancel(expect: u64) -> Command {
    Command::CancelMove { shard: SHARD, expect: Epoch(expect), id: ID }
}

/// Three nodes hold shard 0; a fourth joins afterwards.
fn three_and_one() -> ClusterState {
    let mut state = formed(3, 2);
    assert_eq!(state.apply(10, register(4)), Ok(Applied::Node(NodeId(4))));
    state
}

#[test]
fn a_move_goes_through_its_steps_in_order() {
    let mut state = three_and_one();
    assert_eq!(state.apply(11, start(1, &[2, 3, 4])), Ok(Applied::Epoch(Epoch(2))));
    assert!(state.shards[0].entry.is_joint());
    assert!(matches!(state.apply(12, finish(2, &[2, 3, 4])), Err(Rejected::StepMissing(_))));
    assert!(matches!(state.apply(13, fence(2, &[1])), Err(Rejected::NoMajority(_))));
    assert!(matches!(state.apply(14, fence(2, &[1, 4])), Err(Rejected::NoMajority(_))));
    assert_eq!(state.apply(15, fence(2, &[1, 2])), Ok(Applied::Done));
    assert_eq!(state.apply(15, fence(2, &[1])), Ok(Applied::Unchanged), "known already");
    assert_eq!(state.apply(16, fence(2, &[3, 4])), Ok(Applied::Done), "another one of the old set");
    let Some(Move { step: MoveStep::Fenced { positions }, .. }) = &state.shards[0].moving else { panic!() };
    assert_eq!(positions.keys().copied().collect::<BTreeSet<_>>(), stores(&[1, 2, 3]));
    assert!(matches!(state.apply(17, finish(2, &[4])), Err(Rejected::NoMajority(_))));
    assert!(matches!(state.apply(17, finish(2, &[2, 3])), Err(Rejected::StepMissing(_))));
    assert_eq!(state.apply(18, finish(2, &[2, 4])), Ok(Applied::Epoch(Epoch(3))));
    let entry = &state.shards[0].entry;
    assert_eq!(entry.members().iter().map(|m| m.node.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(entry.members().iter().map(|m| m.since_epoch.0).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(state.apply(19, finish(2, &[2, 4])), Ok(Applied::Unchanged), "a repeat is recognised");
    assert_eq!(state.changed_at, 18);
}

#[test]
fn a_cancelled_move_leaves_the_old_set_at_a_new_epoch() {
    let mut state = three_and_one();
    let before = state.shards[0].entry.old.clone();
    assert_eq!(state.apply(11, start(1, &[2, 3, 4])), Ok(Applied::Epoch(Epoch(2))));
    assert_eq!(state.apply(12, start(1, &[2, 3, 4])), Ok(Applied::Unchanged));
    assert_eq!(state.apply(13, fence(2, &[1, 2, 3])), Ok(Applied::Done));
    assert!(matches!(state.apply(14, cancel(1)), Err(Rejected::EpochIs { .. })));
    assert_eq!(state.apply(15, cancel(2)), Ok(Applied::Epoch(Epoch(3))));
    assert_eq!(state.apply(16, finish(2, &[2, 3, 4])), Ok(Applied::Unchanged), "the move has ended");
    assert_eq!(state.shards[0].entry, Entry { epoch: Epoch(3), old: before, new: None });
}

#[test]
fn a_move_needs_the_expected_epoch_and_a_registered_store() {
    let mut state = three_and_one();
    assert!(matches!(state.apply(11, start(2, &[2, 3, 4])), Err(Rejected::EpochIs { .. })));
    assert!(matches!(state.apply(12, start(1, &[2, 2, 4])), Err(Rejected::Invalid(..))));
    assert!(matches!(state.apply(13, start(1, &[2, 3, 5])), Err(Rejected::NodeCannotHold { .. })));
    assert!(matches!(state.apply(14, start(1, &[3, 2, 1])), Err(Rejected::Invalid(..))));
    let wrong_store = vec![(NodeId(4), store(1))];
    let command = Command::StartMove { shard: SHARD, expect: Epoch(1), id: ID, new: wrong_store };
    assert!(matches!(state.apply(15, command), Err(Rejected::NodeCannotHold { .. })));
}

#[test]
fn accepted_data_loss_is_written_down() {
    let mut state = three_and_one();
    let lost = "rows of shard 0".to_owned();
    let mixed = Command::AcceptDataLoss {
        shard: SHARD,
        expect: Epoch(1),
        id: ID,
        set: pairs(&[3, 4]),
        lost: lost.clone(),
    };
    assert!(matches!(state.apply(11, mixed), Err(Rejected::Invalid(..))), "a store that holds nothing");
    let set = pairs(&[3]);
    let command = Command::AcceptDataLoss { shard: SHARD, expect: Epoch(1), id: ID, set, lost };
    assert_eq!(state.apply(11, command.clone()), Ok(Applied::Epoch(Epoch(2))));
    assert_eq!(state.apply(12, command), Ok(Applied::Unchanged));
    assert_eq!(state.losses[0].without.iter().map(|m| m.node.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_split_waits_for_every_fence_and_doubles_the_shards() {
    let mut state = formed(3, 2);
    let closed = |shard, expect, nodes: &[u64]| Command::RecordSplitFence {
        id: ID,
        shard: ShardId(shard),
        expect: Epoch(expect),
        closed: stores(nodes),
    };
    assert_eq!(state.apply(11, Command::StartSplit { id: ID, expect_shards: 2 }), Ok(Applied::Done));
    assert!(matches!(state.apply(12, start(2, &[1, 2])), Err(Rejected::ShardBusy { .. })));
    assert_eq!(state.apply(13, closed(0, 2, &[1, 2])), Ok(Applied::Done));
    assert!(matches!(state.apply(14, Command::FinishSplit { id: ID }), Err(Rejected::StepMissing(_))));
    assert!(matches!(state.apply(15, closed(1, 2, &[1])), Err(Rejected::NoMajority(_))));
    assert_eq!(state.apply(16, closed(1, 2, &[1, 3])), Ok(Applied::Done));
    assert_eq!(state.apply(17, Command::FinishSplit { id: ID }), Ok(Applied::Done));
    assert_eq!(state.apply(18, Command::FinishSplit { id: ID }), Ok(Applied::Unchanged));
    assert_eq!(state.shards.len(), 4);
    for (index, shard) in state.shards.iter().enumerate() {
        assert_eq!(shard.shard, ShardId(index as u32));
        assert_eq!(shard.split_from, Some((ShardId(index as u32 % 2), Epoch(2))));
        assert_eq!(shard.entry.epoch, Epoch(3));
    }
}

#[test]
fn a_node_leaves_only_when_it_holds_nothing_and_its_id_never_returns() {
    let mut state = three_and_one();
    let remove = |node, expect| Command::SetNodeState { node: NodeId(node), expect, to: NodeState::Removed };
    let held = state.apply(11, remove(1, NodeState::Active));
    assert_eq!(held, Err(Rejected::NodeHoldsShard { node: NodeId(1), shard: SHARD }));
    assert!(matches!(state.apply(12, remove(4, NodeState::Down)), Err(Rejected::NodeStateIs { .. })));
    assert_eq!(state.apply(13, remove(4, NodeState::Active)), Ok(Applied::Done));
    assert_eq!(state.apply(14, register(4)), Ok(Applied::Node(NodeId(5))));
}

#[test]
fn a_directory_keeps_its_member_id() {
    let mut state = formed(1, 1);
    let allocate =
        |incarnation| Command::AllocateMeta { name: "a".into(), incarnation: Incarnation(incarnation) };
    assert_eq!(state.apply(11, allocate(1)), Ok(Applied::Meta(MetaId(4))));
    assert_eq!(state.apply(12, allocate(2)), Ok(Applied::Meta(MetaId(5))));
    assert_eq!(state.apply(13, allocate(1)), Ok(Applied::Meta(MetaId(4))));
}

#[test]
fn an_object_is_committed_only_under_a_live_intent() {
    let mut state = formed(3, 1);
    let (signal, window, shard) = (Signal::Logs, 5, SHARD);
    let seal = |agreed: &[u64]| Command::SealWindow {
        signal,
        window,
        shard,
        expect: Epoch(1),
        digest: "d".into(),
        rows: 3,
        agreed: stores(agreed),
    };
    let intent = |key: &str| Command::TierIntent {
        signal,
        window,
        shard,
        digest: "d".into(),
        key: key.into(),
        by: store(1),
    };
    let commit =
        |key: &str| Command::TierCommit { signal, window, shard, key: key.into(), bytes: 9, checksum: 1 };
    let cancel = |key: &str| Command::TierCancel { signal, window, shard, key: key.into() };
    assert!(matches!(state.apply(11, intent("a")), Err(Rejected::StepMissing(_))));
    assert!(matches!(state.apply(12, seal(&[1])), Err(Rejected::NoMajority(_))));
    assert_eq!(state.apply(13, seal(&[1, 2])), Ok(Applied::Done));
    assert_eq!(state.apply(14, intent("a")), Ok(Applied::Done));
    assert_eq!(state.apply(15, cancel("a")), Ok(Applied::Done));
    assert!(matches!(state.apply(16, commit("a")), Err(Rejected::StepMissing(_))));
    assert_eq!(state.apply(17, intent("b")), Ok(Applied::Done));
    assert!(matches!(state.apply(18, commit("a")), Err(Rejected::Differs { .. })));
    assert_eq!(state.apply(19, commit("b")), Ok(Applied::Done));
    assert!(matches!(state.apply(20, cancel("b")), Err(Rejected::Differs { .. })));
}

#[test]
fn a_floor_never_falls() {
    let mut state = formed(1, 1);
    let raise =
        |floor| Command::RaiseFloor { tenant: "t".into(), signal: Signal::Logs, floor_unix_nano: floor };
    assert_eq!(state.apply(11, raise(10)), Ok(Applied::Done));
    assert_eq!(state.apply(12, raise(9)), Ok(Applied::Unchanged));
    assert_eq!(state.tenants["t"].floors[&Signal::Logs], 10);
}

const HOUR_NANOS: u64 = 3600 * 1_000_000_000;
/// A time in the middle of a window.
const NOW: u64 = 10_001 * HOUR_NANOS;

#[test]
fn time_raises_the_floors_of_everyone_and_of_tenants_with_a_retention_of_their_own() {
    let mut state = formed(1, 1);
    let set = |to: &str| Command::SetSetting {
        name: retention_setting(Signal::Logs).into(),
        expect: None,
        to: Some(to.into()),
    };
    let advance = |unix_nano| Command::AdvanceTime { unix_nano };
    assert_eq!(state.apply(11, advance(NOW)), Ok(Applied::Done));
    assert_eq!(state.floor("t", Signal::Logs), 0, "what nobody limited is kept for ever");
    assert!(matches!(state.apply(12, set("a while")), Err(Rejected::Invalid(..))));
    assert_eq!(state.apply(13, set("100h")), Ok(Applied::Done));
    assert_eq!(state.apply(14, advance(NOW)), Ok(Applied::Done), "due in the same window");
    assert_eq!(state.apply(15, advance(NOW + HOUR_NANOS / 2)), Ok(Applied::Unchanged));
    assert_eq!(state.floor("t", Signal::Logs), 9_900 * HOUR_NANOS, "whole windows");
    assert_eq!(state.floor("t", Signal::Metrics), 0);

    let limits = |hours: u64| Command::SetLimits {
        tenant: "t".into(),
        limits: Limits { retention_seconds: [(Signal::Logs, hours * 3600)].into(), ..Limits::default() },
    };
    assert_eq!(state.apply(16, limits(500)), Ok(Applied::Done));
    assert_eq!(state.floor("t", Signal::Logs), 9_900 * HOUR_NANOS, "what is gone does not come back");
    assert_eq!(state.apply(17, advance(NOW + 200 * HOUR_NANOS)), Ok(Applied::Done));
    assert_eq!(state.floor("t", Signal::Logs), 9_900 * HOUR_NANOS);
    assert_eq!(state.floor("x", Signal::Logs), 10_100 * HOUR_NANOS);
    assert_eq!(state.apply(18, limits(20)), Ok(Applied::Done));
    assert_eq!(state.apply(19, advance(NOW + 200 * HOUR_NANOS)), Ok(Applied::Done));
    assert_eq!(state.floor("t", Signal::Logs), 10_180 * HOUR_NANOS);
    assert_eq!(state.apply(20, advance(NOW)), Ok(Applied::Done), "the clocks were set back");
    assert_eq!(state.floor("t", Signal::Logs), 10_180 * HOUR_NANOS);
}

fn nodes_of(count: u64) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1..=count, 1..4)
}

fn any_command() -> impl Strategy<Value = Command> {
    let shard = (0u32..5).prop_map(ShardId);
    let epoch = (1u64..8).prop_map(Epoch);
    let id = (0u128..3).prop_map(MoveId);
    let state = prop::sample::select(vec![NodeState::Active, NodeState::Draining, NodeState::Removed]);
    prop_oneof![
        (1u64..7).prop_map(register),
        (1u64..7, state.clone(), state).prop_map(|(node, expect, to)| Command::SetNodeState {
            node: NodeId(node),
            expect,
            to
        }),
        (shard.clone(), epoch.clone(), id.clone(), nodes_of(6)).prop_map(|(shard, expect, id, new)| {
            Command::StartMove { shard, expect, id, new: pairs(&new) }
        }),
        (shard.clone(), epoch.clone(), id.clone(), nodes_of(6)).prop_map(|(shard, expect, id, at)| {
            Command::RecordFence { shard, expect, id, positions: positions(&at) }
        }),
        (shard.clone(), epoch.clone(), id.clone(), nodes_of(6)).prop_map(|(shard, expect, id, at)| {
            Command::FinishMove { shard, expect, id, holds: stores(&at) }
        }),
        (shard.clone(), epoch.clone(), id.clone()).prop_map(|(shard, expect, id)| Command::CancelMove {
            shard,
            expect,
            id
        }),
        (id.clone(), 1u32..5).prop_map(|(id, expect_shards)| Command::StartSplit { id, expect_shards }),
        (id.clone(), shard, epoch, nodes_of(6)).prop_map(|(id, shard, expect, at)| {
            Command::RecordSplitFence { id, shard, expect, closed: stores(&at) }
        }),
        id.clone().prop_map(|id| Command::FinishSplit { id }),
        id.prop_map(|id| Command::CancelSplit { id }),
        (0u64..20).prop_map(|floor| Command::RaiseFloor {
            tenant: "t".into(),
            signal: Signal::Metrics,
            floor_unix_nano: floor
        }),
        (0u64..40).prop_map(|hours| Command::AdvanceTime { unix_nano: hours * HOUR_NANOS }),
        (0u64..9, 0u64..3).prop_map(|(hours, tenant)| Command::SetLimits {
            tenant: ["t", "u", "v"][tenant as usize].into(),
            limits: Limits {
                retention_seconds: if hours < 8 {
                    [(Signal::Metrics, hours * 3600)].into()
                } else {
                    BTreeMap::new()
                },
                ..Limits::default()
            },
        }),
        prop::sample::select(vec!["2h", "8h", "forever"]).prop_map(|text| Command::SetSetting {
            name: retention_setting(Signal::Metrics).into(),
            expect: None,
            to: Some(text.into()),
        }),
    ]
}

proptest! {
    #[test]
    fn any_history_keeps_the_promises_of_the_map(commands in prop::collection::vec(any_command(), 0..60)) {
        let mut state = formed(4, 2);
        let mut copy = state.clone();
        for (index, command) in (100..).zip(commands) {
            let before = state.clone();
            let result = state.apply(index, command.clone());
            prop_assert_eq!(&result, &copy.apply(index, command));
            if matches!(result, Err(_) | Ok(Applied::Unchanged)) {
                prop_assert_eq!(&state, &before, "{:?} must change nothing", result);
            }
            for tenant in ["t", "u", "x"] {
                let (was, is) = (before.floor(tenant, Signal::Metrics), state.floor(tenant, Signal::Metrics));
                prop_assert!(was <= is, "the floor of {tenant} fell from {was} to {is}");
            }
            for (was, is) in before.shards.iter().zip(&state.shards) {
                prop_assert!(was.entry.epoch <= is.entry.epoch);
                if was.entry != is.entry {
                    prop_assert!(was.entry.epoch < is.entry.epoch, "sets change with the epoch only");
                }
            }
            for (position, shard) in state.shards.iter().enumerate() {
                prop_assert_eq!(shard.shard.0 as usize, position);
                prop_assert_eq!(shard.entry.is_joint(), shard.moving.is_some());
                for set in [Some(&shard.entry.old), shard.entry.new.as_ref()].into_iter().flatten() {
                    let distinct: BTreeSet<_> = set.iter().map(|member| member.node).collect();
                    prop_assert!(!set.is_empty() && distinct.len() == set.len());
                }
            }
        }
        prop_assert_eq!(&state, &copy);
        prop_assert_eq!(ClusterState::decode(&state.encode()).expect("decodes"), state);
    }

    #[test]
    fn a_first_placement_has_all_replicas_in_all_zones(nodes in 1u64..8, shards in 1u32..20) {
        let state = formed(nodes, shards);
        let candidates: Vec<_> = state.placeable().into_iter().map(|(candidate, _)| candidate).collect();
        for shard in &state.shards {
            let set: Vec<NodeId> = shard.entry.old.iter().map(|member| member.node).collect();
            prop_assert_eq!(set.len(), 3.min(nodes as usize));
            prop_assert!(crate::placement::zones_respected(&candidates, &set));
        }
    }
}
