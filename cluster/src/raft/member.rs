//! One running member of the group: openraft with its storage and network, behind the few calls that the rest
//! of the crate makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{ChangeMembers, Config, Raft, ServerState, SnapshotPolicy};
use oteld_env::Env;
use oteld_proto::meta::RaftCall;
use thiserror::Error;
use tokio::sync::watch;

use super::log_store::LogStore;
use super::runtime::with_random;
use super::state_machine::StateMachine;
use super::{Answer, Channels, LogBackend, Metrics, PromiseFile, Types, pack};
use crate::command::{Applied, Command, Rejected};
use crate::ids::MetaId;
use crate::membership::MetaNode;
use crate::state::ClusterState;

/// Bytes of a snapshot that travel in one RPC.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

/// How a member runs.
#[derive(Clone, Debug)]
pub(crate) struct MemberOptions {
    pub(crate) heartbeat: Duration,
    /// The shortest election timeout; the longest is twice that.
    pub(crate) election: Duration,
    /// Entries after which a snapshot is taken.
    pub(crate) snapshot_entries: u64,
    /// Entries that stay in the log behind a snapshot.
    pub(crate) kept_entries: u64,
    /// The snapshot's file; its directory exists.
    pub(crate) snapshot: PathBuf,
    /// The file of its last promise.
    pub(crate) promise: PathBuf,
}

/// A command that is in the log for good.
#[derive(Debug)]
pub(crate) struct Written {
    /// Where.
    pub(crate) index: u64,
    pub(crate) answer: Result<Applied, Rejected>,
}

/// A state, and how much of the log it has applied.
#[derive(Debug)]
pub(crate) struct AppliedState {
    /// Index of the last applied entry, whether it changed the state or not; 0 before the first one.
    pub(crate) index: u64,
    pub(crate) state: Arc<ClusterState>,
}

/// Why a command was not answered.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// It had no effect.
    #[error("this member does not lead")]
    NotLeader,
    /// It may be applied, now or later.
    #[error("{0}")]
    Unknown(String),
}

/// Why a state could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("this member does not lead")]
    NotLeader,
    #[error("{0}")]
    Unavailable(String),
}

/// Why another member's RPC was not served.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("the request does not parse: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    #[error("no such call")]
    NoSuchCall,
}

/// A running member.
pub(crate) struct Member {
    pub(crate) id: MetaId,
    raft: Raft<Types>,
    state_machine: StateMachine,
}

/// Why a member did not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(std::io::Error),
    #[error("Raft does not start: {0}")]
    Raft(#[from] Box<Fatal<MetaId>>),
}

impl Member {
    pub(crate) async fn start(
        env: &Env,
        id: MetaId,
        backend: Arc<dyn LogBackend>,
        channels: Channels,
        options: MemberOptions,
    ) -> Result<Self, StartError> {
        let election = options.election.as_millis() as u64;
        let config = Config {
            cluster_name: "oteld-meta".to_owned(),
            heartbeat_interval: options.heartbeat.as_millis() as u64,
            election_timeout_min: election,
            election_timeout_max: election * 2,
            install_snapshot_timeout: 10_000,
            snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
            max_in_snapshot_log_to_keep: options.kept_entries,
            replication_lag_threshold: options.snapshot_entries * 2,
            ..Config::default()
        };
        let state_machine =
            StateMachine::open(env.clone(), options.snapshot).await.map_err(StartError::Snapshot)?;
        let promise = PromiseFile::new(env.disk.clone(), options.promise);
        let log = LogStore::new(backend, promise, env.tasks.clone());
        let raft = Raft::new(id, Arc::new(config), channels, log, state_machine.clone());
        let raft = with_random(env.random.clone(), raft).await.map_err(Box::new)?;
        Ok(Member { id, raft, state_machine })
    }

    pub(crate) fn metrics(&self) -> watch::Receiver<Metrics> {
        self.raft.metrics()
    }

