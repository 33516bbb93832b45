//! Asking one leaf per storage node, with its list of shards, until every shard has answered or cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
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
    suspects: Mutex<BTreeMap<NodeId, Instant>>,
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
    failures: BTreeSet<String>,
}

impl FanOut {
    pub fn new(view: ClusterView, connections: Peers, limits: Limits) -> Self {
        FanOut { view, connections, limits, suspects: Mutex::default() }
    }

    /// Gives every pending shard a store that was not tried, those not under suspicion first. Shards without one
    /// are given back.
    fn assign(&self, pending: &Pending) -> (Leaves, Vec<Shard>) {
        let now = Instant::now();
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, until| *until > now);
        let mut leaves = Leaves::new();
        let mut hopeless = Vec::new();
        for shard in &pending.shards {
            let Some(entry) = self.view.entry(*shard) else {
                hopeless.push(*shard);
                continue;
            };
            let tried = pending.tried.get(shard);
            let mut candidates = entry.old.iter().filter(|m| !tried.is_some_and(|t| t.contains(&m.replica)));
            let trusted = candidates.clone().find(|member| !suspects.contains_key(&member.node));
            match trusted.or_else(|| candidates.next()).copied() {
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
            part.incomplete.extend(chunk.incomplete);
            part.rows_scanned += chunk.rows_scanned;
            part.bytes_scanned += chunk.bytes_scanned;
        }
        let reply = rmp_serde::from_slice(&packed)
            .map_err(|error| LeafError::text(format!("sent a reply that does not parse: {error}")))?;
        part.reply = Some(reply);
        Ok(part)
    }

    /// Asks `member`; where its answer is not complete, asks the other replicas of all these shards too, and takes
    /// the first complete answer, else the first one.
    async fn ask_replicas(
        &self,
        member: Member,
        shards: &[(Shard, Entry)],
        request: &WireRequest,
        carried: &BTreeSet<Shard>,
        deadline: Instant,
    ) -> Result<LeafPart, LeafError> {
        let first = self.ask_leaf(member, shards, request, carried, deadline).await?;
        if first.incomplete.is_empty() {
            return Ok(first);
        }
        let others = shards.first().map_or(&[][..], |(_, entry)| &entry.old);
        let holds_all = |other: &Member| shards.iter().all(|(_, entry)| entry.old.contains(other));
        for other in others.iter().filter(|other| **other != member && holds_all(other)) {
            let again = self.ask_leaf(*other, shards, request, carried, deadline).await;
            if let Ok(part) = again
                && part.incomplete.is_empty()
            {
                return Ok(part);
            }
        }
        Ok(first)
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
                _ => {
                    pending.failures.insert(format!("{name}: {}", refusal.message));
                }
            },
            LeafError::Failed(text) => {
                self.suspects.lock().insert(member.node, Instant::now() + SUSPECT);
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
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let shards: BTreeSet<Shard> = self.view.entries().into_iter().map(|(shard, _)| shard).collect();
        if shards.is_empty() {
            let reason = "the cluster has not placed its shards yet: not enough storage nodes have joined";
            return Err(QueryError::new(QueryErrorKind::Unavailable, reason));
        }
        let total = shards.len();
        let mut pending = Pending { shards, ..Pending::default() };
        let mut answer = Answer::default();
        while !pending.shards.is_empty() {
            let (leaves, hopeless) = self.assign(&pending);
            for shard in &hopeless {
                pending.shards.remove(shard);
            }
            if !hopeless.is_empty() {
                if answer.replies.is_empty() && pending.shards.is_empty() {
                    return Err(unreachable(&pending));
                }
                answer.incomplete.push(missing(hopeless.len(), total, &pending));
            }
            let carried = &pending.carried.clone();
            let mut asked: FuturesUnordered<_> = (leaves.into_iter())
                .map(|(member, shards)| {
                    let request = &request;
                    async move {
                        let part = self.ask_replicas(member, &shards, request, carried, deadline).await;
                        (member, shards, part)
                    }
                })
                .collect();
            loop {
                match timeout_at(deadline, asked.next()).await {
                    Ok(None) => break,
                    Ok(Some((_, shards, Ok(part)))) => {
                        shards.iter().for_each(|(shard, _)| {
                            pending.shards.remove(shard);
                        });
                        part.add_to(&mut answer);
                    }
                    Ok(Some((member, shards, Err(error)))) => {
                        self.learn(member, &shards, error, &mut pending)?;
                    }
                    Err(_) => {
                        let reason = format!("the query reached its time limit of {timeout_ms} ms");
                        return Err(QueryError::new(QueryErrorKind::Timeout, reason));
                    }
                }
            }
        }
        Ok(answer)
    }
}

fn missing(count: usize, total: usize, pending: &Pending) -> String {
    let failures: Vec<&str> = pending.failures.iter().map(String::as_str).collect();
    format!("{count} of {total} shards could not be reached: {}", failures.join("; "))
}

fn unreachable(pending: &Pending) -> QueryError {
    let failures: Vec<&str> = pending.failures.iter().map(String::as_str).collect();
    let reason = format!("no storage node could be asked: {}", failures.join("; "));
    QueryError::new(QueryErrorKind::Unavailable, reason)
}

#[derive(Default)]
struct LeafPart {
    reply: Option<LeafReply>,
    incomplete: Vec<String>,
    rows_scanned: u64,
    bytes_scanned: u64,
}

impl LeafPart {
    fn add_to(self, answer: &mut Answer) {
        answer.replies.extend(self.reply);
        answer.incomplete.extend(self.incomplete);
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
