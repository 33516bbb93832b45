//! Asking one leaf per storage node, with its list of shards, until every shard has answered or cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use oteld_cluster::ids::{NodeId, ReplicaId};
use oteld_cluster::shard_map::{Entry, Member};
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{LeafRequest as WireRequest, Refusal};
use oteld_query::{LeafReply, LeafRequest, Limits, QueryError, QueryErrorKind};
use oteld_store::model::{Shard, Tenant};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::ask::{Answer, Ask, AskOptions};
use crate::rpc::fence::{envelope, needed, shard_epochs};
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// How long a node that failed is asked last.
const SUSPECT: Duration = Duration::from_secs(5);

/// The cluster, as a query sees it.
pub struct FanOut {
    view: ClusterView,
    connections: Peers,
    limits: Limits,
    suspects: Mutex<BTreeMap<NodeId, (Doubt, Instant)>>,
}

/// Why a node is asked after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    Refuses,
    CannotBeReached,
}

/// What each store is asked for.
type Leaves = BTreeMap<Member, Vec<(Shard, Entry)>>;

/// Shards that still need an answer, and what was tried for them.
#[derive(Default)]
struct Pending {
    shards: BTreeSet<Shard>,
    tried: BTreeMap<Shard, BTreeSet<ReplicaId>>,
    /// Shards whose entries some store asked for.
    carried: BTreeSet<Shard>,
    /// Stores that hold a shard and have no read quorum for it: asked for what they have when nobody has one.
    incomplete: BTreeMap<Shard, Member>,
    failures: BTreeSet<String>,
}

impl FanOut {
    pub fn new(view: ClusterView, connections: Peers, limits: Limits) -> Self {
        FanOut { view, connections, limits, suspects: Mutex::default() }
    }

