//! Asking every node how it is, for one answer of the admin API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use oteld_client::admin::{MetaMember, MetaRole, MetaStatus};
use oteld_cluster::handle::{MetaHandle, Status};
use oteld_cluster::ids::NodeId;
use oteld_cluster::state::{ClusterState, Node, NodeState};
use oteld_env::Env;
use oteld_proto::node::StatusRequest;
use tokio::sync::watch;
use tokio::time::timeout;

use super::own::{OwnStatus, OwnStatusSource};
use super::verdict::Gathered;
use crate::rpc::peers::Peers;
use crate::server::reach::Silent;

/// How long a node may take to say how it is.
const ANSWER_WAIT: Duration = Duration::from_millis(1500);

/// Gathers the status of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Gatherer {
    env: Env,
    own_name: Arc<str>,
    meta: MetaHandle,
    peers: Peers,
    own: OwnStatusSource,
    silent: watch::Receiver<Silent>,
}

impl Gatherer {
    /// `silent`: nodes that do not answer, founders of a cluster that has not formed among them.
    pub fn new(
        env: &Env,
        own_name: &str,
        meta: MetaHandle,
        peers: Peers,
        own: OwnStatusSource,
        silent: watch::Receiver<Silent>,
    ) -> Self {
        Gatherer { env: env.clone(), own_name: own_name.into(), meta, peers, own, silent }
    }

    /// Asks all at once; who does not answer in time counts as unreachable.
    pub async fn gather(&self) -> Gathered {
        let state = self.meta.state();
        let expected = state.nodes.iter().filter(|(_, node)| node.state != NodeState::Removed);
        let answers = join_all(expected.map(|(id, node)| self.ask(*id, node)));
        let meta = async { timeout(ANSWER_WAIT, self.meta.status()).await.ok().flatten() };
        let (answers, meta) = tokio::join!(answers, meta);
        let own: BTreeMap<NodeId, OwnStatus> = answers.into_iter().flatten().collect();
        let heartbeats = meta.iter().flat_map(|status| status.heartbeats.iter().cloned()).collect();
        let retention_waits = meta.as_ref().and_then(|status| status.retention_waits.clone());
        let mut meta = meta_status(&state, meta.as_ref());
        let is_gone = |name: &str| {
            let node = state.nodes.iter().find(|(_, node)| node.name == name);
            node.is_some_and(|(id, _)| !own.contains_key(id))
        };
        // The leader still calls a member that is gone a follower, and followers a leader that is gone their leader.
        for member in meta.members.iter_mut().filter(|member| is_gone(&member.node)) {
            member.role = MetaRole::Unreachable;
        }
        meta.leader = meta.leader.filter(|leader| !is_gone(leader));
        let silent = self.silent.borrow().clone();
        Gathered { meta, state: (*state).clone(), own, heartbeats, retention_waits, silent }
    }

    async fn ask(&self, id: NodeId, node: &Node) -> Option<(NodeId, OwnStatus)> {
        if *node.name == *self.own_name {
            let (env, own) = (&self.env, self.own.clone());
            return Some((id, env.tasks.blocking(move || own.read()).await));
        }
        let mut client = self.peers.client(&node.address);
        let reply = timeout(ANSWER_WAIT, client.status(StatusRequest {})).await.ok()?.ok()?.into_inner();
        // Another node at the address of one that is gone must not speak for it.
        if reply.name != node.name {
            return None;
        }
        Some((id, rmp_serde::from_slice(&reply.packed).ok()?))
    }
}

fn meta_status(state: &ClusterState, status: Option<&Status>) -> MetaStatus {
    let Some(status) = status else {
        // Nobody answered: what remains is who the members should be.
        let members = state.nodes.values().filter(|node| node.roles.meta).map(|node| MetaMember {
            node: node.name.clone(),
            address: node.address.clone(),
            last_log_index: None,
            role: MetaRole::Unreachable,
        });
        return MetaStatus { members: members.collect(), ..MetaStatus::default() };
    };
    let role = |role: &str| match role {
        "leader" => MetaRole::Leader,
        "learner" => MetaRole::Learner,
        "candidate" => MetaRole::Candidate,
        _ => MetaRole::Follower,
    };
    let mut members: Vec<MetaMember> = (status.members.iter())
        .map(|member| MetaMember {
            node: member.name.clone(),
            address: member.address.clone(),
            last_log_index: member.matched_index,
            role: role(&member.role),
        })
        .collect();
    members.sort_by(|a, b| a.node.cmp(&b.node));
    let name =
        |id| status.members.iter().find(|member| Some(member.id) == id).map(|member| member.name.clone());
    MetaStatus { seen_by: name(status.member), term: status.term, leader: name(status.leader), members }
}
