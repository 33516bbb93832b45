//! What the leader does by itself: names the cluster, places the shards, makes members that caught up voters, and
//! takes in those that join.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::retain::RetentionWatch;
use crate::command::{Applied, Command, Rejected};
use crate::ids::{ClusterId, Incarnation, MetaId};
use crate::membership::{MetaNode, leaving, next_voters};
use crate::placement::{Candidate, plan_initial};
use crate::raft::{Member, WriteError};
use crate::state::ClusterState;

const PAUSE: Duration = Duration::from_millis(100);
/// A learner this close to the end of the log may become a voter.
const LAG_MAX: u64 = 64;

/// Runs until the handle is closed; idle while this member does not lead.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut retention = RetentionWatch::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(member) = inner.member() else { continue };
        let stopped = member.metrics().borrow().running_state.clone();
        if let Err(error) = stopped {
            tracing::error!(%error, "the meta member has stopped");
            inner.failed.send_replace(Some(error.to_string()));
            return;
        }
        if !member.leads() {
            retention = RetentionWatch::default();
            continue;
        }
        if let Err(error) = step(&inner, &member, &mut retention).await {
            tracing::debug!(%error, "a step of the leader is to be repeated");
        }
    }
}

async fn step(inner: &Inner, member: &Member, retention: &mut RetentionWatch) -> Result<(), WriteError> {
    let timeout = inner.options.timing.propose;
    let state = member.watch().borrow().clone();
    change_members(member, &state, timeout).await?;
    if let Some(command) = next_command(inner, member, &state).or_else(|| retention.next(inner, &state)) {
        let written = member.write(command, timeout).await?;
        match written.answer {
            // A new leader looks at the state before it has applied all of the log, so it may repeat what was done.
            Err(Rejected::AlreadyPlaced | Rejected::AlreadyInitialised(_)) | Ok(_) => {}
            Err(rejected) => tracing::warn!(%rejected, "a step of the leader was refused"),
        }
    }
    Ok(())
}

fn next_command(inner: &Inner, member: &Member, state: &ClusterState) -> Option<Command> {
    if state.cluster.is_none() {
        let cluster = ClusterId(inner.env.random.next_u128());
        let next_meta = member.members().keys().max().copied().unwrap_or_default().next();
        return Some(Command::InitCluster { cluster, settings: inner.options.settings.clone(), next_meta });
    }
    let placeable = state.placeable();
    if state.shards.is_empty() && placeable.len() >= state.settings.expected_storage_nodes.max(1) as usize {
        let stores: BTreeMap<_, _> =
            placeable.iter().map(|(candidate, replica)| (candidate.node, *replica)).collect();
        let nodes: Vec<Candidate> = placeable.into_iter().map(|(candidate, _)| candidate).collect();
        let plan = plan_initial(&nodes, state.settings.shards, state.settings.replication_factor);
        let with_store = |set: Vec<_>| set.into_iter().map(|node| (node, stores[&node])).collect();
        return Some(Command::PlaceShards { sets: plan.into_iter().map(with_store).collect() });
    }
    None
}

async fn change_members(member: &Member, state: &ClusterState, timeout: Duration) -> Result<(), WriteError> {
    let removed = removed_names(state);
    let (voters, nodes, caught_up) = {
        let metrics = member.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<MetaId> = membership.voter_ids().collect();
        let nodes: BTreeMap<MetaId, MetaNode> =
            membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        let end = metrics.last_log_index.unwrap_or(0);
        let near = |index: u64| index + LAG_MAX >= end;
        let matched = metrics.replication.iter().flatten();
        let caught_up: BTreeSet<MetaId> = matched
            .filter(|(_, matched)| matched.is_some_and(|matched| near(matched.index)))
            .map(|(id, _)| *id)
            .collect();
        (voters, nodes, caught_up)
    };
    if let Some(next) = next_voters(&voters, &nodes, &caught_up, &removed) {
        tracing::info!(?voters, ?next, "changes the voters of the meta group");
        return member.change_voters(next, timeout).await;
    }
    if let Some(id) = leaving(&voters, &nodes, &removed).iter().find(|id| !voters.contains(id)) {
        return member.remove_learner(*id, timeout).await;
    }
    Ok(())
}

/// Names that only removed nodes had.
fn removed_names(state: &ClusterState) -> BTreeSet<&str> {
    let names = state.nodes.values().map(|node| node.name.as_str());
    names.filter(|name| state.node_by_name(name).is_none()).collect()
}

/// Takes a directory into the group, or records where it is now. Only the leader can.
pub(super) async fn admit(
    member: &Member,
    name: String,
    address: String,
    incarnation: Incarnation,
    timeout: Duration,
) -> Result<MetaId, WriteError> {
    if !member.leads() {
        return Err(WriteError::NotLeader);
    }
    if removed_names(&member.watch().borrow()).contains(name.as_str()) {
        return Err(WriteError::Unknown(format!("node {name} was removed from the cluster")));
    }
    let known = member.members().into_iter().find(|(_, (node, _))| node.incarnation == incarnation);
    if let Some((id, (node, _))) = known {
        if node.address != address {
            member.set_node(id, MetaNode { name, address, incarnation }, timeout).await?;
        }
        return Ok(id);
    }
    let allocate = Command::AllocateMeta { name: name.clone(), incarnation };
    let id = match member.write(allocate, timeout).await?.answer {
        Ok(Applied::Meta(id)) => id,
        Ok(other) => return Err(WriteError::Unknown(format!("an id was asked for, {other:?} came"))),
        Err(rejected) => return Err(WriteError::Unknown(rejected.to_string())),
    };
    member.add_learner(id, MetaNode { name, address, incarnation }, timeout).await?;
    Ok(id)
}