    /// Gives every pending shard a store that was not tried, those not in doubt first. Shards without one
    /// are given back.
    fn assign(&self, pending: &Pending) -> (Leaves, Vec<Shard>) {
        let now = Instant::now();
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, (_, until)| *until > now);
        let mut leaves = Leaves::new();
        let mut hopeless = Vec::new();
        for shard in &pending.shards {
            let Some(entry) = self.view.entry(*shard) else {
                hopeless.push(*shard);
                continue;
            };
            let tried = pending.tried.get(shard);
            let candidates = entry.old.iter().filter(|m| !tried.is_some_and(|t| t.contains(&m.replica)));
            let doubt = |member: &&Member| suspects.get(&member.node).map(|(doubt, _)| *doubt);
            match candidates.min_by_key(doubt).copied() {
                Some(member) => leaves.entry(member).or_default().push((*shard, entry)),
                None => hopeless.push(*shard),
            }
        }
        (leaves, hopeless)
    }

    async fn ask_leaf(
        &self,
        member: Member,
        shards: &[(Shard, Entry)],
        request: &WireRequest,
        carried: &BTreeSet<Shard>,
        deadline: Instant,
    ) -> Result<LeafPart, LeafError> {
        let address =
            self.view.address(member.node).ok_or_else(|| LeafError::text("has no known address"))?;
        let shards = shard_epochs(shards.iter().map(|(shard, entry)| (shard, entry)), carried);
        let cluster = self.view.cluster_id().unwrap_or_default();
        let envelope = envelope(cluster, None, member.replica, shards);
        let timeout_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        let request = WireRequest { envelope: Some(envelope), timeout_ms, ..request.clone() };
        let mut replies = self.connections.client(&address).leaf(request).await?.into_inner();
        let mut part = LeafPart::default();
        let mut packed = BytesMut::new();
        while let Some(chunk) = replies.message().await? {
            if let Some(refusal) = chunk.refusal {
                return Err(LeafError::Refused(refusal));
            }
            packed.extend_from_slice(&chunk.reply);
            part.rows_scanned += chunk.rows_scanned;
            part.bytes_scanned += chunk.bytes_scanned;
        }
        let reply = rmp_serde::from_slice(&packed)
            .map_err(|error| LeafError::text(format!("sent a reply that does not parse: {error}")))?;
        part.reply = Some(reply);
        Ok(part)
    }

    fn doubt(&self, member: Member, doubt: Doubt) {
        self.suspects.lock().insert(member.node, (doubt, Instant::now() + SUSPECT));
    }

    /// Asks all leaves at once; what each says, as it comes.
    fn ask_leaves<'a>(
        &'a self,
        leaves: Leaves,
        request: &'a WireRequest,
        carried: &'a BTreeSet<Shard>,
        deadline: Instant,
    ) -> FuturesUnordered<BoxFuture<'a, Asked>> {
        let ask = |(member, shards): (Member, Vec<(Shard, Entry)>)| {
            let ask = async move {
                let part = self.ask_leaf(member, &shards, request, carried, deadline).await;
                (member, shards, part)
            };
            ask.boxed()
        };
        leaves.into_iter().map(ask).collect()
    }

    /// Answers for shards that no replica could make complete with what one of them has, and says so (R4).
    async fn ask_for_parts(
        &self,
        hopeless: &[Shard],
        total: usize,
        request: &WireRequest,
        pending: &mut Pending,
        answer: &mut Answer,
        time: TimeLimit,
    ) -> Result<(), QueryError> {
        let mut leaves = Leaves::new();
        let mut missing = Vec::new();
        for shard in hopeless {
            match (pending.incomplete.get(shard), self.view.entry(*shard)) {
                (Some(member), Some(entry)) => leaves.entry(*member).or_default().push((*shard, entry)),
                _ => missing.push(*shard),
            }
        }
        let request = WireRequest { eventual: true, ..request.clone() };
        let carried = hopeless.iter().copied().collect();
        let mut asked = self.ask_leaves(leaves, &request, &carried, time.deadline);
        let mut partial = 0;
        while let Some((member, shards, part)) = time.wait(asked.next()).await? {
            match part {
                Ok(part) => {
                    partial += shards.len();
                    part.add_to(answer);
                }
                Err(error) => {
                    self.learn(member, &shards, error, pending)?;
                    missing.extend(shards.iter().map(|(shard, _)| *shard));
                }
            }
        }
        let failures = pending.failures.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
        if answer.replies.is_empty() {
            let reason = format!("no storage node could be asked: {failures}");
            return Err(QueryError::new(QueryErrorKind::Unavailable, reason));
        }
        if partial > 0 {
            answer.incomplete.push(format!("{partial} of {total} shards may lack rows: {failures}"));
        }
        if !missing.is_empty() {
            let count = missing.len();
            answer.incomplete.push(format!("{count} of {total} shards could not be reached: {failures}"));
        }
        if oteld_env::mutant("partial-flag-swallowed") {
            answer.incomplete.clear();
        }
        Ok(())
    }

    /// Takes what a failed leaf teaches; an error of the query itself ends it.
    fn learn(
        &self,
        member: Member,
        shards: &[(Shard, Entry)],
        error: LeafError,
        pending: &mut Pending,
    ) -> Result<(), QueryError> {
        let name = self.view.name_of(member.replica);
        match error {
            LeafError::Refused(refusal) => match refusal.reason() {
                Reason::Query => {
                    let unreadable = |_| QueryError::new(QueryErrorKind::Internal, refusal.message.clone());
                    return Err(serde_json::from_str(&refusal.message).unwrap_or_else(unreadable));
                }
                Reason::Stale => {
                    self.view.learn_from(&refusal);
                    pending.failures.insert(format!("{name}: {}", refusal.message));
                    return Ok(());
                }
                Reason::NeedEntry if !needed(&refusal).is_subset(&pending.carried) => {
                    pending.carried.extend(needed(&refusal));
                    return Ok(());
                }
                Reason::Incomplete if !refusal.shards.is_empty() => {
                    self.doubt(member, Doubt::Refuses);
                    pending.failures.insert(format!("{name}: {}", refusal.message));
                    for shard in refusal.shards.iter().map(|shard| Shard(shard.shard)) {
                        pending.incomplete.entry(shard).or_insert(member);
                        pending.tried.entry(shard).or_default().insert(member.replica);
                    }
                    return Ok(());
                }
                _ => {
                    self.doubt(member, Doubt::Refuses);
                    pending.failures.insert(format!("{name}: {}", refusal.message));
                }
            },
            LeafError::Failed(text) => {
                self.doubt(member, Doubt::CannotBeReached);
                pending.failures.insert(format!("{name} {text}"));
            }
        }
        for (shard, _) in shards {
            pending.tried.entry(*shard).or_default().insert(member.replica);
        }
        Ok(())
    }
}

