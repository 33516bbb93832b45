//! Tailing one peer: read its list of published parts, pull what is lacking, append it here, advance the cursor
//! (PROTOCOL T1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use oteld_cluster::ids::ReplicaId;
use oteld_proto::node::node_client::NodeClient;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{
    Envelope, FetchRequest, Position as WirePosition, Refusal, TailEntry as WireEntry, TailReply, TailRequest,
};
use oteld_store::batch::Batch;
use oteld_store::model::{RequestId, Shard, Signal, Window};
use oteld_store::{Position, Prefix, ReplicaId as StoreReplicaId, Store, TailEntry};
use thiserror::Error;
use tokio::sync::watch;
use tonic::transport::Channel;
use tracing::debug;

use crate::rpc::fence::{Fence, envelope, needed, shard_epochs};

/// Entries of a peer's list asked for at once.
const ENTRIES_MAX: u32 = 4096;

/// Parts fetched at once.
const FETCH_MAX: usize = 256;

/// How long a peer may keep a request waiting for news.
const WAIT: Duration = Duration::from_secs(2);

/// What a step of tailing showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All that the peer had published is held.
    Level,
    /// The peer's list goes on after the page.
    More,
}

/// Why a step of tailing failed; it is tried again.
#[derive(Debug, Error)]
pub enum TailError {
    #[error("asking the peer: {0}")]
    Rpc(#[from] tonic::Status),
    #[error("the peer refused: {}", .0.message)]
    Refused(Refusal),
    #[error("keeping what was pulled: {0}")]
    Append(String),
    #[error("the peer sent what does not parse: {0}")]
    Malformed(String),
    #[error("the entry of shard {shard} is not durable here yet")]
    NoEntry { shard: u32 },
    #[error("the peer did not send {parts} of the parts that it lists")]
    NotAll { parts: usize },
}

/// One peer, and the shards that this store and it are both replicas of.
pub struct Tail<'a> {
    pub store: &'a Store,
    pub fence: &'a Fence,
    pub peer: ReplicaId,
    /// Each with the epoch since which this store is a replica of it.
    pub shards: BTreeMap<Shard, u64>,
    pub client: NodeClient<Channel>,
    /// Counts advances of cursors; queries wait on it.
    pub changes: &'a watch::Sender<u64>,
}

