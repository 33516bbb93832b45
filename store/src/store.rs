//! The store of one node: what the rest of oteld calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use oteld_env::Env;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::append::{self, Appended, Command};
use crate::batch::Batch;
use crate::engine::{Engine, WriteState};
use crate::error::{AppendError, OpenError, StoreError};
use crate::floors::Floors;
use crate::ids::Origin;
use crate::leave::{Leaving, LeftBefore};
use crate::manifest::FenceEntry;
use crate::model::{Shard, Signal, Tenant, Window};
use crate::options::StoreOptions;
use crate::position::{Boot, Position, Prefix, ReplicaId};
use crate::recovery::{self, Recovered};
use crate::scan::pin::Pin;
use crate::segment::SegmentInfo;
use crate::snapshot::{HeldIds, Incoming, SegmentOffer, Snapshot};
use crate::status::StoreStatus;
use crate::{maintenance, wal_task};

/// The store of one node. Cheap to clone; dropped without [`Store::close`] it stops as after a crash.
#[derive(Clone, Debug)]
pub struct Store(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tasks.lock().iter().for_each(JoinHandle::abort);
    }
}

impl Store {
    /// Opens the store in `options.dir`, or makes one: locks it, recovers what was durable, and starts a new
    /// boot that is durable before this returns.
    ///
    /// # Errors
    /// Where the directory is in use, cannot be read, or lost what was synced. Each error says what to do.
    pub async fn open(env: Env, options: StoreOptions) -> Result<Store, OpenError> {
        let (inner_env, inner_options) = (env.clone(), options.clone());
        let recovered = env.tasks.blocking(move || recovery::recover(&inner_env, &inner_options)).await?;
        Ok(Store::start(&env, options, recovered))
    }

    /// Opens what is left of a store for which [`Store::open`] said that it lost `what`. It says who the replica is,
    /// shows no rows and takes none; [`Store::lost`] says why.
    ///
    /// # Errors
    /// Where the manifest itself cannot be read.
    pub async fn open_lost(env: Env, options: StoreOptions, what: &str) -> Result<Store, OpenError> {
        let (inner_env, inner_options, inner_what) = (env.clone(), options.clone(), what.to_owned());
        let open = move || recovery::recover_lost(&inner_env, &inner_options, &inner_what);
        let recovered = env.tasks.blocking(open).await?;
        Ok(Store::start(&env, options, recovered))
    }

