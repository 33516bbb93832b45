//! The state of the group as an operator sees it.

use std::sync::Arc;
use std::time::Duration;

use oteld_proto::meta::{MemberStatus as MemberMessage, NodeHeartbeat, StatusReply, StatusRequest};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::service::member_message;
use super::{Heartbeat, Inner};
use crate::ids::MetaId;

const TIMEOUT: Duration = Duration::from_secs(1);

/// How long an election may take before the log says that there is no leader.
const LEADERLESS: Duration = Duration::from_secs(3);

/// The meta group, as one member sees it; only the leader knows how far the others are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The member that answered; `None` while it has no id.
    pub member: Option<MetaId>,
    pub term: u64,
    pub leader: Option<MetaId>,
    pub last_log_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub members: Vec<MemberStatus>,
    /// Milliseconds since the leader heard from each node, by name; empty from any other member.
    pub heartbeats: Vec<(String, u64)>,
    /// Why the leader lets retention wait; `None` where it does not, and from any other member.
    pub retention_waits: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    pub id: MetaId,
    pub name: String,
    pub address: String,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// The last log index that it is known to hold.
    pub matched_index: Option<u64>,
}

impl From<StatusReply> for Status {
    fn from(reply: StatusReply) -> Self {
        let some = |id: u64| (id != 0).then_some(MetaId(id));
        let member = |message: MemberMessage| {
            let MemberMessage { member, role, matched_index } = message;
            let member = member.unwrap_or_default();
            let (id, name, address) = (MetaId(member.id), member.name, member.address);
            MemberStatus { id, name, address, role, matched_index }
        };
        Status {
            member: some(reply.member),
            term: reply.term,
            leader: some(reply.leader),
            last_log_index: reply.last_log_index,
            applied_index: reply.applied_index,
            snapshot_index: reply.snapshot_index,
            purged_index: reply.purged_index,
            members: reply.members.into_iter().map(member).collect(),
            heartbeats: reply.heartbeats.into_iter().map(|beat| (beat.name, beat.age_millis)).collect(),
            retention_waits: Some(reply.retention_waits).filter(|why| !why.is_empty()),
        }
    }
}

/// This member's own view.
pub(super) fn message(inner: &Inner) -> StatusReply {
    let Some(member) = inner.member() else { return StatusReply::default() };
    let metrics = member.metrics().borrow().clone();
    let leads = member.leads();
    let status = |(id, (node, voter))| {
        let role = match (metrics.current_leader == Some(id), voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        let matched = metrics.replication.as_ref().and_then(|matched| matched.get(&id).copied().flatten());
        let own = (id == member.id).then_some(metrics.last_log_index).flatten();
        let matched_index = own.or(matched.map(|log_id| log_id.index));
        MemberMessage { member: Some(member_message(id, node, voter)), role: role.to_owned(), matched_index }
    };
    let now = Instant::now();
    let age = |(name, heard): (&String, &Heartbeat)| NodeHeartbeat {
        name: name.clone(),
        age_millis: now.saturating_duration_since(heard.at).as_millis() as u64,
    };
    StatusReply {
        member: member.id.0,
        term: metrics.current_term,
        leader: metrics.current_leader.map_or(0, |leader| leader.0),
        last_log_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |log_id| log_id.index),
        snapshot_index: metrics.snapshot.map_or(0, |log_id| log_id.index),
        purged_index: metrics.purged.map_or(0, |log_id| log_id.index),
        members: member.members().into_iter().map(status).collect(),
        heartbeats: if leads { inner.heartbeats.lock().iter().map(age).collect() } else { Vec::new() },
        retention_waits: inner.retention_waits.lock().clone().filter(|_| leads).unwrap_or_default(),
    }
}

/// The leader's view where it answers, else that of any member that does.
pub(super) async fn ask(inner: &Inner) -> Option<Status> {
    let own = message(inner);
    if own.member != 0 && own.member == own.leader {
        return Some(own.into());
    }
    let mut any = (own.member != 0).then_some(own);
    for address in inner.candidates() {
        let Ok(mut client) = inner.channels.client(&address) else { continue };
        let reply = timeout(TIMEOUT, client.status(StatusRequest {})).await;
        let Ok(Ok(reply)) = reply else { continue };
        let reply = reply.into_inner();
        if reply.member != 0 && reply.member == reply.leader {
            return Some(reply.into());
        }
        any = any.or((reply.member != 0).then_some(reply));
    }
    any.map(Status::from)
}

/// Logs who leads whenever that changes, as this member sees it. Runs until the member stops.
pub(super) async fn say_leader(inner: Arc<Inner>) {
    let mut members = inner.member.subscribe();
    let Ok(member) = members.wait_for(Option::is_some).await.map(|member| member.clone()) else { return };
    let Some(mut metrics) = member.map(|member| member.metrics()) else { return };
    let mut said = None;
    loop {
        let (leader, term, name) = {
            let now = metrics.borrow_and_update();
            let nodes = now.membership_config.membership();
            let name = now.current_leader.and_then(|id| nodes.get_node(&id)).map(|node| node.name.clone());
            (now.current_leader, now.current_term, name)
        };
        if leader.is_some() && leader != said {
            tracing::info!(leader = name.unwrap_or_default(), term, "the meta group has a leader");
            said = leader;
        }
        let changed = match leader.is_none() && said.is_some() {
            false => metrics.changed().await,
            true => match timeout(LEADERLESS, metrics.wait_for(|now| now.current_leader.is_some())).await {
                Ok(found) => found.map(drop),
                Err(_) => {
                    tracing::warn!(term, "the meta group has no leader: topology changes wait");
                    said = None;
                    Ok(())
                }
            },
        };
        if changed.is_err() {
            return;
        }
    }
}