#[async_trait]
impl Ask for FanOut {
    async fn ask(
        &self,
        tenant: &Tenant,
        request: LeafRequest,
        options: AskOptions,
    ) -> Result<Answer, QueryError> {
        let internal =
            |error| QueryError::new(QueryErrorKind::Internal, format!("packing a request: {error}"));
        let request = WireRequest {
            envelope: None,
            tenant: tenant.0.to_string(),
            eventual: options.eventual,
            timeout_ms: 0,
            request: Bytes::from(rmp_serde::to_vec_named(&request).map_err(internal)?),
            limits: Bytes::from(rmp_serde::to_vec_named(&self.limits).map_err(internal)?),
        };
        let timeout_ms = options.timeout_ms.unwrap_or(self.limits.timeout_ms).min(self.limits.timeout_ms);
        let time = TimeLimit { timeout_ms, deadline: Instant::now() + Duration::from_millis(timeout_ms) };
        let shards: BTreeSet<Shard> = self.view.entries().into_iter().map(|(shard, _)| shard).collect();
        if shards.is_empty() {
            let reason = "the cluster has not placed its shards yet: not enough storage nodes have joined";
            return Err(QueryError::new(QueryErrorKind::Unavailable, reason));
        }
        let total = shards.len();
        let mut pending = Pending { shards, ..Pending::default() };
        let mut answer = Answer::default();
        let mut hopeless = Vec::new();
        while !pending.shards.is_empty() {
            let (leaves, without) = self.assign(&pending);
            for shard in without {
                pending.shards.remove(&shard);
                hopeless.push(shard);
            }
            let carried = pending.carried.clone();
            let mut asked = self.ask_leaves(leaves, &request, &carried, time.deadline);
            while let Some((member, shards, part)) = time.wait(asked.next()).await? {
                match part {
                    Ok(part) => {
                        shards.iter().for_each(|(shard, _)| {
                            pending.shards.remove(shard);
                        });
                        part.add_to(&mut answer);
                    }
                    Err(LeafError::Failed(_)) if oteld_env::mutant("failed-leaf-counted-as-empty") => {
                        pending.shards.retain(|shard| !shards.iter().any(|(answered, _)| answered == shard));
                    }
                    Err(error) => self.learn(member, &shards, error, &mut pending)?,
                }
            }
        }
        if !hopeless.is_empty() {
            self.ask_for_parts(&hopeless, total, &request, &mut pending, &mut answer, time).await?;
        }
        Ok(answer)
    }
}

/// How long a query may take.
#[derive(Clone, Copy)]
struct TimeLimit {
    timeout_ms: u64,
    deadline: Instant,
}

impl TimeLimit {
    /// What `next` gives, unless the time is over before.
    async fn wait<T>(self, next: impl Future<Output = T>) -> Result<T, QueryError> {
        let reason = || format!("the query reached its time limit of {} ms", self.timeout_ms);
        let over = |_| QueryError::new(QueryErrorKind::Timeout, reason());
        timeout_at(self.deadline, next).await.map_err(over)
    }
}

/// A leaf that was asked, and what it said.
type Asked = (Member, Vec<(Shard, Entry)>, Result<LeafPart, LeafError>);

#[derive(Default)]
struct LeafPart {
    reply: Option<LeafReply>,
    rows_scanned: u64,
    bytes_scanned: u64,
}

impl LeafPart {
    fn add_to(self, answer: &mut Answer) {
        answer.replies.extend(self.reply);
        answer.rows_scanned += self.rows_scanned;
        answer.bytes_scanned += self.bytes_scanned;
    }
}

enum LeafError {
    Failed(String),
    Refused(Refusal),
}

impl LeafError {
    fn text(text: impl Into<String>) -> Self {
        LeafError::Failed(text.into())
    }
}

impl From<tonic::Status> for LeafError {
    fn from(status: tonic::Status) -> Self {
        LeafError::Failed(format!("cannot be reached ({})", status.message()))
    }
}
