//! The node service of a storage node: every RPC of proto/node.proto, each a few lines over the part that does it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::Stream;
use oteld_cluster::ids::ReplicaId;
use oteld_env::Env;
use oteld_proto::node::node_server::{Node, NodeServer};
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{
    AppendReply, AppendRequest, CheckReply, CheckRequest, Envelope, FenceReply, FenceRequest, FetchReply,
    FetchRequest, HoldReply, HoldRequest, HoldsReply, HoldsRequest, LeafReply, LeafRequest, Refusal,
    SnapshotFileReply, SnapshotFileRequest, SnapshotIdsReply, SnapshotIdsRequest, SnapshotReply,
    SnapshotRequest, StatusReply, StatusRequest, TailReply, TailRequest,
};
use oteld_store::model::Shard;
use oteld_store::{Prefix, Store, TailError};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::fence::{Fence, refuse, replica_of};
use super::peers::MESSAGE_BYTES_MAX;
use crate::admin::own::OwnStatusSource;
use crate::read::complete::COMPLETE_WAIT_MAX;
use crate::read::leaf::Leaf;
use crate::repair::moves::ask::{answer_fence, answer_holds};
use crate::repair::snapshots::Snapshots;
use crate::repair::tail::{entry_to_wire, from_wire, position_from_wire, to_wire};
use crate::repair::tails::Tails;
use crate::write::append::Appender;

/// Appends of one stream that may be under way at once; the next is not read before one is done.
const APPENDS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of a leaf's reply in one message.
const REPLY_CHUNK_BYTES: usize = 1 << 20;

/// What a storage node answers with, once it is part of a cluster.
pub struct StorageParts {
    pub store: Store,
    pub fence: Arc<Fence>,
    pub appender: Appender,
    pub tails: Arc<Tails>,
    pub leaf: Leaf,
    pub snapshots: Snapshots,
}

/// Answers other nodes; refuses with NOT_READY until the parts are there.
#[derive(Clone)]
pub struct NodeService {
    env: Env,
    parts: Arc<OnceLock<StorageParts>>,
    own_status: OwnStatusSource,
    stop: CancellationToken,
}

impl NodeService {
    /// `stop` ends streams that would last for as long as their connections.
    pub fn new(
        env: Env,
        parts: Arc<OnceLock<StorageParts>>,
        own_status: OwnStatusSource,
        stop: CancellationToken,
    ) -> Self {
        NodeService { env, parts, own_status, stop }
    }

    fn parts(&self) -> Result<&StorageParts, Refusal> {
        let reason = "this node does not serve storage (yet): it has another role, or is still starting";
        self.parts.get().ok_or_else(|| refuse(Reason::NotReady, reason.into()))
    }

