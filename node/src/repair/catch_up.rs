//! Catching up with a peer whose log no longer reaches back: find out what is lacking, copy it, install it, and go
//! on tailing (PROTOCOL T2).
//!
//! A copy that was interrupted starts again with a new snapshot: ids are compared anew, and segments that came whole
//! before are found on disk and not asked for again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oteld_env::Env;
use oteld_proto::node::{
    SnapshotFileReply, SnapshotFileRequest, SnapshotIdsRequest, SnapshotReply, SnapshotRequest,
};
use oteld_store::model::{Shard, Signal, Window};
use oteld_store::segment::{AppliedId, SegmentInfo};
use oteld_store::{HeldIds, Prefix, SegmentOffer, StoreError};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Streaming;
use tracing::info;
use xxhash_rust::xxh3::xxh3_64;

use super::snapshots::{id_from_wire, offer_from_wire};
use super::tail::{Tail, TailError, from_wire};

/// Silence of a peer after which a stream is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const OPENING_MAX: Duration = Duration::from_secs(120);

/// The least time between two log lines about progress.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Parts that a front was sending to all replicas when the snapshot was taken reach this one too: what seems to be
/// lacking is looked at again after so long, before whole files are copied for it.
const IN_FLIGHT_WAIT: Duration = Duration::from_millis(500);

/// So often at most, each time as long after the last.
const LOOKS_MAX: usize = 30;

/// With more than so many ids that are not here, nobody waits for them to come by themselves.
const IDS_MAX: usize = 1 << 20;

/// What was held of the windows that were looked at.
type HeldWindows = BTreeMap<(Signal, Window), HeldIds>;

/// Bytes of the copies under way in this node; both 0 when there are none.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes that came, and bytes that are to come in all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

/// Shows no progress any more when the copy is over, however it ended.
struct Ended<'a>(&'a Progress);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.begin(0);
    }
}

/// What a catch-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    pub segments: u64,
    pub bytes: u64,
}

/// One catch-up over the connection of a tail.
pub struct CatchUp<'a, 'b> {
    pub env: &'a Env,
    pub tail: &'a mut Tail<'b>,
    /// Of the peer, for messages.
    pub name: &'a str,
    pub progress: &'a Progress,
}

/// A peer's pinned segments.
struct Offered {
    snapshot: Bytes,
    covered: Prefix,
    segments: Vec<SegmentOffer>,
    /// When parts that were on their way as it was taken should have come.
    settled: Instant,
}

impl CatchUp<'_, '_> {
    /// When this returns, all that the peer had up to where its log starts is durable here, and the cursor says so.
    ///
    /// # Errors
    /// Those of the peer and of the store; another catch-up goes on where this one failed.
    pub async fn run(&mut self) -> Result<CaughtUp, TailError> {
        // Only shards whose entry is known can be asked about, so only they are answered for.
        self.tail.shards.retain(|shard, _| self.tail.fence.entry(*shard).is_some());
        let shards: BTreeSet<Shard> = self.tail.shards.keys().copied().collect();
        let compared = self.tail.store.left_before(&shards);
        let offered = self.offered().await?;
        let mut lacking = self.lacking(&offered, &shards).await?;
        if !lacking.is_empty() && oteld_env::mutant("snapshot-segment-skipped") {
            lacking.pop();
        }
        let total = lacking.iter().map(|offer| offer.info.bytes).sum();
        let caught_up = CaughtUp { segments: lacking.len() as u64, bytes: total };
        if !lacking.is_empty() {
            info!(
                peer = self.name,
                segments = lacking.len(),
                of = offered.segments.len(),
                bytes = total,
                "the peer's log no longer reaches back: copying segments with rows that this replica lacks"
            );
            self.copy(&offered.snapshot, &lacking, total).await?;
            let installed = self.tail.store.install_received(lacking, &shards, &compared).await;
            installed.map_err(store_failed)?;
            info!(peer = self.name, segments = caught_up.segments, bytes = total, "segments are installed");
        }
        self.tail.advance(offered.covered).await?;
        Ok(caught_up)
    }

    async fn offered(&mut self) -> Result<Offered, TailError> {
        let request = SnapshotRequest { envelope: Some(self.tail.envelope()?) };
        let mut replies = opened(self.tail.client.snapshot(request)).await?;
        let mut offered: Option<Offered> = None;
        while let Some(reply) = next(&mut replies).await? {
            let SnapshotReply { refusal, snapshot, covered, segments } = reply;
            if let Some(refusal) = refusal {
                return Err(TailError::Refused(refusal));
            }
            let offered = offered.get_or_insert_with(|| Offered {
                snapshot,
                covered: covered.map(from_wire).unwrap_or_default(),
                segments: Vec::new(),
                settled: Instant::now() + IN_FLIGHT_WAIT,
            });
            for segment in &segments {
                let malformed = || TailError::Malformed("an offered segment has another shape".into());
                offered.segments.push(offer_from_wire(segment).ok_or_else(malformed)?);
            }
        }
        offered.ok_or_else(|| TailError::Malformed("an empty snapshot".into()))
    }

