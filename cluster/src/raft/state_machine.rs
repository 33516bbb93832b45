//! The state in memory and its last snapshot on disk: after a start, Raft applies the log beyond the snapshot
//! again.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError, StorageIOError,
    StoredMembership,
};
use oteld_env::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Answer, AppliedState, LogId, Types, pack};
use crate::checked_file;
use crate::ids::MetaId;
use crate::membership::MetaNode;
use crate::state::ClusterState;

type Snapshot = openraft::Snapshot<Types>;

/// The replicated state of one member. Clones are the same one.
#[derive(Clone)]
pub(crate) struct StateMachine {
    env: Env,
    /// The snapshot's file.
    path: PathBuf,
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<Saved>>>,
    publish: Arc<watch::Sender<Arc<ClusterState>>>,
}

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership<MetaId, MetaNode>,
    state: Arc<ClusterState>,
}

/// A snapshot as it is on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    meta: SnapshotMeta<MetaId, MetaNode>,
    #[serde(with = "serde_bytes_vec")]
    state: Vec<u8>,
}

/// Bytes as MessagePack's own bytes, not as a list of numbers.
mod serde_bytes_vec {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(Bytes::deserialize(deserializer)?.into())
    }
}

impl StateMachine {
    /// Starts from the snapshot in the file, if there is one.
    ///
    /// # Errors
    /// When the file is there and cannot be trusted.
    pub(crate) async fn open(env: Env, path: PathBuf) -> std::io::Result<Self> {
        let (disk, file) = (env.disk.clone(), path.clone());
        let bytes = env.tasks.blocking(move || checked_file::read(&*disk, &file)).await?;
        let mut applied = Applied::default();
        let mut snapshot = None;
        if let Some(bytes) = bytes {
            let saved: Saved = rmp_serde::from_slice(&bytes).map_err(std::io::Error::other)?;
            applied = restored(&saved).map_err(std::io::Error::other)?;
            snapshot = Some(saved);
        }
        let publish = Arc::new(watch::Sender::new(applied.state.clone()));
        let (applied, snapshot) = (Arc::new(Mutex::new(applied)), Arc::new(Mutex::new(snapshot)));
        Ok(StateMachine { env, path, applied, snapshot, publish })
    }

    /// The state as of the last applied entry, and every later one.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.publish.subscribe()
    }

    /// The state as of the last applied entry.
    pub(crate) fn applied(&self) -> AppliedState {
        let applied = self.applied.lock();
        AppliedState { index: applied.last.map_or(0, |last| last.index), state: applied.state.clone() }
    }

    async fn save(&self, saved: Saved) -> Result<(), StorageError<MetaId>> {
        let signature = saved.meta.signature();
        let (disk, path, bytes) = (self.env.disk.clone(), self.path.clone(), pack(&saved));
        let written = self.env.tasks.blocking(move || checked_file::write(&*disk, &path, &bytes)).await;
        written.map_err(|error| StorageIOError::write_snapshot(Some(signature), AnyError::new(&error)))?;
        *self.snapshot.lock() = Some(saved);
        Ok(())
    }
}

fn restored(saved: &Saved) -> Result<Applied, rmp_serde::decode::Error> {
    Ok(Applied {
        last: saved.meta.last_log_id,
        membership: saved.meta.last_membership.clone(),
        state: Arc::new(ClusterState::decode(&saved.state)?),
    })
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError<MetaId>> {
        let applied = self.applied.lock().clone();
        let snapshot_id = applied.last.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        let meta =
            SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership, snapshot_id };
        let saved = Saved { meta, state: applied.state.encode() };
        let snapshot = readable(&saved);
        self.save(saved).await?;
        Ok(snapshot)
    }
}

fn readable(saved: &Saved) -> Snapshot {
    Snapshot { meta: saved.meta.clone(), snapshot: Box::new(Cursor::new(saved.state.clone())) }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = StateMachine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<MetaId, MetaNode>), StorageError<MetaId>> {
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError<MetaId>>
    where
        I: IntoIterator<Item = openraft::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock();
        let mut answers = Vec::new();
        let mut next = applied.state.clone();
        for entry in entries {
            applied.last = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => {
                    Some(Arc::make_mut(&mut next).apply(entry.log_id.index, command))
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
            };
            answers.push(Answer(answer));
        }
        if next.changed_at != applied.state.changed_at {
            applied.state = next;
            self.publish.send_replace(applied.state.clone());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<MetaId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<MetaId, MetaNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<MetaId>> {
        let saved = Saved { meta: meta.clone(), state: snapshot.into_inner() };
        let applied = restored(&saved)
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&error)))?;
        self.save(saved).await?;
        let state = applied.state.clone();
        *self.applied.lock() = applied;
        self.publish.send_replace(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError<MetaId>> {
        Ok(self.snapshot.lock().as_ref().map(readable))
    }
}