impl Tail<'_> {
    /// One exchange: everything that the peer's next page lists is durable here when this returns.
    pub async fn step(&mut self) -> Result<Progress, TailError> {
        let peer = StoreReplicaId(self.peer.0);
        let cursors = self.shards.iter().map(|(shard, since)| self.store.cursor(peer, *shard, *since));
        let after = cursors.min_by_key(Prefix::position).unwrap_or_default();
        let reply = self.page(after).await?;
        let listed: Vec<TailEntry> = reply
            .entries
            .iter()
            .map(entry_from_wire)
            .collect::<Option<_>>()
            .ok_or_else(|| TailError::Malformed("an entry of its list has another shape".into()))?;
        let lacking = self.store.missing_parts(&listed).await;
        let lacking = lacking.map_err(|error| TailError::Append(error.to_string()))?;
        if !lacking.is_empty() {
            debug!(peer = %self.peer, parts = lacking.len(), "pulling what this replica lacks");
        }
        let covered = reply.covered.map(from_wire).unwrap_or(after);
        if !lacking.is_empty() && oteld_env::mutant("cursor-before-pull") {
            self.advance(covered).await?;
        }
        let mut came = BTreeSet::new();
        for entries in lacking.chunks(FETCH_MAX) {
            self.fetch(entries, &mut came).await?;
        }
        // Not what the store says that it has: of a part below the retention floor nothing is kept, and nothing lacks.
        let parts = lacking
            .iter()
            .filter(|entry| !came.contains(&(entry.request, entry.digest, entry.shard)))
            .count();
        if parts > 0 {
            return Err(TailError::NotAll { parts });
        }
        if !after.covers(&covered) {
            self.advance(covered).await?;
        }
        Ok(if reply.has_more { Progress::More } else { Progress::Level })
    }

    /// Asks for what follows; entries go along where the peer lacks them.
    async fn page(&mut self, after: Prefix) -> Result<TailReply, TailError> {
        let mut carried = BTreeSet::new();
        loop {
            let request = TailRequest {
                envelope: Some(self.envelope_with(&carried)?),
                after: Some(to_wire(after)),
                entries_max: ENTRIES_MAX,
                wait_ms_max: WAIT.as_millis() as u32,
            };
            let reply = self.client.tail(request).await?.into_inner();
            match reply.refusal {
                Some(refusal) if !needed(&refusal).is_subset(&carried) => carried = needed(&refusal),
                Some(refusal) => return Err(TailError::Refused(refusal)),
                None => return Ok(reply),
            }
        }
    }

    /// Everything of the shards in the peer's log up to `to` is durable here.
    pub(super) async fn advance(&self, to: Prefix) -> Result<(), TailError> {
        let advanced = self.store.advance_cursor(StoreReplicaId(self.peer.0), &self.shards, to).await;
        advanced.map_err(|error| TailError::Append(error.to_string()))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Pulls the parts of these entries; `came` gets those that are durable here now, or below the floor.
    async fn fetch(
        &mut self,
        entries: &[TailEntry],
        came: &mut BTreeSet<(RequestId, u64, Shard)>,
    ) -> Result<(), TailError> {
        let positions = entries.iter().map(|entry| position_to_wire(entry.position)).collect();
        let request = FetchRequest { envelope: Some(self.envelope()?), positions };
        let mut replies = self.client.fetch(request).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            if let Some(refusal) = reply.refusal {
                return Err(TailError::Refused(refusal));
            }
            let batch = Batch::parse(reply.batch).map_err(|error| TailError::Malformed(error.to_string()))?;
            let wanted: Vec<usize> = (0..batch.parts().len())
                .filter(|index| self.shards.contains_key(&batch.parts()[*index].shard))
                .collect();
            // A pulled part is a copy of what its peer accepted: it needs no fence of its own, only the store's
            // rules (A1 to A4), which make a repeat harmless; another body under the same id stays beside it.
            let appended = self.store.append_pulled(&batch, &wanted).await;
            appended.map_err(|error| TailError::Append(error.to_string()))?;
            let parts = wanted.iter().map(|index| &batch.parts()[*index]);
            came.extend(parts.map(|part| (part.request, part.digest, part.shard)));
        }
        Ok(())
    }

    /// Names every shard that is tailed: a cursor may advance only over shards that the peer was asked about.
    pub(super) fn envelope(&self) -> Result<Envelope, TailError> {
        self.envelope_with(&BTreeSet::new())
    }

    fn envelope_with(&self, carried: &BTreeSet<Shard>) -> Result<Envelope, TailError> {
        let entry = |shard: &Shard| {
            Ok((*shard, self.fence.entry(*shard).ok_or(TailError::NoEntry { shard: shard.0 })?))
        };
        let entries = self.shards.keys().map(entry).collect::<Result<BTreeMap<_, _>, TailError>>()?;
        let shards = shard_epochs(&entries, carried);
        Ok(envelope(self.fence.cluster(), Some(self.fence.me()), self.peer, shards))
    }
}

impl TailError {
    /// Whether the peer lost synced data and serves nobody any more (LOSS).
    pub fn is_lost(&self) -> bool {
        let lost = [Reason::BeyondEnd, Reason::Lost];
        matches!(self, TailError::Refused(refusal) if lost.contains(&refusal.reason()))
    }

    /// Whether the peer's log does not reach back to this replica's cursor any more (T2).
    pub fn is_below_start(&self) -> bool {
        matches!(self, TailError::Refused(refusal) if refusal.reason() == Reason::BelowStart)
    }
}

/// One line of a replica's list as messages carry it.
pub fn entry_to_wire(entry: &TailEntry) -> WireEntry {
    WireEntry {
        position: Some(position_to_wire(entry.position)),
        request: Bytes::copy_from_slice(&entry.request.0.to_be_bytes()),
        digest: entry.digest,
        shard: entry.shard.0,
        signal: entry.signal.code().into(),
        window: entry.window.0,
    }
}

fn entry_from_wire(entry: &WireEntry) -> Option<TailEntry> {
    Some(TailEntry {
        position: position_from_wire(entry.position?),
        signal: Signal::from_code(entry.signal.try_into().ok()?)?,
        window: Window(entry.window),
        request: RequestId(u128::from_be_bytes(entry.request[..].try_into().ok()?)),
        digest: entry.digest,
        shard: Shard(entry.shard),
    })
}

fn position_to_wire(position: Position) -> WirePosition {
    WirePosition { boot: position.boot, n: position.n, nonce: 0 }
}

/// The position of a part, as the store knows it.
pub fn position_from_wire(position: WirePosition) -> Position {
    Position { boot: position.boot, n: position.n }
}

pub fn to_wire(prefix: Prefix) -> WirePosition {
    WirePosition { boot: prefix.boot, n: prefix.n, nonce: prefix.nonce }
}

pub fn from_wire(prefix: WirePosition) -> Prefix {
    Prefix { boot: prefix.boot, nonce: prefix.nonce, n: prefix.n }
}