    /// The segments with parts of the shared shards that are not here, and do not come by themselves.
    async fn lacking(
        &mut self,
        offered: &Offered,
        shards: &BTreeSet<Shard>,
    ) -> Result<Vec<SegmentOffer>, TailError> {
        let mut lacking: Vec<(&SegmentOffer, Vec<AppliedId>)> = Vec::new();
        let mut held = HeldWindows::new();
        let mut left = 0;
        for offer in offered.segments.iter().filter(|offer| self.tail.store.may_want(offer, shards)) {
            let mut ids = self.ids(&offered.snapshot, offer.id).await?;
            self.forget_held(offer, &mut ids, &mut held).await?;
            if !ids.is_empty() {
                left += ids.len();
                lacking.push((offer, if left < IDS_MAX { ids } else { Vec::new() }));
            }
        }
        // While some come by other ways, all may: what fronts are sending, and what other peers have in their logs.
        let mut next = offered.settled;
        for _ in 0..LOOKS_MAX {
            if left == 0 || left >= IDS_MAX {
                break;
            }
            sleep_until(next).await;
            let mut held = HeldWindows::new();
            for (offer, ids) in &mut lacking {
                self.forget_held(offer, ids, &mut held).await?;
            }
            lacking.retain(|(_, ids)| !ids.is_empty());
            let before = std::mem::replace(&mut left, lacking.iter().map(|(_, ids)| ids.len()).sum());
            if left == before {
                break;
            }
            next = Instant::now() + IN_FLIGHT_WAIT;
        }
        Ok(lacking.into_iter().map(|(offer, _)| offer.clone()).collect())
    }

    /// Forgets ids that are here. What is held of a window is read once; there may be more of it by now.
    async fn forget_held(
        &self,
        offer: &SegmentOffer,
        ids: &mut Vec<AppliedId>,
        held: &mut HeldWindows,
    ) -> Result<(), TailError> {
        let SegmentInfo { signal, window, .. } = offer.info;
        let held = match held.entry((signal, window)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let read = self.tail.store.held_ids(signal, window).await;
                place.insert(read.map_err(store_failed)?)
            }
        };
        ids.retain(|id| held.lacks(id));
        Ok(())
    }

    async fn ids(&mut self, snapshot: &Bytes, segment: u64) -> Result<Vec<AppliedId>, TailError> {
        let envelope = Some(self.tail.envelope()?);
        let request = SnapshotIdsRequest { envelope, snapshot: snapshot.clone(), segment };
        let mut replies = opened(self.tail.client.snapshot_ids(request)).await?;
        let mut ids = Vec::new();
        while let Some(reply) = next(&mut replies).await? {
            if let Some(refusal) = reply.refusal {
                return Err(TailError::Refused(refusal));
            }
            let malformed = || TailError::Malformed("an id of a segment has another shape".into());
            for id in &reply.ids {
                ids.push(id_from_wire(id).ok_or_else(malformed)?);
            }
        }
        Ok(ids)
    }

    async fn copy(&mut self, snapshot: &Bytes, offers: &[SegmentOffer], total: u64) -> Result<(), TailError> {
        self.progress.begin(total);
        let progress = self.progress;
        let _ended = Ended(progress);
        let infos: Vec<_> = offers.iter().map(|offer| offer.info.clone()).collect();
        self.tail.store.keep_received(&infos).await.map_err(store_failed)?;
        let mut said = Instant::now();
        for (index, offer) in offers.iter().enumerate() {
            self.copy_one(snapshot, offer).await?;
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                let (done, _) = progress.bytes();
                info!(
                    peer = self.name,
                    segment = index + 1,
                    of = offers.len(),
                    done,
                    total,
                    "copying segments"
                );
            }
        }
        Ok(())
    }

    async fn copy_one(&mut self, snapshot: &Bytes, offer: &SegmentOffer) -> Result<(), TailError> {
        let before = self.progress.bytes().0;
        let incoming = self.tail.store.receive(offer.info.clone()).await.map_err(store_failed)?;
        if let Some(mut incoming) = incoming {
            let envelope = Some(self.tail.envelope()?);
            let request = SnapshotFileRequest { envelope, snapshot: snapshot.clone(), segment: offer.id };
            let mut pieces = opened(self.tail.client.snapshot_file(request)).await?;
            let mut offset = 0;
            while let Some(piece) = next(&mut pieces).await? {
                let SnapshotFileReply { refusal, offset: at, data, checksum } = piece;
                if let Some(refusal) = refusal {
                    return Err(TailError::Refused(refusal));
                }
                if at != offset || xxh3_64(&data) != checksum {
                    return Err(TailError::Malformed(format!("a piece of a segment is damaged at {offset}")));
                }
                offset += data.len() as u64;
                let write = move || incoming.write(&data).map(|()| incoming);
                incoming = self.env.tasks.blocking(write).await.map_err(store_failed)?;
                self.progress.done.store(before + offset, Ordering::Relaxed);
            }
            self.env.tasks.blocking(move || incoming.finish()).await.map_err(store_failed)?;
        } else {
            // It was read whole to see whether it is sound. The peer lets go of snapshots that are not asked for
            // anything; if it did, those that are missing will tell.
            let _ = self.ids(snapshot, offer.id).await;
        }
        self.progress.done.store(before + offer.info.bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The stream that answers a request; the first one waits for the peer's flush.
async fn opened<T>(
    request: impl Future<Output = Result<tonic::Response<Streaming<T>>, tonic::Status>>,
) -> Result<Streaming<T>, TailError> {
    let silent = |_| tonic::Status::deadline_exceeded("it did not answer");
    Ok(timeout(OPENING_MAX, request).await.map_err(silent)??.into_inner())
}

async fn next<T>(replies: &mut Streaming<T>) -> Result<Option<T>, TailError> {
    let silent = |_| TailError::Rpc(tonic::Status::deadline_exceeded("the peer sent nothing for too long"));
    Ok(timeout(SILENCE_MAX, replies.message()).await.map_err(silent)??)
}

fn store_failed(error: StoreError) -> TailError {
    TailError::Append(error.to_string())
}