    pub fn into_server(self) -> NodeServer<Self> {
        NodeServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn list(&self, request: TailRequest) -> Result<TailReply, Refusal> {
        let StorageParts { store, fence, .. } = self.parts()?;
        let envelope = request.envelope.unwrap_or_default();
        let shards: BTreeSet<Shard> = fence.admit_all(&envelope).await?.into_iter().collect();
        let after = request.after.map(from_wire).unwrap_or_default();
        let entries_max = (request.entries_max as usize).clamp(1, 65_536);
        let mut page = match store.tail(after, &shards, entries_max) {
            Ok(page) => page,
            Err(error) => return Err(self.cannot_tail(error, after, &envelope).await),
        };
        if page.entries.is_empty() && after.covers(&page.covered) {
            let wait = Duration::from_millis(request.wait_ms_max.into());
            let _ = timeout(wait, store.wait_position_beyond(after.position())).await;
            page = match store.tail(after, &shards, entries_max) {
                Ok(page) => page,
                Err(error) => return Err(self.cannot_tail(error, after, &envelope).await),
            };
        }
        let entries = page.entries.iter().map(entry_to_wire).collect();
        let covered = Some(to_wire(page.covered));
        Ok(TailReply { refusal: None, entries, covered, has_more: page.has_more })
    }

    /// Refuses to tail. A member's cursor beyond the end of the log proves that synced data was lost here (LOSS).
    async fn cannot_tail(&self, error: TailError, after: Prefix, envelope: &Envelope) -> Refusal {
        let reason = match error {
            TailError::BelowStart { .. } => Reason::BelowStart,
            TailError::BeyondEnd { .. } => Reason::BeyondEnd,
            TailError::Lost { .. } => Reason::Lost,
        };
        let sender = replica_of(&envelope.from_replica).filter(|_| !envelope.shards.is_empty());
        if let (TailError::BeyondEnd { end }, Some(sender), Ok(parts)) = (&error, sender, self.parts()) {
            let what = format!("replica {sender} holds this log up to {after}, and here it ends at {end}");
            if let Err(error) = parts.store.lose(&what).await {
                tracing::error!(%error, "cannot record the loss; it is found again after a restart");
            }
        }
        refuse(reason, error.to_string())
    }

    /// E1 to E4 for a message that only another replica may send.
    async fn admitted_replica(
        &self,
        envelope: Option<Envelope>,
    ) -> Result<(ReplicaId, BTreeSet<Shard>), Refusal> {
        let (sender, shards) = self.admitted(envelope).await?;
        let sender = sender.filter(|_| !shards.is_empty());
        let sender =
            sender.ok_or_else(|| refuse(Reason::NotMember, "only replicas of a shard may ask".into()))?;
        Ok((sender, shards))
    }

    /// The sender and the shards of a message that may be acted upon.
    async fn admitted(
        &self,
        envelope: Option<Envelope>,
    ) -> Result<(Option<ReplicaId>, BTreeSet<Shard>), Refusal> {
        let envelope = envelope.unwrap_or_default();
        let shards = self.parts()?.fence.admit_all(&envelope).await?;
        Ok((replica_of(&envelope.from_replica), shards.into_iter().collect()))
    }

    async fn held(&self, request: HoldRequest) -> Result<(), Refusal> {
        let (sender, shards) = self.admitted(request.envelope.clone()).await?;
        let position = request.position.map(from_wire).unwrap_or_default();
        let sender =
            sender.ok_or_else(|| refuse(Reason::Malformed, "hold without a sending replica".into()))?;
        let deadline = Instant::now() + COMPLETE_WAIT_MAX;
        let StorageParts { tails, store, .. } = self.parts()?;
        let held = tokio::select! {
            biased;
            held = tails.await_held(sender, &shards, &position, deadline) => held,
            // Nothing can be pulled: the sender's query needs another replica.
            reason = store.until_read_only() => return Err(refuse(Reason::ReadOnly, reason)),
        };
        if !held {
            return Err(refuse(Reason::NotReady, "could not pull the sender's rows in time".into()));
        }
        // Still at the same epochs: what came only after a fence was raised here is not among the positions that
        // the move's newcomers must hold, and must not be shown (R3: any STALE restarts).
        self.admitted(request.envelope).await?;
        Ok(())
    }
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Node for NodeService {
    type AppendStream = ReplyStream<AppendReply>;
    type FetchStream = ReplyStream<FetchReply>;
    type LeafStream = ReplyStream<LeafReply>;
    type SnapshotStream = ReplyStream<SnapshotReply>;
    type SnapshotIdsStream = ReplyStream<SnapshotIdsReply>;
    type SnapshotFileStream = ReplyStream<SnapshotFileReply>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut requests = request.into_inner();
        let (replies, outbound) = mpsc::channel(APPENDS_IN_FLIGHT_MAX);
        let parts = self.parts().map_err(|refusal| Status::unavailable(refusal.message))?;
        let (env, appender, stop) = (self.env.clone(), parts.appender.clone(), self.stop.clone());
        let places = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT_MAX));
        self.env.tasks.spawn(async move {
            // A front whose stream ends finds out where the node is now; it would go on asking a closed store.
            while let Some(Ok(Some(request))) = stop.run_until_cancelled(requests.message()).await {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (appender, replies) = (appender.clone(), replies.clone());
                // A task each: the log's group commit takes all that wait, whichever stream they came by.
                env.tasks.spawn(async move {
                    let reply = appender.append(request).await;
                    let _ = replies.send(Ok(reply)).await;
                    drop(place);
                });
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<TailReply>, Status> {
        let reply = self.list(request.into_inner()).await;
        let refused = |refusal| TailReply { refusal: Some(refusal), ..TailReply::default() };
        Ok(Response::new(reply.unwrap_or_else(refused)))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let FetchRequest { envelope, positions } = request.into_inner();
        let refused = |refusal| FetchReply { refusal: Some(refusal), ..FetchReply::default() };
        let fetched = async {
            self.admitted(envelope).await?;
            let positions: Vec<_> = positions.into_iter().map(position_from_wire).collect();
            let batches = self.parts()?.store.read_parts(&positions).await;
            batches.map_err(|error| refuse(Reason::Internal, error.to_string()))
        };
        let replies: Vec<Result<FetchReply, Status>> = match fetched.await {
            Err(refusal) => vec![Ok(refused(refusal))],
            Ok(batches) => (batches.into_iter())
                .map(|batch| Ok(FetchReply { refusal: None, batch: batch.bytes().clone() }))
                .collect(),
        };
        Ok(Response::new(Box::pin(futures_util::stream::iter(replies))))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let taken = async {
            let (sender, _) = self.admitted_replica(request.into_inner().envelope).await?;
            self.parts()?.snapshots.take(sender).await
        };
        let refused = |refusal| vec![SnapshotReply { refusal: Some(refusal), ..SnapshotReply::default() }];
        let replies = taken.await.unwrap_or_else(refused);
        Ok(Response::new(Box::pin(futures_util::stream::iter(replies.into_iter().map(Ok)))))
    }

    async fn snapshot_ids(
        &self,
        request: Request<SnapshotIdsRequest>,
    ) -> Result<Response<Self::SnapshotIdsStream>, Status> {
        let SnapshotIdsRequest { envelope, snapshot, segment } = request.into_inner();
        let read = async {
            let (sender, shards) = self.admitted_replica(envelope).await?;
            self.parts()?.snapshots.ids(&snapshot, sender, segment, shards).await
        };
        let refused =
            |refusal| vec![SnapshotIdsReply { refusal: Some(refusal), ..SnapshotIdsReply::default() }];
        let replies = read.await.unwrap_or_else(refused);
        Ok(Response::new(Box::pin(futures_util::stream::iter(replies.into_iter().map(Ok)))))
    }

    async fn snapshot_file(
        &self,
        request: Request<SnapshotFileRequest>,
    ) -> Result<Response<Self::SnapshotFileStream>, Status> {
        let SnapshotFileRequest { envelope, snapshot, segment } = request.into_inner();
        let opened = async {
            let (sender, _) = self.admitted_replica(envelope).await?;
            self.parts()?.snapshots.file(&snapshot, sender, segment)
        };
        match opened.await {
            Ok(pieces) => Ok(Response::new(Box::pin(pieces))),
            Err(refusal) => {
                let reply = SnapshotFileReply { refusal: Some(refusal), ..SnapshotFileReply::default() };
                Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(reply)]))))
            }
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let status = self.own_status.read();
        let packed = rmp_serde::to_vec_named(&status).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(StatusReply { name: status.name, packed: packed.into() }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        let checked = async {
            self.admitted(request.into_inner().envelope).await?;
            Ok(self.parts()?.store.published())
        };
        let reply = match checked.await {
            Ok(position) => CheckReply { refusal: None, position: Some(to_wire(position)) },
            Err(refusal) => CheckReply { refusal: Some(refusal), position: None },
        };
        Ok(Response::new(reply))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let refusal = self.held(request.into_inner()).await.err();
        Ok(Response::new(HoldReply { refusal }))
    }