    fn start(env: &Env, options: StoreOptions, recovered: Recovered) -> Store {
        let Recovered { state, manifest, wal, boot, definitions, trash, loss, lock } = recovered;
        let (queue, receiver) = append::queue(options.wal_queue_max);
        let room = append::queue_units_max(options.wal_queue_bytes_max) as usize;
        let engine = Arc::new(Engine {
            replica: manifest.current().replica,
            next_segment: AtomicU64::new(manifest.current().next_segment),
            boot,
            position: watch::channel(state.position).0,
            loss,
            loss_recorded: OnceCell::new(),
            state: Mutex::new(state),
            manifest: Arc::new(tokio::sync::Mutex::new(manifest)),
            definitions: Mutex::new(definitions),
            queue,
            queue_bytes: Arc::new(Semaphore::new(room)),
            wake_flush: tokio::sync::Notify::new(),
            wake_compaction: tokio::sync::Notify::new(),
            flushing: tokio::sync::Mutex::new(()),
            compacting: tokio::sync::Mutex::new(()),
            writing: Arc::new(tokio::sync::Mutex::new(())),
            naming: Arc::new(tokio::sync::Mutex::new(())),
            loading: Arc::new(tokio::sync::Mutex::new(())),
            trash,
            lock: Mutex::new(Some(lock)),
            env: env.clone(),
            options,
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        if let Some(wal) = wal {
            tasks.push(env.tasks.spawn(wal_task::run(engine.clone(), receiver, wal)));
            tasks.push(env.tasks.spawn(maintenance::record_loss(engine.clone(), stopped.clone())));
            if engine.options.background {
                // The log may have filled the memtable.
                engine.wake_flush.notify_one();
                tasks.push(env.tasks.spawn(maintenance::run_flushes(engine.clone(), stopped.clone())));
                tasks.push(env.tasks.spawn(maintenance::run_compactions(engine.clone(), stopped)));
            }
        }
        Store(Arc::new(Handle { engine, tasks: Mutex::new(tasks), stop }))
    }

    /// Why this replica may not serve under its identity any more, and what to do; `None` while it may.
    pub fn lost(&self) -> Option<String> {
        self.engine().loss.borrow().as_deref().map(crate::engine::lost_text)
    }

    /// Waits until the replica has lost synced data; gives what [`Store::lost`] says.
    pub async fn until_lost(&self) -> String {
        let mut lost = self.engine().loss.subscribe();
        // The sender lives as long as this store.
        let _ = lost.wait_for(Option::is_some).await;
        self.lost().unwrap_or_default()
    }

    /// Waits until no writes are taken, for now or for good; gives why.
    pub async fn until_read_only(&self) -> String {
        let mut read_only = self.engine().state.lock().read_only.subscribe();
        // The sender lives as long as this store.
        let reason = read_only.wait_for(Option::is_some).await;
        reason.map(|reason| reason.clone()).ok().flatten().unwrap_or_default()
    }

    /// Records, durably, that synced data was lost here (PROTOCOL, LOSS): from now on nothing is appended and
    /// nothing tailed, and the next [`Store::open`] refuses. What was found first stays.
    ///
    /// # Errors
    /// Where it could not be made durable; it holds until the next start then.
    pub async fn lose(&self, what: &str) -> Result<(), StoreError> {
        self.engine().lose(what).await
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// Who this replica is.
    pub fn replica(&self) -> ReplicaId {
        self.engine().replica
    }

    /// Which life of the replica this is.
    pub fn boot(&self) -> Boot {
        self.engine().boot
    }

    /// The cluster that the data belongs to, once it is known.
    pub fn cluster_id(&self) -> Option<u128> {
        self.engine().state.lock().cluster
    }

    /// Binds the data to a cluster, durably.
    ///
    /// # Errors
    /// [`StoreError::OtherCluster`] where it belongs to another one.
    pub async fn set_cluster_id(&self, cluster: u128) -> Result<(), StoreError> {
        match self.cluster_id() {
            Some(known) if known == cluster => return Ok(()),
            Some(known) => return Err(StoreError::OtherCluster(known)),
            None => {}
        }
        self.engine()
            .commit(
                move |manifest| manifest.cluster.is_none() && manifest.cluster.replace(cluster).is_none(),
                move |state| state.cluster = Some(cluster),
            )
            .await?;
        // Another call may have come first.
        match self.cluster_id() {
            Some(known) if known != cluster => Err(StoreError::OtherCluster(known)),
            _ => Ok(()),
        }
    }

    /// The highest entry of the shard map that was ever learnt for `shard`: the fence.
    pub fn entry(&self, shard: Shard) -> Option<FenceEntry> {
        self.engine().state.lock().entries.get(&shard).cloned()
    }

    /// All fences.
    pub fn entries(&self) -> BTreeMap<Shard, FenceEntry> {
        self.engine().state.lock().entries.clone()
    }

    /// Raises fences, durably before this returns; those whose epoch is not greater are ignored.
    ///
    /// # Errors
    /// Those of the disk; no fence was raised then.
    pub async fn raise_entries(&self, raised: BTreeMap<Shard, FenceEntry>) -> Result<(), StoreError> {
        let newer =
            |known: Option<&FenceEntry>, entry: &FenceEntry| known.is_none_or(|k| k.epoch < entry.epoch);
        {
            let state = self.engine().state.lock();
            if !raised.iter().any(|(shard, entry)| newer(state.entries.get(shard), entry)) {
                return Ok(());
            }
        }
        let published = raised.clone();
        let disk = &self.engine().env.disk;
        disk.reach("entry.before_commit");
        self.engine()
            .commit(
                move |manifest| {
                    let before = manifest.entries.clone();
                    for (shard, entry) in raised {
                        if newer(manifest.entries.get(&shard), &entry) {
                            manifest.entries.insert(shard, entry);
                        }
                    }
                    manifest.entries != before
                },
                move |state| {
                    for (shard, entry) in published {
                        if newer(state.entries.get(&shard), &entry) {
                            state.entries.insert(shard, entry);
                        }
                    }
                },
            )
            .await?;
        disk.reach("entry.after_commit");
        Ok(())
    }

    /// Raises one fence, see [`Store::raise_entries`].
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn raise_entry(&self, shard: Shard, entry: FenceEntry) -> Result<(), StoreError> {
        self.raise_entries(BTreeMap::from([(shard, entry)])).await
    }

    /// Appends the chosen parts of a batch (PROTOCOL, A1 to A4). Answers in the order of `parts`, when all of
    /// them are durable and published here, or known not to be.
    ///
    /// # Errors
    /// None of the parts that were new is acknowledged then.
    pub async fn append(&self, batch: &Batch, parts: &[usize]) -> Result<Vec<Appended>, AppendError> {
        self.engine().append(batch, parts, Origin::Client).await
    }

    /// Appends parts that a peer accepted, as [`Store::append`] does, but stores a part also where its request id
    /// is known with another body: items with equal keys are one, the greatest value wins (PROTOCOL, failure 14).
    /// Never answers [`Appended::Conflict`].
    ///
    /// # Errors
    /// None of the parts that were new may be passed over by a cursor then.
    pub async fn append_pulled(&self, batch: &Batch, parts: &[usize]) -> Result<Vec<Appended>, AppendError> {
        self.engine().append(batch, parts, Origin::Peer).await
    }

    /// Everything up to it is published.
    pub fn position(&self) -> Position {
        self.engine().state.lock().position
    }

    /// The prefix of this store's log that is published.
    pub fn published(&self) -> Prefix {
        self.published_up_to(self.position())
    }

    /// The prefix of this store's log that ends at `position`, which it published.
    ///
    /// # Panics
    /// Where it never had the position's boot.
    pub fn published_up_to(&self, position: Position) -> Prefix {
        let prefix = self.engine().state.lock().prefix(position);
        prefix.expect("the boot of a position that this store gave is known")
    }

    /// Whether `prefix` is one of this store's own log, as far as that goes.
    pub fn has_published(&self, prefix: &Prefix) -> bool {
        self.engine().state.lock().has_published(prefix)
    }

    /// Waits until something after `after` is published.
    pub async fn wait_position_beyond(&self, after: Position) {
        let mut position = self.engine().position.subscribe();
        // The sender lives as long as this store.
        let _ = position.wait_for(|position| *position > after).await;
    }

    /// Pins all segments, and flushes before, for a peer that this store's log does not reach back to (PROTOCOL,
    /// T2).
    ///
    /// # Errors
    /// Those of the flush.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.engine().snapshot().await
    }

    /// Whether a peer's segment may have rows of `shards` that exist and are not held: there are rows of them above
    /// the retention floor, and the very file is not here already. [`Store::held_ids`] says it exactly.
    pub fn may_want(&self, offer: &SegmentOffer, shards: &BTreeSet<Shard>) -> bool {
        self.engine().may_want(offer, shards)
    }

    /// The parts that are held with rows in a window.
    ///
    /// # Errors
    /// Where ids cannot be read.
    pub async fn held_ids(&self, signal: Signal, window: Window) -> Result<HeldIds, StoreError> {
        self.engine().held_ids(signal, window).await
    }

    /// Begins to receive a peer's segment; `None` where it was received before and waits to be installed.
    ///
    /// # Errors
    /// Where it would leave too little space, and those of the disk.
    pub async fn receive(&self, info: SegmentInfo) -> Result<Option<Incoming>, StoreError> {
        self.engine().receive(info).await
    }

    /// Removes received segments that wait to be installed and are none of these.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn keep_received(&self, offered: &[SegmentInfo]) -> Result<(), StoreError> {
        self.engine().keep_received(offered).await
    }

    /// Installs received segments, in one step with their ids of `shards`; rows of other shards are left out. Peers
    /// cannot tail this store from before the position that it gives any more; `None` where nothing of the segments
    /// exists. A segment that is installed twice is there twice, and its rows once. `compared` is what
    /// [`Store::left_before`] gave before the segments were chosen.
    ///
    /// # Errors
    /// Where a segment was not received or a shard was left since, and those of the disk. Nothing is installed then, or it is not known and
    /// the store takes no writes until a restart.
    pub async fn install_received(
        &self,
        offers: Vec<SegmentOffer>,
        shards: &BTreeSet<Shard>,
        compared: &LeftBefore,
    ) -> Result<Option<Position>, StoreError> {
        self.engine().install_received(offers, shards.clone(), compared).await
    }

    /// To be taken before what a store holds of some shards is compared with what a peer has.
    pub fn left_before(&self, shards: &BTreeSet<Shard>) -> LeftBefore {
        self.engine().state.lock().left.before(shards)
    }

    /// Shards with rows here.
    pub fn held_shards(&self) -> BTreeSet<Shard> {
        self.engine().held_shards()
    }

    /// Gets ready to delete all that is here of some shards, which takes until a merge that is under way is done:
    /// [`Leaving::leave`] is then a single change of the manifest.
    ///
    /// # Errors
    /// Those of a flush.
    pub async fn prepare_leave(&self) -> Result<Leaving<'_>, StoreError> {
        self.engine().prepare_leave().await
    }