    /// The state as of the last applied entry, and every later one.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state_machine.watch()
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// The leader that this member knows, if it is another one.
    pub(crate) fn other_leader(&self) -> Option<MetaNode> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader.filter(|leader| *leader != self.id)?;
        metrics.membership_config.membership().get_node(&leader).cloned()
    }

    /// Every known member, and whether it votes.
    pub(crate) fn members(&self) -> BTreeMap<MetaId, (MetaNode, bool)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<MetaId> = membership.voter_ids().collect();
        membership.nodes().map(|(id, node)| (*id, (node.clone(), voters.contains(id)))).collect()
    }

    /// Forms the group, once: a member that knows one already changes nothing.
    pub(crate) async fn form(&self, members: BTreeMap<MetaId, MetaNode>) -> Result<(), StartError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(Box::new(fatal).into()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                unreachable!("a founder forms the group with itself in it: {error}")
            }
        }
    }

    /// Commits a command and applies it.
    pub(crate) async fn write(&self, command: Command, timeout: Duration) -> Result<Written, WriteError> {
        if !self.leads() {
            return Err(WriteError::NotLeader);
        }
        let written = tokio::time::timeout(timeout, self.raft.client_write(command)).await;
        match written {
            Err(_) => Err(WriteError::Unknown(format!("not committed within {timeout:?}"))),
            Ok(Err(RaftError::Fatal(fatal))) => Err(WriteError::Unknown(fatal.to_string())),
            // openraft says so before an append, and also after one that a new leader overwrote on this member
            // but that may survive on others.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(WriteError::Unknown("the leader changed".to_owned()))
            }
            Ok(Err(RaftError::APIError(error))) => Err(WriteError::Unknown(error.to_string())),
            Ok(Ok(written)) => match written.data {
                Answer(Some(answer)) => Ok(Written { index: written.log_id.index, answer }),
                Answer(None) => unreachable!("a command always has an answer"),
            },
        }
    }

    /// The state, not older than this call.
    pub(crate) async fn read(&self, timeout: Duration) -> Result<AppliedState, ReadError> {
        if !self.leads() {
            return Err(ReadError::NotLeader);
        }
        if oteld_env::mutant("stale-metadata-read") {
            return Ok(self.state_machine.applied());
        }
        // A leader that restarts within its term goes on leading. It then knows neither how far the log was committed
        // before nor has it an entry of its own to wait for, so that openraft would show a state from before its end.
        // All that was ever committed is in a leader's log: the state of all of that is never too old.
        let last_in_log = self.raft.metrics().borrow().last_log_index;
        let last_in_log = last_in_log.filter(|_| !oteld_env::mutant("restarted-leader-reads-at-once"));
        let deadline = tokio::time::Instant::now() + timeout;
        match tokio::time::timeout_at(deadline, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => {}
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => {
                return Err(ReadError::NotLeader);
            }
            Ok(Err(error)) => return Err(ReadError::Unavailable(error.to_string())),
            Err(_) => {
                return Err(ReadError::Unavailable(format!("leadership not confirmed within {timeout:?}")));
            }
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let wait = self.raft.wait(Some(left));
        let applied = wait.applied_index_at_least(last_in_log, "a read is served").await;
        applied.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        Ok(self.state_machine.applied())
    }

    /// Adds a learner; it becomes a voter by [`Member::change_voters`].
    pub(crate) async fn add_learner(
        &self,
        id: MetaId,
        node: MetaNode,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        self.change(ChangeMembers::AddNodes([(id, node)].into()), timeout).await
    }

    /// Records another address of the same directory.
    pub(crate) async fn set_node(
        &self,
        id: MetaId,
        node: MetaNode,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        self.change(ChangeMembers::SetNodes([(id, node)].into()), timeout).await
    }

    /// Makes `voters` the voters; those that were and are not any more leave the group.
    pub(crate) async fn change_voters(
        &self,
        voters: BTreeSet<MetaId>,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters), timeout).await
    }

    /// Takes a learner out of the group.
    pub(crate) async fn remove_learner(&self, id: MetaId, timeout: Duration) -> Result<(), WriteError> {
        self.change(ChangeMembers::RemoveNodes([id].into()), timeout).await
    }

    async fn change(
        &self,
        changes: ChangeMembers<MetaId, MetaNode>,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        if !self.leads() {
            return Err(WriteError::NotLeader);
        }
        let retain = matches!(changes, ChangeMembers::AddNodes(_) | ChangeMembers::SetNodes(_));
        match tokio::time::timeout(timeout, self.raft.change_membership(changes, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(WriteError::Unknown(error.to_string())),
            Err(_) => Err(WriteError::Unknown(format!("not committed within {timeout:?}"))),
        }
    }

    /// Serves another member's RPC.
    pub(crate) async fn call(&self, call: RaftCall, packed: &[u8]) -> Result<Vec<u8>, CallError> {
        match call {
            RaftCall::AppendEntries => {
                Ok(pack(&self.raft.append_entries(rmp_serde::from_slice(packed)?).await))
            }
            RaftCall::Vote => Ok(pack(&self.raft.vote(rmp_serde::from_slice(packed)?).await)),
            RaftCall::InstallSnapshot => {
                Ok(pack(&self.raft.install_snapshot(rmp_serde::from_slice(packed)?).await))
            }
            RaftCall::Unspecified => Err(CallError::NoSuchCall),
        }
    }

    /// Ends the member's tasks.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "a Raft task did not end well");
        }
    }
}
