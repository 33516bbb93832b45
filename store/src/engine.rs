//! What the parts of an open store share: the published state under one lock, and the one way to change the
//! manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use oteld_env::Env;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::append::Command;
use crate::definitions::Definitions;
use crate::error::{AppendError, StoreError};
use crate::ids::IdIndex;
use crate::manifest::log::ManifestLog;
use crate::manifest::{FenceEntry, Manifest};
use crate::memtable::Memtable;
use crate::model::{Shard, Signal, Tenant, Window};
use crate::options::StoreOptions;
use crate::position::{Boot, Position, ReplicaId};
use crate::segments::{OpenSegment, SegmentSet, Trash};
use crate::tail::TailIndex;
use crate::wal::WalEnd;
use crate::wal::writer::is_full;

/// Retention floors, as the manifest holds them.
pub(crate) type Floors = BTreeMap<Signal, BTreeMap<Tenant, u64>>;

/// Event time below which rows of a tenant do not exist.
pub(crate) fn floor_of(floors: &Floors, signal: Signal, tenant: &Tenant) -> u64 {
    floors.get(&signal).and_then(|tenants| tenants.get(tenant)).copied().unwrap_or(0)
}

/// Whether appends are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteState {
    Open,
    /// The disk was full at the last attempt; the next append tries again.
    Full(String),
    /// A write or fsync failed: until a restart.
    Failed(String),
    Closed,
}

/// A memtable that takes no more parts and waits for its segments.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub memtable: Memtable,
    /// WAL files below hold nothing that is not in this memtable or in segments.
    pub wal_floor: u64,
    /// Its segments, durable and in no manifest yet: a commit that failed is tried again with them.
    pub written: Mutex<Option<Vec<Arc<OpenSegment>>>>,
}

/// Everything that is published. One lock, so that a part, its id and its position appear in one step (A4).
#[derive(Debug)]
pub(crate) struct State {
    pub ids: IdIndex,
    pub memtable: Memtable,
    /// Oldest first.
    pub frozen: Vec<Arc<Frozen>>,
    pub segments: Arc<SegmentSet>,
    pub tail: TailIndex,
    /// Everything up to it is published.
    pub position: Position,
    pub floors: Arc<Floors>,
    pub entries: BTreeMap<Shard, FenceEntry>,
    pub cursors: BTreeMap<ReplicaId, BTreeMap<Shard, Position>>,
    pub cluster: Option<u128>,
    pub ends: BTreeMap<u64, u64>,
    pub writes: WriteState,
    pub wal_end: WalEnd,
    pub counters: Counters,
}

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub flushes: u64,
    pub compactions: u64,
    pub segments_installed: u64,
    pub wal_groups: u64,
    pub torn_bytes: u64,
    /// Why the last attempt failed, of the tasks whose last attempt did.
    pub maintenance_errors: BTreeMap<&'static str, String>,
}

impl State {
    /// Windows with ids that no segment has.
    pub(crate) fn unflushed_windows(&self) -> std::collections::BTreeSet<(Signal, Window)> {
        let mut windows = self.memtable.windows();
        self.frozen.iter().for_each(|frozen| windows.extend(frozen.memtable.windows()));
        windows
    }

    /// Bytes of all memtables.
    pub(crate) fn memtable_bytes(&self) -> u64 {
        self.memtable.bytes() + self.frozen.iter().map(|frozen| frozen.memtable.bytes()).sum::<u64>()
    }

    /// Windows of event time with rows in memtables, roughly.
    pub(crate) fn memtable_windows(&self) -> usize {
        self.memtable.window_count()
            + self.frozen.iter().map(|frozen| frozen.memtable.window_count()).sum::<usize>()
    }

    /// Ends writing until a restart; the first reason stays.
    pub(crate) fn fail(&mut self, reason: &str) {
        if !matches!(self.writes, WriteState::Failed(_) | WriteState::Closed) {
            tracing::error!(reason, "the store takes no writes until it is restarted");
            self.writes = WriteState::Failed(reason.to_owned());
        }
    }
}

/// An open store, shared by its callers and tasks.
#[derive(Debug)]
pub(crate) struct Engine {
    pub env: Env,
    pub options: StoreOptions,
    pub replica: ReplicaId,
    pub boot: Boot,
    pub state: Mutex<State>,
    pub manifest: Arc<tokio::sync::Mutex<ManifestLog>>,
    pub definitions: Mutex<Definitions>,
    pub queue: mpsc::Sender<Command>,
    pub queue_bytes: Arc<Semaphore>,
    pub position: watch::Sender<Position>,
    /// What was found missing, once synced data was lost (PROTOCOL, LOSS).
    pub lost: watch::Sender<Option<String>>,
    /// Wakes the task that flushes.
    pub wake_flush: Notify,
    /// Wakes the task that merges and deletes.
    pub wake_compaction: Notify,
    /// Held while memtables are flushed.
    pub flushing: tokio::sync::Mutex<()>,
    /// Held while segments are merged or deleted.
    pub compacting: tokio::sync::Mutex<()>,
    /// Held while ids are loaded, and while segments with new ids are published. Taken before `manifest`.
    pub loading: Arc<tokio::sync::Mutex<()>>,
    /// The next segment's number.
    pub next_segment: AtomicU64,
    pub trash: Trash,
    /// Given up when the store is closed, whoever still holds it.
    pub lock: Mutex<Option<DirectoryLock>>,
}

