//! What the other parts of a node hold: the metadata, watched and changed. Every node has one, with or without
//! the meta role.

mod ask;
mod bootstrap;
pub mod client;
mod directory;
mod follow;
mod lead;
mod options;
mod retain;
mod service;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use oteld_env::Env;
use oteld_proto::meta::meta_server::MetaServer;
use oteld_proto::meta::{ProposeRequest, ReadRequest};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::command::{Applied, Command, Rejected};
use crate::ids::{Incarnation, NodeId};
use crate::raft::{AppliedState, Channels, MESSAGE_BYTES_MAX, Member, ReadError, WriteError};
use crate::state::ClusterState;
use ask::AskError;
use directory::Directory;

pub use crate::membership::Founder;
pub use directory::DirectoryError;
pub use options::{MetaLog, MetaOptions, MyNode, Timing};
pub use service::MetaService;
pub use status::{MemberStatus, Status};

/// How long a closed member's log may take to be let go by Raft's tasks.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_PAUSE: Duration = Duration::from_millis(5);

/// Why a command has no answer.
#[derive(Debug, Error)]
pub enum ProposeError {
    /// The state refuses it; nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It had no effect.
    #[error("no leader of the meta group was found: {0}")]
    NoLeader(String),
    /// It may be applied, now or later. Commands with move ids or expectations can be repeated.
    #[error("the command's outcome is unknown: {0}")]
    Unknown(String),
}

/// A linearizable read that found no confirmed leader in time.
#[derive(Debug, Error)]
#[error("the metadata cannot be read: {0}")]
pub struct ReadStateError(String);

/// A node's door to the metadata. Cheap to clone; the last one that is dropped ends its tasks.
#[derive(Clone)]
pub struct MetaHandle {
    inner: Arc<Inner>,
    tasks: Arc<Running>,
}

struct Inner {
    env: Env,
    my: MyNode,
    options: MetaOptions,
    dir: PathBuf,
    channels: Channels,
    /// The watched copy.
    state: watch::Sender<Arc<ClusterState>>,
    /// This node's id, once it is registered as it is.
    node_id: watch::Sender<Option<NodeId>>,
    /// Of a member's directory; `None` without the meta role.
    incarnation: Option<Incarnation>,
    /// The member was given an id, so that there is a group, whatever this process has found out about it.
    used: AtomicBool,
    /// The running member.
    member: watch::Sender<Option<Arc<Member>>>,
    /// The running member's directory.
    directory: Mutex<Option<Directory>>,
    /// Why the member stopped.
    failed: watch::Sender<Option<String>>,
    /// Where the leader was last found.
    leader: Mutex<Option<String>>,
    /// When the leader heard from each node, by name; meaningless on others.
    heartbeats: Mutex<BTreeMap<String, Heartbeat>>,
    /// Why the leader lets retention wait; meaningless on others.
    retention_waits: Mutex<Option<String>>,
}

/// What the leader heard from a node last.
struct Heartbeat {
    at: Instant,
    /// What the node's clock showed.
    time_unix_nano: u64,
}

struct Running(Mutex<Vec<JoinHandle<()>>>);

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.0.lock().drain(..) {
            task.abort();
        }
    }
}

impl MetaHandle {
    /// Opens the metadata in `dir`, which belongs to it alone, and takes part in the group in the background:
    /// with the meta role as a member (forming, starting in or joining the group), else as a watcher. Returns at
    /// once; the saved copy, if there is one, is the first state. Mount [`MetaHandle::service`] at
    /// `my.address`, or nobody finds this node.
    ///
    /// # Errors
    /// When the directory of a member cannot be used. A damaged one is set aside, and the member joins again
    /// under a new id.
    pub async fn open(
        env: Env,
        dir: &Path,
        my: MyNode,
        options: MetaOptions,
    ) -> Result<Self, DirectoryError> {
        let log = my.roles.meta.then(|| options.log.clone());
        let (saved, directory) = open_directory(&env, dir, log).await?;
        let inner = Arc::new(Inner {
            channels: Channels::new(env.net, &options.members),
            my,
            options,
            dir: dir.to_owned(),
            state: watch::Sender::new(Arc::new(saved.unwrap_or_default())),
            node_id: watch::Sender::new(None),
            incarnation: directory.as_ref().map(|directory| directory.incarnation),
            used: AtomicBool::new(directory.as_ref().is_some_and(|directory| directory.was_given_id)),
            member: watch::Sender::new(None),
            directory: Mutex::new(None),
            failed: watch::Sender::new(None),
            leader: Mutex::new(None),
            heartbeats: Mutex::new(BTreeMap::new()),
            retention_waits: Mutex::new(None),
            env,
        });
        let spawner = inner.env.tasks.clone();
        let mut tasks = vec![
            spawner.spawn(follow::save(inner.clone())),
            spawner.spawn(follow::follow(inner.clone())),
            spawner.spawn(follow::register(inner.clone())),
            spawner.spawn(follow::heartbeat(inner.clone())),
        ];
        if let Some(directory) = directory {
            tasks.push(spawner.spawn(bootstrap::run(inner.clone(), directory)));
            tasks.push(spawner.spawn(lead::run(inner.clone())));
            tasks.push(spawner.spawn(status::say_leader(inner.clone())));
        }
        Ok(MetaHandle { inner, tasks: Arc::new(Running(Mutex::new(tasks))) })
    }

