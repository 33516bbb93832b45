//! From a routed request to a majority of every part's replicas (PROTOCOL F1 to F3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use oteld_cluster::ids::{Epoch, NodeId, ReplicaId};
use oteld_cluster::shard_map::{Entry, Member, Tally};
use oteld_env::Env;
use oteld_proto::node::part_reply::Outcome;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{AppendReply, AppendRequest};
use oteld_store::batch::{Batch, PartRows};
use oteld_store::model::Shard;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::request::{Ingest, WriteError, WriteRequest};
use super::route::route;
use crate::rpc::fence::{carry, envelope};
use crate::rpc::peers::Peers;
use crate::rpc::service::StorageParts;
use crate::view::ClusterView;

/// Pause before the replicas that did not acknowledge are tried again; it doubles up to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Longest wait for one round of answers: then the silent are tried again.
const ROUND_MAX: Duration = Duration::from_secs(3);

/// The front's end of the write path, from whole requests to acknowledged ones.
pub struct Replicator {
    env: Env,
    view: ClusterView,
    peers: Peers,
    local: Arc<OnceLock<StorageParts>>,
    local_link: OnceLock<Link>,
    links: Mutex<BTreeMap<NodeId, (String, Link)>>,
    timeout: Duration,
}

/// Parts that go to the same stores, in one batch.
struct Group {
    batch: Batch,
    /// One for each part of the batch, in its order.
    tallies: Vec<Tally>,
}

/// What one round brought.
#[derive(Default)]
struct Round {
    /// Why a store did not acknowledge, by store.
    failures: BTreeMap<ReplicaId, String>,
    overloaded: bool,
    /// Stores that lack entries: the next round carries them.
    need_entries: bool,
}

#[async_trait]
impl Ingest for Replicator {
    async fn write(&self, request: WriteRequest) -> Result<(), WriteError> {
        if request.rows.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.timeout;
        let groups = self.group(request)?;
        let writes = groups.into_iter().map(|group| self.write_group(group, deadline));
        let mut writes: FuturesUnordered<_> = writes.collect();
        while let Some(outcome) = writes.next().await {
            outcome?;
        }
        Ok(())
    }
}

impl Replicator {
    /// `local`: the store of this very node, once it is part of the cluster.
    pub fn new(
        env: Env,
        view: ClusterView,
        peers: Peers,
        local: Arc<OnceLock<StorageParts>>,
        timeout: Duration,
    ) -> Self {
        Replicator { env, view, peers, local, local_link: OnceLock::new(), links: Mutex::default(), timeout }
    }

    /// Cuts the request and gathers the parts of each replica set in one batch.
    fn group(&self, request: WriteRequest) -> Result<Vec<Group>, WriteError> {
        let unplaced = || WriteError::Unavailable {
            reason: "the cluster has not placed its shards yet: not enough storage nodes have joined".into(),
            retry_after: Duration::from_secs(1),
        };
        let split = self.view.split().ok_or_else(unplaced)?;
        let WriteRequest { tenant, id, digest, rows } = request;
        let signal = rows.signal();
        let mut sets: BTreeMap<Vec<Member>, (Vec<PartRows>, Vec<Entry>)> = BTreeMap::new();
        for (shard, rows) in route(&tenant, id, split, rows) {
            let entry = self.view.entry(shard).ok_or_else(unplaced)?;
            let (parts, entries) = sets.entry(entry.members()).or_default();
            parts.push(PartRows {
                request: id,
                digest,
                tenant: tenant.clone(),
                shard,
                epoch: entry.epoch.0,
                rows,
            });
            entries.push(entry);
        }
        let group = |(parts, entries): (Vec<PartRows>, Vec<Entry>)| {
            // `route` gives shards in order, which is the order of the parts in the batch.
            let batch = Batch::encode(signal, parts);
            debug_assert!(batch.parts().is_sorted_by_key(|part| part.shard));
            Group { batch, tallies: entries.into_iter().map(Tally::new).collect() }
        };
        Ok(sets.into_values().map(group).collect())
    }