    async fn fence(&self, request: Request<FenceRequest>) -> Result<Response<FenceReply>, Status> {
        let answered = async {
            let StorageParts { store, fence, .. } = self.parts()?;
            answer_fence(store, fence, request.into_inner()).await
        };
        let refused = |refusal| FenceReply { refusal: Some(refusal), ..FenceReply::default() };
        Ok(Response::new(answered.await.unwrap_or_else(refused)))
    }

    async fn holds(&self, request: Request<HoldsRequest>) -> Result<Response<HoldsReply>, Status> {
        let answered = async {
            let StorageParts { store, fence, tails, .. } = self.parts()?;
            answer_holds(store, fence, tails, request.into_inner()).await
        };
        let refused = |refusal| HoldsReply { refusal: Some(refusal), ..HoldsReply::default() };
        Ok(Response::new(answered.await.unwrap_or_else(refused)))
    }

    async fn leaf(&self, request: Request<LeafRequest>) -> Result<Response<Self::LeafStream>, Status> {
        let answered = async { self.parts()?.leaf.answer(request.into_inner()).await };
        let answer = match answered.await {
            Ok(answer) => answer,
            Err(refusal) => {
                let reply = LeafReply { refusal: Some(refusal), ..LeafReply::default() };
                return Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(reply)]))));
            }
        };
        let first = LeafReply {
            rows_scanned: answer.rows_scanned,
            bytes_scanned: answer.bytes_scanned,
            ..LeafReply::default()
        };
        let packed = answer.reply;
        let chunks = (0..packed.len()).step_by(REPLY_CHUNK_BYTES).map(move |start| {
            let end = (start + REPLY_CHUNK_BYTES).min(packed.len());
            Ok(LeafReply { reply: packed.slice(start..end), ..LeafReply::default() })
        });
        let replies = std::iter::once(Ok(first)).chain(chunks);
        Ok(Response::new(Box::pin(futures_util::stream::iter(replies))))
    }
}