/// Why a replica that lost synced data serves nobody, and what to do.
pub(crate) fn lost_text(what: &str) -> String {
    format!(
        "data that was synced is missing: {what}. This replica must not go on under its identity. Move the store's \
         directory away and restart with an empty one: the node then joins as a new replica. The shards of the lost \
         one have a replica less until they are moved to a node, which does not happen by itself yet"
    )
}

/// Keeps a second process out of the data directory.
pub(crate) struct DirectoryLock(#[allow(dead_code, reason = "held, not used")] pub Box<dyn Send + Sync>);

impl std::fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectoryLock")
    }
}

/// Subdirectories of the data directory.
pub(crate) fn wal_dir(options: &StoreOptions) -> PathBuf {
    options.dir.join("wal")
}

pub(crate) fn segments_dir(options: &StoreOptions) -> PathBuf {
    options.dir.join("segments")
}

impl Engine {
    /// Why writes are refused right now, if they are for longer than the next attempt.
    pub(crate) fn refuses(&self) -> Result<(), AppendError> {
        match &self.state.lock().writes {
            WriteState::Open | WriteState::Full(_) => Ok(()),
            WriteState::Failed(reason) => Err(AppendError::ReadOnly { reason: reason.clone() }),
            WriteState::Closed => Err(AppendError::Closed),
        }
    }

    /// Whether the active memtable has enough for its segments.
    pub(crate) fn is_memtable_full(&self, state: &State) -> bool {
        state.memtable.bytes() > self.options.memtable_bytes_max
            || state.memtable.window_count() > self.options.memtable_windows_max
    }

    /// Why parts cannot be taken before a flush has made room.
    pub(crate) fn is_behind(&self, state: &State) -> Option<String> {
        let (bytes_max, windows_max) =
            (self.options.memtable_bytes_max.saturating_mul(2), self.options.memtable_windows_max * 2);
        if state.memtable_bytes() > bytes_max {
            return Some(format!("unflushed data takes more than {bytes_max} bytes"));
        }
        let windows = state.memtable_windows();
        (windows > windows_max).then(|| {
            format!("unflushed data lies in {windows} windows of event time, more than {windows_max}")
        })
    }

    /// Before anything is changed in the directory, under the lock of that kind of change, so that a closed store
    /// leaves it to the next one.
    pub(crate) fn is_not_closed(&self) -> Result<(), StoreError> {
        if self.state.lock().writes == WriteState::Closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Lets another store open the directory, once nothing here changes it any more.
    pub(crate) async fn unlock(&self) {
        let _flushing = self.flushing.lock().await;
        let _compacting = self.compacting.lock().await;
        let _loading = self.loading.lock().await;
        self.lock.lock().take();
    }

    /// See [`crate::Store::lose`].
    pub(crate) async fn lose(self: &Arc<Self>, what: &str) -> Result<(), StoreError> {
        let is_first = self.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            lost.get_or_insert_with(|| what.to_owned());
            is_first
        });
        if !is_first {
            return Ok(());
        }
        let mark = what.to_owned();
        let marked = self.commit(move |manifest| manifest.lost.replace(mark).is_none(), |_| ()).await;
        self.state.lock().fail(&lost_text(what));
        marked
    }

    /// Commits a change of the manifest, then shows it in the published state, both or none, and also when the
    /// caller goes away meanwhile. `change` says whether there is anything to commit.
    ///
    /// # Errors
    /// Those of the disk. One that is not a full disk leaves it open which manifest counts, and ends writing.
    pub(crate) async fn commit<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Manifest) -> bool + Send + 'static,
        publish: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut log = self.manifest.clone().lock_owned().await;
        let engine = self.clone();
        let work = move || {
            let mut next = log.current().clone();
            {
                let state = engine.state.lock();
                match &state.writes {
                    WriteState::Failed(reason) => {
                        return Err(StoreError::ReadOnly { reason: reason.clone() });
                    }
                    WriteState::Closed => return Err(StoreError::Closed),
                    WriteState::Open | WriteState::Full(_) => {}
                }
                next.cursors = state.cursors.clone();
                next.wal_end = state.wal_end;
            }
            if change(&mut next) {
                log.commit(next).map_err(|error| {
                    let reason = format!("cannot write the manifest: {error}");
                    if !is_full(&error) {
                        engine.state.lock().fail(&reason);
                    }
                    StoreError::ReadOnly { reason }
                })?;
            }
            let published = publish(&mut engine.state.lock());
            drop(log);
            Ok(published)
        };
        self.env.tasks.blocking(work).await
    }
}