    /// Where each earlier boot ended.
    pub fn ends(&self) -> BTreeMap<u64, u64> {
        self.engine().state.lock().ends.clone()
    }

    /// An immutable view of everything that is published now. Its files stay until it is dropped.
    pub fn pin(&self) -> Pin {
        Pin::new(&self.engine().state.lock())
    }

    /// Takes the floors of the metadata, durably; none falls, and those of an older state than the last are not taken.
    /// Rows below do not exist any more for later pins.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn raise_floors(&self, floors: Floors) -> Result<(), StoreError> {
        if !Floors::clone(&self.engine().state.lock().floors).raise(&floors) {
            return Ok(());
        }
        let published = floors.clone();
        self.engine()
            .commit(
                move |manifest| manifest.raise_floors(&floors),
                move |state| Arc::make_mut(&mut state.floors).raise(&published),
            )
            .await?;
        self.engine().wake_compaction.notify_one();
        Ok(())
    }

    /// The retention floor of a tenant and signal, in nanoseconds of event time; 0 where there is none.
    pub fn floor(&self, tenant: &Tenant, signal: Signal) -> u64 {
        self.engine().state.lock().floors.of(signal, tenant)
    }

    /// Sizes, counts and health.
    pub fn status(&self) -> StoreStatus {
        StoreStatus::of(self.engine())
    }

    /// Makes segments of all memtables.
    ///
    /// # Errors
    /// Those of the disk; what was not flushed stays in memtables and WAL.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.engine().flush().await
    }

    /// Deletes what retention ended and merges segments until no merge is due.
    ///
    /// # Errors
    /// Those of the disk; the inputs of a failed merge stay.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.engine().compact().await
    }

    /// Stops the tasks, refuses what comes later, and gives the directory up, also where others still hold the store. What was acknowledged is durable already; nothing is
    /// flushed.
    pub async fn close(self) {
        let engine = self.engine();
        // Lets the next start know how much of the WAL has to be there.
        if let Err(error) = engine.commit(|_| true, |_| ()).await {
            tracing::warn!(%error, "cannot write the manifest at close");
        }
        self.0.stop.send_replace(true);
        let (reply, closed) = oneshot::channel();
        if engine.queue.send(Command::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            let _ = task.await;
        }
        engine.state.lock().set_writes(WriteState::Closed);
        engine.unlock().await;
    }
}