    /// The gRPC service that others reach this node's part of the group by.
    pub fn service(&self) -> MetaServer<MetaService> {
        MetaServer::new(MetaService { inner: self.inner.clone() })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Commits a command, through whoever leads.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.inner.propose(command).await
    }

    /// The state, not older than this call.
    pub async fn read(&self) -> Result<Arc<ClusterState>, ReadStateError> {
        let inner = &self.inner;
        let timeout = inner.options.timing.propose;
        if let Some(member) = inner.member() {
            match member.read(timeout).await {
                Ok(applied) => return Ok(applied.state),
                Err(ReadError::NotLeader) => {}
                Err(ReadError::Unavailable(why)) => tracing::debug!(why, "reads elsewhere"),
            }
        }
        let ask = inner.ask_leader(timeout, true, |mut client| async move {
            ask::read(client.read(ReadRequest {}).await?.into_inner())
        });
        let AppliedState { state, .. } = ask.await.map_err(|error| ReadStateError(error.to_string()))?;
        let known = inner.state.borrow().cluster;
        if known.is_some() && known != state.cluster {
            return Err(ReadStateError("the members belong to another cluster".to_owned()));
        }
        inner.publish(state.clone());
        Ok(state)
    }

    /// The last known state and every later one. It never goes back, and is there without the group.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.inner.state.subscribe()
    }

    /// The last known state.
    pub fn state(&self) -> Arc<ClusterState> {
        self.inner.state.borrow().clone()
    }

    /// This node's id; waits until the group has registered it as it is.
    pub async fn node_id(&self) -> NodeId {
        let mut ids = self.inner.node_id.subscribe();
        let id = ids.wait_for(Option::is_some).await.ok().and_then(|id| *id);
        id.expect("the sender lives in this handle")
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn leads(&self) -> bool {
        self.inner.member().is_some_and(|member| member.leads())
    }

    /// Waits until the member of this process has stopped for good, and says why: its disk failed. The node
    /// should end then.
    pub async fn failed(&self) -> String {
        let mut failures = self.inner.failed.subscribe();
        let why = failures.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.expect("the sender lives in this handle")
    }

    /// The group as the leader sees it, or as any member does; `None` where none answers.
    pub async fn status(&self) -> Option<Status> {
        status::ask(&self.inner).await
    }

    /// The group as the member of this process knows it; `None` where there is none.
    pub fn own_status(&self) -> Option<Status> {
        let own = status::message(&self.inner);
        (own.member != 0).then(|| own.into())
    }

    /// Ends this node's part in the group and lets go of its directory.
    pub async fn close(self) {
        let tasks: Vec<JoinHandle<()>> = self.tasks.0.lock().drain(..).collect();
        for task in tasks {
            task.abort();
            let _ended = task.await;
        }
        let member = self.inner.member.send_replace(None);
        if let Some(member) = member {
            member.stop().await;
        }
        let Some(directory) = self.inner.directory.lock().take() else { return };
        let log = Arc::downgrade(&directory.log);
        drop(directory);
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while log.strong_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
    }
}

/// The saved copy and, with a log, the member's directory. Waits a little for whoever is just closing it.
async fn open_directory(
    env: &Env,
    dir: &Path,
    log: Option<MetaLog>,
) -> Result<(Option<ClusterState>, Option<Directory>), DirectoryError> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        let (opened, log) = ((env.clone(), dir.to_owned()), log.clone());
        let work = move || {
            let (env, dir) = &opened;
            env.disk.create_dir_all(dir)?;
            let directory = log.map(|log| Directory::open(env, dir, &log)).transpose()?;
            Ok((follow::load(env, dir), directory))
        };
        match env.tasks.blocking(work).await {
            Err(DirectoryError::InUse(_)) if Instant::now() < deadline => {
                tokio::time::sleep(CLOSE_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

impl Inner {
    fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// The cluster's id as messages carry it; empty while this node does not know one.
    fn cluster_bytes(&self) -> Bytes {
        let cluster = self.state.borrow().cluster;
        cluster.map(|id| Bytes::copy_from_slice(&id.0.to_be_bytes())).unwrap_or_default()
    }

    fn heard_from(&self, name: String, time_unix_nano: u64) {
        if self.state.borrow().node_by_name(&name).is_some() {
            self.heartbeats.lock().insert(name, Heartbeat { at: Instant::now(), time_unix_nano });
        }
    }

    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let timeout = self.options.timing.propose;
        if let Some(member) = self.member() {
            match member.write(command.clone(), timeout).await {
                Ok(written) => {
                    self.publish(member.watch().borrow().clone());
                    return Ok(written.answer?);
                }
                Err(WriteError::NotLeader) => {}
                Err(WriteError::Unknown(why)) => return Err(ProposeError::Unknown(why)),
            }
        }
        let packed = rmp_serde::to_vec_named(&command).expect("a command always packs into memory");
        let packed = Bytes::from(packed);
        let ask = self.ask_leader(timeout, false, |mut client| {
            let request = ProposeRequest { packed: packed.clone(), cluster: self.cluster_bytes() };
            async move { ask::proposed(client.propose(request).await?.into_inner()) }
        });
        match ask.await {
            Ok(written) => Ok(written.answer?),
            Err(AskError::NoLeader(why)) => Err(ProposeError::NoLeader(why)),
            Err(AskError::Unknown(why)) => Err(ProposeError::Unknown(why)),
        }
    }
}

#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;
