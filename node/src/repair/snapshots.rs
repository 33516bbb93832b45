//! Snapshots of this store that peers copy: pinned while they are used, and let go by themselves (PROTOCOL T2).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use oteld_cluster::ids::ReplicaId;
use oteld_env::Env;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{
    AppliedId as WireId, Refusal, SnapshotFileReply, SnapshotIdsReply, SnapshotReply, SnapshotSegment,
};
use oteld_store::model::{RequestId, Shard, Signal, Tenant, Window};
use oteld_store::segment::{AppliedId, SegmentInfo};
use oteld_store::{SegmentOffer, Snapshot, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use xxhash_rust::xxh3::xxh3_64;

use super::tail::to_wire;
use crate::rpc::fence::refuse;

/// How long a snapshot stays pinned after it was last asked for something.
const LEASE: Duration = Duration::from_secs(180);

/// Silence after which an empty piece of a file is sent; its receiver gives up after a few times as long.
const SILENCE: Duration = Duration::from_secs(10);

/// Segments, and ids, in one message.
const SEGMENTS_MAX: usize = 1024;
const IDS_MAX: usize = 16 << 10;

/// Bytes of a file in one message, and messages that wait for the network.
const CHUNK_BYTES: u64 = 512 << 10;
const CHUNKS_WAITING_MAX: usize = 4;

/// The snapshots that peers hold of a store, at most one each.
#[derive(Clone)]
pub struct Snapshots {
    env: Env,
    store: Store,
    leases: Arc<Mutex<BTreeMap<u128, Lease>>>,
}

struct Lease {
    snapshot: Arc<Snapshot>,
    holder: ReplicaId,
    until: Instant,
}

impl Snapshots {
    pub fn new(env: Env, store: Store) -> Self {
        Snapshots { env, store, leases: Arc::default() }
    }

    /// Pins a snapshot for `holder`, in place of one that it had.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn take(&self, holder: ReplicaId) -> Result<Vec<SnapshotReply>, Refusal> {
        let snapshot = self.store.snapshot().await.map_err(refusal_of)?;
        let offers: Vec<SnapshotSegment> = snapshot.offers().iter().map(offer_to_wire).collect();
        let id = self.env.random.next_u128();
        let first = SnapshotReply {
            snapshot: Bytes::copy_from_slice(&id.to_be_bytes()),
            covered: Some(to_wire(snapshot.covered())),
            ..SnapshotReply::default()
        };
        {
            let mut leases = self.leases.lock();
            leases.retain(|_, lease| lease.holder != holder);
            let until = Instant::now() + LEASE;
            leases.insert(id, Lease { snapshot: Arc::new(snapshot), holder, until });
        }
        let leases = self.leases.clone();
        self.env.tasks.spawn(async move {
            loop {
                let Some(until) = leases.lock().get(&id).map(|lease| lease.until) else { return };
                if until <= Instant::now() {
                    leases.lock().remove(&id);
                    return;
                }
                sleep_until(until).await;
            }
        });
        let rest = offers.chunks(SEGMENTS_MAX);
        let rest =
            rest.map(|segments| SnapshotReply { segments: segments.to_vec(), ..SnapshotReply::default() });
        Ok(std::iter::once(first).chain(rest).collect())
    }

    /// How many are pinned.
    pub fn pinned(&self) -> usize {
        self.leases.lock().len()
    }

    /// The ids of a segment in `shards`.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn ids(
        &self,
        snapshot: &Bytes,
        holder: ReplicaId,
        segment: u64,
        shards: BTreeSet<Shard>,
    ) -> Result<Vec<SnapshotIdsReply>, Refusal> {
        let (_, snapshot) = self.held(snapshot, holder)?;
        let ids =
            self.env.tasks.blocking(move || snapshot.ids(segment, &shards)).await.map_err(refusal_of)?;
        let reply = |ids: &[AppliedId]| SnapshotIdsReply {
            ids: ids.iter().map(id_to_wire).collect(),
            ..SnapshotIdsReply::default()
        };
        Ok(ids.chunks(IDS_MAX).map(reply).collect())
    }

    /// The file of a segment, piece by piece as the network takes them.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn file(
        &self,
        snapshot: &Bytes,
        holder: ReplicaId,
        segment: u64,
    ) -> Result<impl Stream<Item = Result<SnapshotFileReply, tonic::Status>> + Send + use<>, Refusal> {
        let (id, snapshot) = self.held(snapshot, holder)?;
        let (pieces, outbound) = mpsc::channel(CHUNKS_WAITING_MAX);
        let this = self.clone();
        self.env.tasks.spawn(async move {
            let mut offset = 0;
            loop {
                let snapshot = snapshot.clone();
                let read = this.env.tasks.blocking(move || snapshot.read(segment, offset, CHUNK_BYTES));
                let mut read = pin!(read);
                let read = loop {
                    match timeout(SILENCE, &mut read).await {
                        Ok(read) => break read,
                        // Reading the whole file once more takes long, and who gets it should not give up.
                        Err(_) => {
                            if pieces.send(Ok(piece(offset, Bytes::new()))).await.is_err() {
                                return;
                            }
                            this.renew(id);
                        }
                    }
                };
                let reply = match read {
                    Ok(data) if data.is_empty() => return,
                    Ok(data) => {
                        let reply = piece(offset, data.into());
                        offset += reply.data.len() as u64;
                        reply
                    }
                    Err(error) => {
                        SnapshotFileReply { refusal: Some(refusal_of(error)), ..SnapshotFileReply::default() }
                    }
                };
                let is_last = reply.refusal.is_some();
                if pieces.send(Ok(reply)).await.is_err() || is_last {
                    return;
                }
                this.renew(id);
            }
        });
        Ok(ReceiverStream::new(outbound))
    }

    fn held(&self, snapshot: &Bytes, holder: ReplicaId) -> Result<(u128, Arc<Snapshot>), Refusal> {
        let none = || refuse(Reason::NoSnapshot, "the snapshot is not pinned any more".into());
        let id = u128::from_be_bytes(snapshot[..].try_into().map_err(|_| none())?);
        self.renew(id);
        let leases = self.leases.lock();
        let lease = leases.get(&id).filter(|lease| lease.holder == holder).ok_or_else(none)?;
        Ok((id, lease.snapshot.clone()))
    }

    fn renew(&self, id: u128) {
        if let Some(lease) = self.leases.lock().get_mut(&id) {
            lease.until = Instant::now() + LEASE;
        }
    }
}

