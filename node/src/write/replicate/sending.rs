//! One batch, sent until a majority of every part's replicas has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use oteld_cluster::ids::{Epoch, ReplicaId};
use oteld_cluster::shard_map::{Entry, Member, Tally};
use oteld_proto::node::part_reply::Outcome;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{AppendReply, Envelope};
use oteld_store::batch::{Batch, PartRows};
use oteld_store::model::{Shard, Signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::gather::Waiting;
use super::link::LinkError;
use super::{Links, Share};
use crate::rpc::fence::{carry, envelope};
use crate::write::request::WriteError;

/// Pause before the replicas that did not acknowledge are tried again; it doubles up to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Longest wait for one round of answers: then the silent are tried again.
const ROUND_MAX: Duration = Duration::from_secs(3);

/// How long a batch is tried whose replicas refuse connections, so that no majority can be reached: long enough for a
/// restart. The sender tries again, and knows better than a time-out would tell it.
const UNREACHABLE_MAX: Duration = Duration::from_secs(2);

/// Requests in one batch.
pub(super) struct Sending<'a> {
    links: &'a Links,
    begun: Instant,
    deadline: Instant,
    batch: Batch,
    /// Of the parts of the batch, in its order.
    parts: Vec<OpenPart>,
    requests: Vec<OpenRequest>,
}

struct OpenPart {
    /// Index of its request.
    request: usize,
    tally: Tally,
}

struct OpenRequest {
    /// Parts without a quorum.
    open: usize,
    /// Taken when the request is answered.
    done: Option<oneshot::Sender<Result<(), WriteError>>>,
}

/// Why a batch is not acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Problem {
    /// By replica, in words.
    failures: Vec<String>,
    overloaded: bool,
}

impl Problem {
    pub(super) fn into_error(self, shards: usize) -> WriteError {
        let failures = match self.failures.is_empty() {
            true => "no answer yet".to_owned(),
            false => self.failures.join("; "),
        };
        let reason = format!(
            "no majority acknowledged {shards} shard(s) in time, and the outcome is unknown: send the same request \
             again ({failures})"
        );
        let retry_after = Duration::from_secs(1);
        if self.overloaded {
            WriteError::Overloaded { reason, retry_after }
        } else {
            WriteError::Unavailable { reason, retry_after }
        }
    }
}

/// What one round brought.
#[derive(Default)]
struct Round {
    /// Why a store did not acknowledge, by store.
    failures: BTreeMap<ReplicaId, String>,
    /// Stores that take no connection.
    unreachable: BTreeSet<ReplicaId>,
    overloaded: bool,
    /// Not all answered in time.
    silent: bool,
    /// Stores that lack entries: the next round carries them.
    need_entries: bool,
}

impl<'a> Sending<'a> {
    pub(super) fn new(links: &'a Links, signal: Signal, waiting: Vec<Waiting>) -> Self {
        let begun = Instant::now();
        let deadline = waiting.iter().map(|waiting| waiting.deadline).max().unwrap_or(begun);
        let mut parts: Vec<(PartRows, Entry, usize)> = Vec::new();
        let mut requests = Vec::with_capacity(waiting.len());
        for (request, waiting) in waiting.into_iter().enumerate() {
            let Share { parts: share, entries, .. } = waiting.share;
            requests.push(OpenRequest { open: share.len(), done: Some(waiting.done) });
            parts.extend(share.into_iter().zip(entries).map(|(part, entry)| (part, entry, request)));
        }
        // The order in which the batch has them.
        parts.sort_by_key(|(part, ..)| (part.shard, part.request));
        let mut rows = Vec::with_capacity(parts.len());
        let mut open = Vec::with_capacity(parts.len());
        for (mut part, entry, request) in parts {
            part.epoch = entry.epoch.0;
            rows.push(part);
            open.push(OpenPart { request, tally: Tally::new(entry) });
        }
        Sending { links, begun, deadline, batch: Batch::encode(signal, rows), parts: open, requests }
    }