    /// Until every part has its quorum, or the deadline.
    async fn write_group(&self, mut group: Group, deadline: Instant) -> Result<(), WriteError> {
        let mut pause = RETRY_PAUSE;
        let mut with_entries = false;
        loop {
            let round = self.round(&mut group, with_entries, deadline).await?;
            if group.tallies.iter().all(Tally::is_complete) {
                return Ok(());
            }
            with_entries = round.need_entries;
            let newer = self.adopt_newer(&mut group);
            if Instant::now() + pause >= deadline {
                return Err(self.give_up(&group, &round));
            }
            if !newer && !with_entries {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    /// Sends the batch to every store that can still help and counts the answers; ends early when all is acknowledged.
    async fn round(
        &self,
        group: &mut Group,
        with_entries: bool,
        deadline: Instant,
    ) -> Result<Round, WriteError> {
        let mut sends: FuturesUnordered<_> = members_of(&group.tallies)
            .into_iter()
            .map(|member| {
                let request = self.request(group, member, with_entries);
                let link = self.link(member);
                async move {
                    let reply = match link {
                        Some(link) => link.append(request).await,
                        None => Err("its address is not known here".to_owned()),
                    };
                    (member.replica, reply)
                }
            })
            .collect();
        let round_end = deadline.min(Instant::now() + ROUND_MAX);
        let mut round = Round::default();
        loop {
            match timeout_at(round_end, sends.next()).await {
                Ok(Some((replica, Ok(reply)))) => self.count(group, replica, reply, &mut round)?,
                Ok(Some((replica, Err(error)))) => {
                    round.failures.insert(replica, error);
                }
                Ok(None) => return Ok(round),
                Err(_) => {
                    round.failures.entry(ReplicaId(0)).or_insert_with(|| "no answer in time".into());
                    return Ok(round);
                }
            }
            if group.tallies.iter().all(Tally::is_complete) {
                return Ok(round);
            }
        }
    }

    fn request(&self, group: &Group, member: Member, with_entries: bool) -> AppendRequest {
        let shards = if with_entries {
            let parts = group.batch.parts().iter().zip(&group.tallies);
            parts.map(|(part, tally)| carry(part.shard, tally.entry())).collect()
        } else {
            Vec::new()
        };
        let cluster = self.view.cluster_id().unwrap_or_default();
        let envelope = Some(envelope(cluster, None, member.replica, shards));
        AppendRequest { sequence: 0, envelope, batch: group.batch.bytes().clone() }
    }

    fn count(
        &self,
        group: &mut Group,
        replica: ReplicaId,
        reply: AppendReply,
        round: &mut Round,
    ) -> Result<(), WriteError> {
        if let Some(refusal) = reply.refusal {
            round.overloaded |= refusal.reason() == Reason::Overloaded;
            round.failures.insert(replica, refusal.message);
            return Ok(());
        }
        let mut problem = None;
        for (index, part) in reply.parts.iter().enumerate().take(group.tallies.len()) {
            match part.outcome() {
                Outcome::Acknowledged => {
                    group.tallies[index].acknowledge(Epoch(part.epoch), replica);
                }
                Outcome::Conflict => {
                    let reason =
                        "another request with the same idempotency key and other contents is stored".into();
                    return Err(WriteError::Conflict { reason });
                }
                Outcome::Stale => {
                    problem = Some("its shard map is newer");
                    if let Ok(entry) = Entry::decode(&part.entry) {
                        self.view.adopt(group.batch.parts()[index].shard, &entry);
                    }
                }
                Outcome::NeedEntry => {
                    problem = Some("it does not know its shards yet");
                    round.need_entries = true;
                }
                Outcome::NotMember => problem = Some("it is not a replica any more"),
                Outcome::Unspecified => problem = Some("it answered with an outcome that is not known here"),
            }
        }
        if let Some(problem) = problem {
            round.failures.insert(replica, problem.into());
        }
        Ok(())
    }

    /// Takes newer entries of the view into the group; whether there were any (F2).
    fn adopt_newer(&self, group: &mut Group) -> bool {
        let mut newer = false;
        for (part, tally) in group.batch.parts().iter().zip(&mut group.tallies) {
            if let Some(entry) = self.view.entry(part.shard) {
                newer |= tally.adopt(&entry);
            }
        }
        if newer {
            let shards = group.batch.parts().iter().map(|part| part.shard);
            let epochs: BTreeMap<Shard, u64> =
                shards.zip(&group.tallies).map(|(shard, tally)| (shard, tally.entry().epoch.0)).collect();
            group.batch = group.batch.with_epoch(&|shard| epochs[&shard]);
        }
        newer
    }

    fn give_up(&self, group: &Group, round: &Round) -> WriteError {
        let open: BTreeSet<u32> = (group.batch.parts().iter().zip(&group.tallies))
            .filter(|(_, tally)| !tally.is_complete())
            .map(|(part, _)| part.shard.0)
            .collect();
        let failures: Vec<String> = (round.failures.iter())
            .map(|(replica, why)| match replica.0 {
                0 => why.clone(),
                _ => format!("{}: {why}", self.view.name_of(*replica)),
            })
            .collect();
        let reason = format!(
            "no majority acknowledged {} shard(s) in time, and the outcome is unknown: send the same request again ({})",
            open.len(),
            failures.join("; ")
        );
        let retry_after = Duration::from_secs(1);
        if round.overloaded {
            WriteError::Overloaded { reason, retry_after }
        } else {
            WriteError::Unavailable { reason, retry_after }
        }
    }

    fn link(&self, member: Member) -> Option<Link> {
        if let Some(local) = self.local.get()
            && local.fence.me() == member.replica
        {
            let link = self.local_link.get_or_init(|| Link::local(&self.env, local.appender.clone()));
            return Some(link.clone());
        }
        let address = self.view.address(member.node)?;
        let mut links = self.links.lock();
        match links.get(&member.node) {
            Some((known, link)) if *known == address => Some(link.clone()),
            _ => {
                let link = Link::connect(&self.env, self.peers.clone(), address.clone());
                links.insert(member.node, (address, link.clone()));
                Some(link)
            }
        }
    }
}

/// The stores of all parts that still lack a quorum.
fn members_of(tallies: &[Tally]) -> BTreeSet<Member> {
    tallies.iter().filter(|tally| !tally.is_complete()).flat_map(|tally| tally.entry().members()).collect()
}
