//! The two questions of a move to a store, one message each for all shards that move: learn the joint entries and
//! say where your log ends (M2), and do you hold what was fenced (M3). Both ends of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oteld_cluster::ids::{ReplicaId, ShardId};
use oteld_cluster::shard_map::{Entry, Member};
use oteld_cluster::state::Position;
use oteld_proto::node::{
    Envelope, FenceReply, FenceRequest, FencedShard, HoldsReply, HoldsRequest, Position as WirePosition,
    Refusal, ReplicaPosition,
};
use oteld_store::model::Shard;
use oteld_store::{Prefix, Store};
use tokio::time::timeout;
use tracing::debug;

use super::steps::{Positions, holds_fenced};
use crate::repair::tail::{from_wire, to_wire};
use crate::repair::tails::Tails;
use crate::rpc::fence::{Fence, envelope, needed, replica_bytes, replica_of, shard_epochs};
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// How long a store may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Entries of shards that move.
pub type Entries = BTreeMap<Shard, Entry>;

/// Asks stores on behalf of the moves.
#[derive(Clone)]
pub struct Asker {
    pub view: ClusterView,
    pub connections: Peers,
}

impl Asker {
    /// M2: `member` learns the entries; gives where its log ends then, for the shards of which it is complete.
    pub async fn fence(&self, member: Member, entries: Entries) -> Option<(BTreeSet<ShardId>, Position)> {
        let mut carried = BTreeSet::new();
        loop {
            let request = FenceRequest { envelope: Some(self.envelope(member, &entries, &carried)) };
            let mut client = self.connections.client(&self.view.address(member.node)?);
            let reply = timeout(ANSWER_WAIT, client.fence(request)).await.ok()?.ok()?.into_inner();
            if let Some(refusal) = reply.refusal {
                carried = self.carry_next(member, &refusal, &carried)?;
                continue;
            }
            let Prefix { boot, nonce, n } = from_wire(reply.position?);
            return Some((reply.complete.into_iter().map(ShardId).collect(), Position { boot, nonce, n }));
        }
    }

    /// M3: of which shards `member` holds what was fenced.
    pub async fn holds(
        &self,
        member: Member,
        entries: Entries,
        fenced: BTreeMap<Shard, Positions>,
    ) -> BTreeSet<ShardId> {
        self.try_holds(member, entries, fenced).await.unwrap_or_default()
    }

    async fn try_holds(
        &self,
        member: Member,
        entries: Entries,
        fenced: BTreeMap<Shard, Positions>,
    ) -> Option<BTreeSet<ShardId>> {
        let shards: Vec<FencedShard> = fenced.iter().map(|(shard, at)| fenced_to_wire(*shard, at)).collect();
        let mut carried = BTreeSet::new();
        loop {
            let envelope = Some(self.envelope(member, &entries, &carried));
            let request = HoldsRequest { envelope, shards: shards.clone() };
            let mut client = self.connections.client(&self.view.address(member.node)?);
            let reply = timeout(ANSWER_WAIT, client.holds(request)).await.ok()?.ok()?.into_inner();
            match reply.refusal {
                Some(refusal) => carried = self.carry_next(member, &refusal, &carried)?,
                None => return Some(reply.holds.into_iter().map(ShardId).collect()),
            }
        }
    }

    fn envelope(&self, member: Member, entries: &Entries, carried: &BTreeSet<Shard>) -> Envelope {
        let cluster = self.view.cluster_id().unwrap_or_default();
        envelope(cluster, None, member.replica, shard_epochs(entries, carried))
    }

    /// What to send along with the next attempt; none where another one would not help.
    fn carry_next(
        &self,
        member: Member,
        refusal: &Refusal,
        carried: &BTreeSet<Shard>,
    ) -> Option<BTreeSet<Shard>> {
        let needed = needed(refusal);
        if needed.is_subset(carried) {
            debug!(replica = %member.replica, reason = refusal.message, "a store does not answer for a move");
            return None;
        }
        Some(carried | &needed)
    }
}

/// Answers M2. The entries are durable here and in force, so that nothing of an earlier epoch is appended any more,
/// before the position is read.
pub async fn answer_fence(
    store: &Store,
    fence: &Fence,
    request: FenceRequest,
) -> Result<FenceReply, Refusal> {
    let shards = fence.admit_all(&request.envelope.unwrap_or_default()).await?;
    let position = Some(to_wire(store.published()));
    let is_complete = |shard: &Shard| {
        let entry = fence.entry(*shard);
        entry.is_some_and(|entry| entry.old.iter().any(|member| member.replica == fence.me()))
    };
    let complete = shards.iter().filter(|shard| is_complete(shard)).map(|shard| shard.0).collect();
    Ok(FenceReply { refusal: None, position, complete })
}

/// Answers M3. What a cursor covers is durable here.
pub async fn answer_holds(
    store: &Store,
    fence: &Fence,
    tails: &Tails,
    request: HoldsRequest,
) -> Result<HoldsReply, Refusal> {
    let admitted = fence.admit_all(&request.envelope.unwrap_or_default()).await?;
    let holds = |fenced: &FencedShard| {
        let shard = Shard(fenced.shard);
        let entry = fence.entry(shard).filter(|_| admitted.contains(&shard));
        let covers = |replica: ReplicaId, at: &Position| {
            let prefix = Prefix { boot: at.boot, nonce: at.nonce, n: at.n };
            match replica == fence.me() {
                true => store.has_published(&prefix),
                false => tails.is_held(replica, &BTreeSet::from([shard]), &prefix),
            }
        };
        entry.is_some_and(|entry| holds_fenced(&entry, &positions_from_wire(fenced), covers))
    };
    let holds = request.shards.iter().filter(|fenced| holds(fenced)).map(|fenced| fenced.shard).collect();
    Ok(HoldsReply { refusal: None, holds })
}

fn fenced_to_wire(shard: Shard, positions: &Positions) -> FencedShard {
    let position = |(replica, at): (&ReplicaId, &Position)| ReplicaPosition {
        replica: replica_bytes(*replica),
        position: Some(WirePosition { boot: at.boot, n: at.n, nonce: at.nonce }),
    };
    FencedShard { shard: shard.0, positions: positions.iter().map(position).collect() }
}

/// One that does not parse is nobody's position, and the majority has to be of others.
fn positions_from_wire(fenced: &FencedShard) -> Positions {
    let position = |at: &ReplicaPosition| {
        let WirePosition { boot, n, nonce } = at.position?;
        Some((replica_of(&at.replica)?, Position { boot, nonce, n }))
    };
    fenced.positions.iter().filter_map(position).collect()
}
