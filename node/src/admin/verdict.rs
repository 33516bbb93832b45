//! From what the nodes say to one verdict: pure, so that every case is a line in a table.

use std::collections::{BTreeMap, BTreeSet};

use oteld_client::admin::{
    ClusterStatus, MetaMember, MetaRole, MetaStatus, MoveStep, NodeState, NodeStatus, ReplicaState,
    ReplicaStatus, RetentionStatus, Role, ShardStatus, ShardTotals, Verdict,
};
use oteld_cluster::ids::{NodeId, ReplicaId, Signal};
use oteld_cluster::plan::without_majority;
use oteld_cluster::shard_map::{Entry, Member};
use oteld_cluster::state::{self, ClusterState};

use super::own::OwnStatus;
use crate::server::reach::{self, Silent};

/// What was gathered for one answer.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    pub state: ClusterState,
    /// Nodes that answered; the others are unreachable.
    pub own: BTreeMap<NodeId, OwnStatus>,
    /// Milliseconds since each node's last heartbeat, by name.
    pub heartbeats: BTreeMap<String, u64>,
    pub meta: MetaStatus,
    /// Why retention waits, if it does.
    pub retention_waits: Option<String>,
    /// Nodes that do not answer the node that gathers.
    pub silent: Silent,
}

impl Gathered {
    /// The store that a node has now: what the node says is newer than the metadata here.
    fn store_of(&self, id: NodeId) -> Option<ReplicaId> {
        let told = self.own.get(&id).and_then(|own| own.replica);
        told.or_else(|| self.state.nodes.get(&id)?.replica)
    }
}

/// The whole status, the verdict first.
pub fn cluster_status(gathered: &Gathered) -> ClusterStatus {
    let shards = shard_statuses(gathered);
    let shards_total = shards.len() as u32;
    let replicas_wanted = gathered.state.settings.replication_factor as usize;
    let under_replicated = shards.iter().filter(|shard| !is_whole(shard, replicas_wanted)).count() as u32;
    let moving = shards.iter().filter(|shard| shard.new.is_some()).count() as u32;
    let (verdict, reasons) = judge(gathered, under_replicated);
    ClusterStatus {
        cluster_id: gathered.state.cluster.map(|id| id.to_string()),
        verdict,
        reasons,
        meta: gathered.meta.clone(),
        nodes: node_statuses(gathered),
        shards: ShardTotals { total: shards_total, under_replicated, moving },
        retention: retention(&gathered.state),
    }
}

fn retention(state: &ClusterState) -> Vec<RetentionStatus> {
    let status = |signal: Signal| RetentionStatus {
        signal: signal.name().to_owned(),
        seconds: state.retention_seconds(signal),
        floor_unix_nano: state.floors.get(&signal).copied().unwrap_or(0),
    };
    Signal::ALL.map(status).into()
}

