//! What the parts of an open store share: the published state under one lock, and the one way to change the
//! manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use oteld_env::Env;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore, mpsc, watch};

use crate::append::Command;
use crate::definitions::Definitions;
use crate::error::{AppendError, StoreError};
use crate::floors::Floors;
use crate::ids::IdIndex;
use crate::leave::Left;
use crate::manifest::log::ManifestLog;
use crate::manifest::{FenceEntry, Manifest};
use crate::memtable::Memtable;
use crate::model::{Shard, Signal, Window};
use crate::options::StoreOptions;
use crate::position::{Boot, Cursor, Position, Prefix, ReplicaId};
use crate::segments::{Loss, OpenSegment, SegmentSet, Trash, note_loss};
use crate::tail::TailIndex;
use crate::wal::WalEnd;
use crate::wal::writer::is_full;

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

impl WriteState {
    /// Why no writes are taken.
    pub(crate) fn read_only(&self) -> Option<String> {
        match self {
            WriteState::Open => None,
            WriteState::Full(reason) | WriteState::Failed(reason) => Some(reason.clone()),
            WriteState::Closed => Some("the store is closed".to_owned()),
        }
    }
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
    pub left: Arc<Left>,
    pub entries: BTreeMap<Shard, FenceEntry>,
    pub cursors: BTreeMap<ReplicaId, BTreeMap<Shard, Cursor>>,
    pub cluster: Option<u128>,
    /// Where each boot that is over ended.
    pub ends: BTreeMap<u64, u64>,
    /// Of every boot, the running one included.
    pub nonces: BTreeMap<u64, u64>,
    /// Changed by [`State::set_writes`].
    pub writes: WriteState,
    /// Why no writes are taken, for those who wait for it.
    pub read_only: watch::Sender<Option<String>>,
    pub wal_end: WalEnd,
    pub counters: Counters,
}

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub flushes: u64,
    pub compactions: u64,
    pub segments_installed: u64,
    pub shards_left: u64,
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

    /// The prefix of this store's own log that ends at a position; none where it has no such boot.
    pub(crate) fn prefix(&self, position: Position) -> Option<Prefix> {
        match position.boot {
            0 => Some(Prefix::default()),
            boot => self.nonces.get(&boot).map(|nonce| position.in_boot(*nonce)),
        }
    }

    /// Whether a prefix is one of this store's own log, as far as that goes.
    pub(crate) fn has_published(&self, prefix: &Prefix) -> bool {
        let end = self.ends.get(&prefix.boot).copied();
        let end = end.or((prefix.boot == self.position.boot).then_some(self.position.n));
        let is_own = self.prefix(prefix.position()) == Some(*prefix);
        prefix.boot == 0 || is_own && end.is_some_and(|end| prefix.n <= end)
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
            self.set_writes(WriteState::Failed(reason.to_owned()));
        }
    }

    pub(crate) fn set_writes(&mut self, writes: WriteState) {
        self.read_only.send_replace(writes.read_only());
        self.writes = writes;
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
    pub loss: Loss,
    /// Whether the loss is in the manifest.
    pub loss_recorded: OnceCell<Result<(), StoreError>>,
    /// Wakes the task that flushes.
    pub wake_flush: Notify,
    /// Wakes the task that merges and deletes.
    pub wake_compaction: Notify,
    /// Held while memtables are flushed.
    pub flushing: tokio::sync::Mutex<()>,
    /// Held while segments are merged or deleted.
    pub compacting: tokio::sync::Mutex<()>,
    /// Held while the segments of a memtable are written, by the work itself.
    pub writing: Arc<tokio::sync::Mutex<()>>,
    /// Held while received segments get their names, by the work itself.
    pub naming: Arc<tokio::sync::Mutex<()>>,
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
        "data that was synced is missing: {what}. This replica must not go on under its identity. A restart sets its \
         directory aside and begins with an empty one, as a new replica that gets its shards from the others"
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
        let _compacting = self.compacting.lock().await;
        let _flushing = self.flushing.lock().await;
        let _writing = self.writing.lock().await;
        let _naming = self.naming.lock().await;
        let _loading = self.loading.lock().await;
        self.lock.lock().take();
    }

    /// See [`crate::Store::lose`].
    pub(crate) async fn lose(self: &Arc<Self>, what: &str) -> Result<(), StoreError> {
        if note_loss(&self.loss, || what.to_owned()) { self.record_loss().await } else { Ok(()) }
    }

    /// Waits for a loss, and records it.
    pub(crate) async fn record_next_loss(self: &Arc<Self>) {
        // The sender lives as long as the engine.
        let _ = self.loss.subscribe().wait_for(Option::is_some).await;
        if let Err(error) = self.record_loss().await {
            tracing::error!(%error, "cannot record that this store lost data; it is found again after a restart");
        }
    }

    /// Makes the loss durable and ends writing, once.
    async fn record_loss(self: &Arc<Self>) -> Result<(), StoreError> {
        let record = async || {
            let Some(what) = self.loss.borrow().clone() else { return Ok(()) };
            let text = lost_text(&what);
            let mark = move |manifest: &mut Manifest| {
                manifest.lost.is_none() && manifest.lost.replace(what).is_none()
            };
            let marked = self.commit(mark, |_| ()).await;
            self.state.lock().fail(&text);
            marked.map(drop)
        };
        self.loss_recorded.get_or_init(record).await.clone()
    }

    /// Commits a change of the manifest, then shows it in the published state, both or none, and also when the
    /// caller goes away meanwhile. `change` says whether there is anything to commit; where it says no, nothing is
    /// shown either, and the outcome is `None`.
    ///
    /// # Errors
    /// Those of the disk. One that is not a full disk leaves it open which manifest counts, and ends writing.
    pub(crate) async fn commit<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Manifest) -> bool + Send + 'static,
        publish: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
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
            if !change(&mut next) {
                return Ok(None);
            }
            log.commit(next).map_err(|error| {
                let reason = format!("cannot write the manifest: {error}");
                if !is_full(&error) {
                    engine.state.lock().fail(&reason);
                }
                StoreError::ReadOnly { reason }
            })?;
            let published = publish(&mut engine.state.lock());
            drop(log);
            Ok(Some(published))
        };
        self.env.tasks.blocking(work).await
    }
}
