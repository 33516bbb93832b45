//! The watched copy: every state that the group commits, published here and saved, so that a node starts from it
//! when the group is away. Also what a node tells the group: that it is there, and that it lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oteld_env::Env;
use oteld_proto::meta::{HeartbeatRequest, WatchRequest};
use tonic::Status;

use super::ask::Reply;
use super::{Inner, ProposeError};
use crate::checked_file;
use crate::command::{Applied, Command};
use crate::state::{ClusterState, FEATURE_LEVEL, Node, NodeState};

const RETRY_PAUSE: Duration = Duration::from_millis(200);
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(1);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

fn saved_path(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// The state that was saved last; an unreadable one counts as none. Blocks.
pub(super) fn load(env: &Env, dir: &Path) -> Option<ClusterState> {
    let bytes = match checked_file::read(&*env.disk, &saved_path(dir)) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "the saved copy of the metadata is not used");
            return None;
        }
    };
    match ClusterState::decode(&bytes) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(%error, "the saved copy of the metadata does not parse");
            None
        }
    }
}

/// Saves every published state, the newest where they come faster than the disk.
pub(super) async fn save(inner: Arc<Inner>) {
    let mut states = inner.state.subscribe();
    while states.changed().await.is_ok() {
        let state = states.borrow_and_update().clone();
        let (env, path) = (inner.env.clone(), saved_path(&inner.dir));
        let written =
            inner.env.tasks.blocking(move || checked_file::write(&*env.disk, &path, &state.encode()));
        if let Err(error) = written.await {
            tracing::warn!(%error, "the copy of the metadata is not saved");
        }
    }
}

impl Inner {
    /// Takes a state if it is newer; the watched copy never goes back.
    pub(super) fn publish(&self, state: Arc<ClusterState>) {
        self.state.send_if_modified(|known| {
            if known.cluster.is_some() && state.cluster.is_some() && known.cluster != state.cluster {
                tracing::error!(known = ?known.cluster, found = ?state.cluster, "the state of another cluster");
                return false;
            }
            let newer = state.changed_at > known.changed_at;
            if newer {
                *known = state;
            }
            newer
        });
    }
}

/// Follows the member of this process, or any other one.
pub(super) async fn follow(inner: Arc<Inner>) {
    if inner.my.roles.meta {
        let mut members = inner.member.subscribe();
        let Ok(member) = members.wait_for(Option::is_some).await.map(|member| member.clone()) else { return };
        let Some(member) = member else { return };
        let mut states = member.watch();
        drop(member);
        loop {
            let state = states.borrow_and_update().clone();
            inner.publish(state);
            if states.changed().await.is_err() {
                return;
            }
        }
    }
    loop {
        for address in inner.candidates() {
            if let Err(status) = follow_at(&inner, &address).await {
                tracing::debug!(address, %status, "stops following");
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_at(inner: &Inner, address: &str) -> Result<(), Status> {
    let mut client =
        inner.channels.client(address).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let after = inner.state.borrow().changed_at;
    let mut replies = client.watch(WatchRequest { after }).await?.into_inner();
    while let Some(reply) = replies.message().await? {
        let state = ClusterState::decode(&reply.state)
            .map_err(|error| Status::data_loss(format!("a state does not parse: {error}")))?;
        inner.publish(Arc::new(state));
    }
    Ok(())
}

/// Registers this node once the cluster has a name, and again whenever the record differs from what it is.
pub(super) async fn register(inner: Arc<Inner>) {
    let mut states = inner.state.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        let known = state.node_by_name(&inner.my.name);
        let registered = *inner.node_id.borrow();
        let last = registered.and_then(|id| state.nodes.get(&id));
        if last.is_some_and(|node| node.state == NodeState::Removed) {
            tracing::warn!("this node was removed from the cluster; a restart registers it as another one");
            return;
        }
        if known.is_some_and(|(_, node)| is_me(&inner, node)) {
            let id = known.map(|(id, _)| id);
            inner.node_id.send_if_modified(|current| std::mem::replace(current, id) != id);
        } else if state.cluster.is_some() {
            match inner.propose(registration(&inner)).await {
                Ok(Applied::Node(_)) | Ok(Applied::Unchanged) => {}
                Ok(other) => tracing::error!(?other, "registering gave no node id"),
                Err(ProposeError::Rejected(rejected)) => {
                    tracing::error!(%rejected, "the cluster refuses this node");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "registers again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn is_me(inner: &Inner, node: &Node) -> bool {
    let my = &inner.my;
    node.state != NodeState::Removed
        && (&node.address, &node.zone, node.roles) == (&my.address, &my.zone, my.roles)
        && (node.replica, node.feature_level) == (my.replica, FEATURE_LEVEL)
}

fn registration(inner: &Inner) -> Command {
    let my = inner.my.clone();
    Command::RegisterNode {
        name: my.name,
        address: my.address,
        roles: my.roles,
        zone: my.zone,
        replica: my.replica,
        feature_level: FEATURE_LEVEL,
    }
}

/// Tells the leader that this node lives.
pub(super) async fn heartbeat(inner: Arc<Inner>) {
    loop {
        let name = inner.my.name.clone();
        let time_unix_nano = inner.env.clock.now_unix_nanos();
        if inner.member().is_some_and(|member| member.leads()) {
            inner.heard_from(name, time_unix_nano);
        } else {
            let ask = inner.ask_leader(HEARTBEAT_TIMEOUT, true, |mut client| {
                let request = HeartbeatRequest { name: name.clone(), time_unix_nano };
                async move {
                    let reply = client.heartbeat(request).await?.into_inner();
                    Ok(reply
                        .not_leader
                        .map_or(Reply::Done(()), |other| Reply::NotLeader(other.leader_address)))
                }
            });
            if let Err(error) = ask.await {
                tracing::debug!(%error, "no heartbeat");
                if oteld_env::mutant("map-dropped-without-a-leader") {
                    inner.state.send_replace(Arc::default());
                }
            }
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}