    /// Until every request is answered. `report` hears what each round came to.
    pub(super) async fn run(&mut self, report: &(dyn Fn(Option<Problem>) + Sync)) {
        let mut pause = RETRY_PAUSE;
        let mut with_entries = false;
        loop {
            let round = self.round(with_entries).await;
            self.drop_answered();
            if self.parts.is_empty() {
                return report(None);
            }
            let problem = self.problem(&round);
            report(Some(problem.clone()));
            with_entries = round.need_entries;
            let newer = self.adopt_newer();
            let hopeless = self.is_unreachable(&round) && self.begun.elapsed() >= UNREACHABLE_MAX;
            if hopeless || Instant::now() + pause >= self.deadline {
                return self.give_up(&problem);
            }
            if !newer && !with_entries {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    /// Sends the batch to every store that can still help and counts the answers; ends early when all requests are
    /// answered.
    async fn round(&mut self, with_entries: bool) -> Round {
        let mut sends: FuturesUnordered<_> = self
            .members()
            .into_iter()
            .map(|member| {
                let (envelope, batch) = (self.envelope(member, with_entries), self.batch.clone());
                let link = self.links.to(member);
                async move {
                    let reply = match link {
                        Some(link) => link.append(envelope, batch).await,
                        None => Err(LinkError::Unreachable("its address is not known here".to_owned())),
                    };
                    (member.replica, reply)
                }
            })
            .collect();
        let round_end = self.deadline.min(Instant::now() + ROUND_MAX);
        let mut round = Round::default();
        while self.requests.iter().any(|request| request.done.is_some()) {
            match timeout_at(round_end, sends.next()).await {
                Ok(Some((replica, Ok(reply)))) => self.count(replica, reply, &mut round),
                Ok(Some((replica, Err(error)))) => {
                    if matches!(error, LinkError::Unreachable(_)) {
                        round.unreachable.insert(replica);
                    }
                    round.failures.insert(replica, error.to_string());
                }
                Ok(None) => break,
                Err(_) => {
                    round.silent = true;
                    break;
                }
            }
        }
        round
    }

    /// The stores of all parts that still lack a quorum.
    fn members(&self) -> BTreeSet<Member> {
        let open = self.parts.iter().filter(|part| !part.tally.is_complete());
        open.flat_map(|part| part.tally.entry().members()).collect()
    }

    fn envelope(&self, member: Member, with_entries: bool) -> Envelope {
        let shards = if with_entries {
            let parts = self.batch.parts().iter().zip(&self.parts);
            let entries: BTreeMap<Shard, &Entry> =
                parts.map(|(header, part)| (header.shard, part.tally.entry())).collect();
            entries.into_iter().map(|(shard, entry)| carry(shard, entry)).collect()
        } else {
            Vec::new()
        };
        let cluster = self.links.view.cluster_id().unwrap_or_default();
        envelope(cluster, None, member.replica, shards)
    }

    fn count(&mut self, replica: ReplicaId, reply: AppendReply, round: &mut Round) {
        if let Some(refusal) = reply.refusal {
            round.overloaded |= refusal.reason() == Reason::Overloaded;
            round.failures.insert(replica, refusal.message);
            return;
        }
        let mut problem = None;
        for (index, part) in reply.parts.iter().enumerate().take(self.parts.len()) {
            match part.outcome() {
                Outcome::Acknowledged => self.acknowledge(index, Epoch(part.epoch), replica),
                Outcome::Conflict => {
                    let reason =
                        "another request with the same idempotency key and other contents is stored".into();
                    self.answer(self.parts[index].request, Err(WriteError::Conflict { reason }));
                }
                Outcome::Stale => {
                    problem = Some("its shard map is newer");
                    if let Ok(entry) = Entry::decode(&part.entry) {
                        self.links.view.adopt(self.batch.parts()[index].shard, &entry);
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
    }

    /// Counts (F1); a request is answered when all of its parts have their quorum (F3).
    fn acknowledge(&mut self, part: usize, epoch: Epoch, replica: ReplicaId) {
        let OpenPart { request, tally } = &mut self.parts[part];
        let before = tally.is_complete();
        tally.acknowledge(epoch, replica);
        if !before && tally.is_complete() {
            let request = *request;
            self.requests[request].open -= 1;
            if self.requests[request].open == 0 {
                self.answer(request, Ok(()));
            }
        }
    }

    fn answer(&mut self, request: usize, outcome: Result<(), WriteError>) {
        if let Some(done) = self.requests[request].done.take() {
            // Nobody may wait any more.
            let _ = done.send(outcome);
        }
    }

    /// Leaves parts out that have their quorum, or whose request was answered or is waited for by nobody.
    fn drop_answered(&mut self) {
        for request in &mut self.requests {
            request.done.take_if(|done| done.is_closed());
        }
        let is_open =
            |part: &OpenPart| !part.tally.is_complete() && self.requests[part.request].done.is_some();
        let open: Vec<usize> = (0..self.parts.len()).filter(|part| is_open(&self.parts[*part])).collect();
        if open.len() == self.parts.len() {
            return;
        }
        if !open.is_empty() {
            self.batch = self.batch.select(&open).expect("this process encoded it");
        }
        let mut index = 0;
        self.parts.retain(|_| {
            index += 1;
            open.binary_search(&(index - 1)).is_ok()
        });
    }

    /// Takes newer entries of the view into the batch; whether there were any (F2).
    fn adopt_newer(&mut self) -> bool {
        let mut newer = false;
        for (header, part) in self.batch.parts().iter().zip(&mut self.parts) {
            if let Some(entry) = self.links.view.entry(header.shard) {
                newer |= part.tally.adopt(&entry);
            }
        }
        if newer {
            let shards = self.batch.parts().iter().map(|part| part.shard);
            let epochs: BTreeMap<Shard, u64> =
                shards.zip(&self.parts).map(|(shard, part)| (shard, part.tally.entry().epoch.0)).collect();
            self.batch = self.batch.with_epoch(&|shard| epochs[&shard]);
        }
        newer
    }

    /// Whether some part cannot have a quorum without the stores that take no connection.
    fn is_unreachable(&self, round: &Round) -> bool {
        let possible = |part: &OpenPart| part.tally.entry().quorum().is_possible_without(&round.unreachable);
        !self.parts.iter().all(possible)
    }

    fn problem(&self, round: &Round) -> Problem {
        let name = |replica: &ReplicaId| self.links.view.name_of(*replica);
        let failures = round.failures.iter().map(|(replica, why)| format!("{}: {why}", name(replica)));
        let silent = round.silent.then(|| "not all answered in time".to_owned());
        Problem { failures: failures.chain(silent).collect(), overloaded: round.overloaded }
    }

    fn give_up(&mut self, problem: &Problem) {
        for request in 0..self.requests.len() {
            let open = self.requests[request].open;
            self.answer(request, Err(problem.clone().into_error(open)));
        }
    }
}