fn piece(offset: u64, data: Bytes) -> SnapshotFileReply {
    SnapshotFileReply { refusal: None, offset, checksum: xxh3_64(&data), data }
}

fn refusal_of(error: StoreError) -> Refusal {
    let reason = match &error {
        StoreError::NoSuchSegment(_) => Reason::NoSnapshot,
        StoreError::ReadOnly { .. } => Reason::ReadOnly,
        _ => Reason::Internal,
    };
    refuse(reason, error.to_string())
}

fn id_to_wire(id: &AppliedId) -> WireId {
    WireId {
        request: Bytes::copy_from_slice(&id.request.0.to_be_bytes()),
        digest: id.digest,
        shards: id.shards.iter().map(|shard| shard.0).collect(),
    }
}

/// An id as the store knows it; `None` where it has another shape.
pub fn id_from_wire(id: &WireId) -> Option<AppliedId> {
    Some(AppliedId {
        request: RequestId(u128::from_be_bytes(id.request[..].try_into().ok()?)),
        digest: id.digest,
        shards: id.shards.iter().copied().map(Shard).collect(),
    })
}

fn offer_to_wire(offer: &SegmentOffer) -> SnapshotSegment {
    let SegmentInfo { signal, window, rows, bytes, checksum, .. } = offer.info;
    SnapshotSegment {
        id: offer.id,
        level: offer.level,
        signal: signal.code().into(),
        window: window.0,
        rows,
        bytes,
        min_time_unix_nano: offer.info.min_time_unix_nano,
        max_time_unix_nano: offer.info.max_time_unix_nano,
        shards: offer.info.shards.iter().map(|shard| shard.0).collect(),
        tenants: offer.tenants.iter().map(|tenant| tenant.0.to_string()).collect(),
        checksum,
        left: offer.left.iter().map(|shard| shard.0).collect(),
    }
}

/// An offer as the store knows it; `None` where it has another shape.
pub fn offer_from_wire(offer: &SnapshotSegment) -> Option<SegmentOffer> {
    Some(SegmentOffer {
        id: offer.id,
        level: offer.level,
        info: SegmentInfo {
            signal: Signal::from_code(offer.signal.try_into().ok()?)?,
            window: Window(offer.window),
            rows: offer.rows,
            bytes: offer.bytes,
            min_time_unix_nano: offer.min_time_unix_nano,
            max_time_unix_nano: offer.max_time_unix_nano,
            shards: offer.shards.iter().copied().map(Shard).collect(),
            checksum: offer.checksum,
        },
        tenants: offer.tenants.iter().map(|tenant| Tenant::new(tenant)).collect(),
        left: offer.left.iter().copied().map(Shard).collect(),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use oteld_env::{Clock, Net, Random, SimDisk, Tasks, WorkQueue};
    use oteld_store::StoreOptions;
    use oteld_store::batch::{Batch, PartRows};
    use oteld_store::model::sample::Sample;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_on_a_slow_disk_comes_with_empty_pieces_and_its_snapshot_stays() {
        let (random, queue) = (Random::from_seed(1), WorkQueue::default());
        let env = Env {
            clock: Clock::real(),
            random: random.clone(),
            disk: Arc::new(SimDisk::new(Random::from_seed(2), 1 << 30)),
            net: Net::Tcp,
            tasks: Tasks::queued(random.clone(), queue.clone()),
        };
        let options = StoreOptions { dir: "/data".into(), background: false, ..StoreOptions::default() };
        let store = Store::open(env.clone(), options).await.unwrap();
        let (tenant, request) = (Tenant::new("default"), RequestId(1));
        let hour = Window::NANOS..2 * Window::NANOS;
        let sample = Sample { tenant: tenant.clone(), time_unix_nano: hour, request };
        let rows = sample.rows(&random, Signal::Logs, 9);
        let part = PartRows { request, digest: 1, tenant, shard: Shard(0), epoch: 1, rows };
        store.append(&Batch::encode(Signal::Logs, vec![part]), &[0]).await.unwrap();
        let (snapshots, holder) = (Snapshots::new(env, store), ReplicaId(7));
        let taken = snapshots.take(holder).await.unwrap();
        let (snapshot, segment) = (&taken[0].snapshot, &taken[1].segments[0]);
        // Longer than a snapshot stays that nobody asks for anything.
        queue.slow_by(LEASE * 2);
        let pieces = snapshots.file(snapshot, holder, segment.id).unwrap();
        let pieces: Vec<SnapshotFileReply> = pieces.map(Result::unwrap).collect().await;
        let bytes: u64 = pieces.iter().map(|piece| piece.data.len() as u64).sum();
        assert_eq!(bytes, segment.bytes);
        assert!(pieces.iter().all(|piece| xxh3_64(&piece.data) == piece.checksum));
        assert!(pieces.iter().filter(|piece| piece.data.is_empty()).count() > 30);
        assert_eq!(snapshots.pinned(), 1);
    }
}