/// All nodes that were not removed, by name.
pub fn node_statuses(gathered: &Gathered) -> Vec<NodeStatus> {
    let mut nodes: Vec<NodeStatus> = (gathered.state.nodes.iter())
        .filter(|(_, node)| node.state != state::NodeState::Removed)
        .map(|(id, node)| node_status(gathered, *id, node))
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

/// All shards, in order.
pub fn shard_statuses(gathered: &Gathered) -> Vec<ShardStatus> {
    let replicas = |members: &[Member]| members.iter().map(|member| replica(gathered, *member)).collect();
    let shards = gathered.state.shards.iter();
    shards
        .map(|shard| ShardStatus {
            shard: shard.shard.0,
            epoch: shard.entry.epoch.0,
            replicas: replicas(&shard.entry.old),
            new: shard.entry.new.as_deref().map(replicas),
            step: shard.moving.as_ref().map(|moving| match moving.step {
                state::MoveStep::Joint => MoveStep::Fencing,
                state::MoveStep::Fenced { .. } => MoveStep::Copying,
            }),
        })
        .collect()
}

fn node_status(gathered: &Gathered, id: NodeId, node: &state::Node) -> NodeStatus {
    let own = gathered.own.get(&id);
    let holds = |entry: &Entry| entry.members().iter().any(|member| member.node == id);
    let mut roles = Vec::new();
    for (has, role) in
        [(node.roles.front, Role::Front), (node.roles.storage, Role::Storage), (node.roles.meta, Role::Meta)]
    {
        roles.extend(has.then_some(role));
    }
    NodeStatus {
        id: id.0,
        name: node.name.clone(),
        address: node.address.clone(),
        roles,
        zone: node.zone.clone(),
        state: match node.state {
            state::NodeState::Down => NodeState::Down,
            state::NodeState::Removed => NodeState::Removed,
            _ if own.is_none() => NodeState::Unreachable,
            state::NodeState::Joining => NodeState::Joining,
            state::NodeState::Active => NodeState::Active,
            state::NodeState::Draining => NodeState::Draining,
        },
        replica: node.replica.map(|replica| replica.to_string()),
        shards: gathered.state.shards.iter().filter(|shard| holds(&shard.entry)).count() as u32,
        disk_bytes: own.and_then(|own| own.disk_bytes),
        disk_free_bytes: own.and_then(|own| own.disk_free_bytes),
        ingest_items_per_second: own.and_then(|own| own.ingest_items_per_second),
        last_heartbeat_ms: gathered.heartbeats.get(&node.name).copied(),
    }
}

fn replica(gathered: &Gathered, member: Member) -> ReplicaStatus {
    let node = gathered.state.nodes.get(&member.node);
    let state = match (node, gathered.own.get(&member.node)) {
        // The node came back with another store: this replica is gone.
        (Some(_), _) if gathered.store_of(member.node) != Some(member.replica) => ReplicaState::Unreachable,
        (_, None) => ReplicaState::Unreachable,
        (_, Some(own)) if own.read_only.is_some() => ReplicaState::ReadOnly,
        (_, Some(own)) if own.catching_up => ReplicaState::CatchingUp,
        (_, Some(_)) => ReplicaState::Active,
    };
    ReplicaStatus { node: node.map_or_else(|| member.node.to_string(), |node| node.name.clone()), state }
}

/// Whether a shard has as many replicas as the cluster wants, and all of them serve.
fn is_whole(shard: &ShardStatus, replicas_wanted: usize) -> bool {
    let mut all = shard.replicas.iter().chain(shard.new.iter().flatten());
    shard.replicas.len() >= replicas_wanted && all.all(|replica| replica.state == ReplicaState::Active)
}

/// The verdict and its reasons, the worst first.
fn judge(gathered: &Gathered, under_replicated: u32) -> (Verdict, Vec<String>) {
    let state = &gathered.state;
    let (mut fatal, mut bad) = (Vec::new(), Vec::new());
    if state.cluster.is_none() {
        let silent = match gathered.silent.is_empty() {
            true => String::new(),
            false => format!("; no answer from {}", reach::names(&gathered.silent)),
        };
        fatal.push(format!("no cluster yet: the meta group has not formed, or does not answer{silent}"));
    } else if state.shards.is_empty() {
        let storage = state.nodes.values().filter(|node| node.roles.storage).count();
        fatal.push(format!(
            "no shard is placed yet: {storage} of {} expected storage nodes have joined",
            state.settings.expected_storage_nodes
        ));
    }
    let serving: BTreeSet<ReplicaId> = (state.nodes.keys())
        .filter(|id| gathered.own.get(id).is_some_and(|own| own.read_only.is_none()))
        .filter_map(|id| gathered.store_of(*id))
        .collect();
    let lost = state.shards.iter().filter(|shard| !shard.entry.quorum().is_reached(&serving)).count();
    if lost > 0 {
        fatal.push(format!("{lost} of {} shards have no majority of replicas", state.shards.len()));
    }
    let gone = without_majority(state).len();
    if gone > 0 {
        fatal.push(format!(
            "{gone} of {} shards have lost a majority of their stores for good: bring a lost store's directory back, \
             or accept the loss of what only they held (the command AcceptDataLoss)",
            state.shards.len()
        ));
    }
    for (id, node) in &state.nodes {
        let expected = !matches!(node.state, state::NodeState::Removed | state::NodeState::Down);
        match gathered.own.get(id) {
            None if expected => bad.push(format!("{} at {} does not answer", node.name, node.address)),
            Some(OwnStatus { lost: Some(reason), .. }) => {
                bad.push(format!("the store of {} serves nobody: {reason}", node.name));
            }
            Some(OwnStatus { read_only: Some(reason), .. }) => {
                bad.push(format!("{} refuses writes: {reason}", node.name));
            }
            Some(OwnStatus { catching_up: true, .. }) => {
                bad.push(format!("{} is catching up with its peers", node.name));
            }
            _ => {}
        }
    }
    if gathered.meta.leader.is_none() && state.cluster.is_some() {
        let goes_on = if fatal.is_empty() { ", ingest and queries go on" } else { "" };
        bad.push(format!("the meta group has no leader: topology changes wait{goes_on}"));
    }
    bad.extend(gathered.retention_waits.clone());
    for MetaMember { node, role, .. } in &gathered.meta.members {
        if *role == MetaRole::Unreachable {
            bad.push(format!("meta member {node} does not answer"));
        }
    }
    if under_replicated > 0 {
        bad.push(format!("{under_replicated} of {} shards are under-replicated", state.shards.len()));
    }
    let wanted = state.settings.replication_factor;
    let few = state.shards.iter().filter(|shard| shard.entry.old.len() < wanted as usize).count();
    if few > 0 {
        let total = state.shards.len();
        bad.push(format!(
            "{few} of {total} shards were placed on fewer than {wanted} nodes, the replication factor"
        ));
    }
    let verdict = match (fatal.is_empty(), bad.is_empty()) {
        (false, _) => Verdict::Unavailable,
        (true, false) => Verdict::Degraded,
        (true, true) => Verdict::Healthy,
    };
    fatal.extend(bad);
    (verdict, fatal)
}

#[cfg(test)]
mod tests {
    use oteld_cluster::ids::{ClusterId, Epoch, ShardId};
    use oteld_cluster::state::{Node, Roles, Settings, ShardEntry};

    use super::*;

    /// A cluster whose storage nodes all answer, with two shards on the first `placed` of them.
    fn cluster(nodes: u64, placed: u64, replication_factor: u32) -> Gathered {
        let mut gathered = Gathered::default();
        let expected_storage_nodes = replication_factor;
        let settings = Settings {
            replication_factor,
            shards: 2,
            expected_storage_nodes,
            split_version: 1,
            ..Settings::default()
        };
        gathered.state.cluster = Some(ClusterId(1));
        gathered.state.settings = settings;
        for id in 1..=nodes {
            let node = Node {
                name: format!("n{id}"),
                address: format!("n{id}:7070"),
                roles: Roles { storage: true, ..Roles::default() },
                zone: None,
                state: state::NodeState::Active,
                replica: Some(ReplicaId(id.into())),
                feature_level: 1,
            };
            gathered.state.nodes.insert(NodeId(id), node);
            gathered.own.insert(NodeId(id), OwnStatus::default());
        }
        let member =
            |id: u64| Member { node: NodeId(id), replica: ReplicaId(id.into()), since_epoch: Epoch(1) };
        let entry = Entry { epoch: Epoch(1), old: (1..=placed).map(member).collect(), new: None };
        let shard = |shard: u32| ShardEntry {
            shard: ShardId(shard),
            entry: entry.clone(),
            moving: None,
            last_move: None,
            split_from: None,
        };
        gathered.state.shards = (0..2).map(shard).collect();
        gathered.meta.leader = Some("n1".into());
        gathered
    }

    /// Three storage nodes, of which some answer, two shards on all of them, and no leader.
    fn gathered(answering: u64) -> Gathered {
        let mut gathered = cluster(3, 3, 3);
        gathered.own.retain(|id, _| id.0 <= answering);
        gathered.meta.leader = None;
        gathered
    }

    #[test]
    fn a_shard_is_whole_when_it_has_as_many_replicas_as_the_replication_factor() {
        let verdict = |nodes, placed, replication_factor| {
            let status = cluster_status(&cluster(nodes, placed, replication_factor));
            (status.verdict, status.shards.under_replicated)
        };
        assert_eq!(verdict(3, 3, 3), (Verdict::Healthy, 0));
        assert_eq!(verdict(1, 1, 1), (Verdict::Healthy, 0));
        assert_eq!(verdict(1, 1, 3), (Verdict::Degraded, 2));
        assert_eq!(verdict(3, 1, 3), (Verdict::Degraded, 2), "nodes that joined later hold nothing");
        let reasons = cluster_status(&cluster(3, 1, 3)).reasons;
        assert!(reasons.iter().any(|reason| reason.contains("the replication factor")), "{reasons:?}");
    }

    #[test]
    fn that_ingest_goes_on_is_said_only_where_it_does() {
        let goes_on = |answering| {
            let status = cluster_status(&gathered(answering));
            let leaderless = status.reasons.iter().find(|reason| reason.contains("no leader")).unwrap();
            (status.verdict, leaderless.contains("go on"))
        };
        assert_eq!(goes_on(3), (Verdict::Degraded, true));
        assert_eq!(goes_on(2), (Verdict::Degraded, true));
        assert_eq!(goes_on(1), (Verdict::Unavailable, false));
    }

    #[test]
    fn a_cluster_that_has_not_formed_names_who_is_missing() {
        let silent = Silent::from([("storage-3".into(), "host:7070".into())]);
        let status = cluster_status(&Gathered { silent, ..Gathered::default() });
        assert_eq!(status.verdict, Verdict::Unavailable);
        let reason = "no cluster yet: the meta group has not formed, or does not answer; no answer from storage-3 at \
                      host:7070";
        assert_eq!(status.reasons, [reason]);
    }

    #[test]
    fn a_store_that_was_replaced_serves_no_shard_though_the_metadata_here_is_older() {
        let mut gathered = cluster(3, 3, 3);
        let fresh = |store| OwnStatus { replica: Some(ReplicaId(store)), ..OwnStatus::default() };
        let verdict = |gathered: &Gathered| {
            let status = cluster_status(gathered);
            (status.verdict, status.shards.under_replicated)
        };
        gathered.own.insert(NodeId(3), fresh(3));
        assert_eq!(verdict(&gathered), (Verdict::Healthy, 0));
        gathered.own.insert(NodeId(3), fresh(33));
        assert_eq!(verdict(&gathered), (Verdict::Degraded, 2));
        gathered.own.insert(NodeId(2), fresh(22));
        assert_eq!(verdict(&gathered), (Verdict::Unavailable, 2));
    }

    #[test]
    fn a_store_that_lost_data_is_named_with_the_reason() {
        let mut gathered = gathered(3);
        let own =
            OwnStatus { lost: Some("a page".into()), read_only: Some("lost".into()), ..OwnStatus::default() };
        gathered.own.insert(NodeId(2), own);
        let status = cluster_status(&gathered);
        assert_eq!(status.verdict, Verdict::Degraded);
        assert!(status.reasons.contains(&"the store of n2 serves nobody: a page".to_owned()));
    }
}
