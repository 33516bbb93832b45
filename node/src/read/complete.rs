//! Making a leaf's view complete before it answers (PROTOCOL R1 to R4): whatever was acknowledged before the
//! query is in the pinned scan, and whatever the scan shows is durable on a quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use oteld_cluster::ids::ReplicaId;
use oteld_cluster::shard_map::{Entry, Member};
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{CheckRequest, Envelope, HoldRequest, Refusal, ShardEpoch};
use oteld_store::model::Shard;
use oteld_store::{Pin, Prefix, Store};
use tokio::time::{Instant, timeout_at};

use crate::repair::tail::{from_wire, to_wire};
use crate::repair::tails::Tails;
use crate::rpc::fence::{Fence, carry, envelope, needed, shard_epochs};
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// Longest wait for other replicas; then the answer is partial and says so.
pub const COMPLETE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What a leaf may show.
pub struct Completed {
    pub pin: Pin,
    /// Shards whose quorum was not reached, with the reason; their rows may be missing (R4).
    pub incomplete: Vec<String>,
}

/// The parts of a storage node that completeness needs.
#[derive(Clone)]
pub struct Completer {
    pub store: Store,
    pub fence: Arc<Fence>,
    pub tails: Arc<Tails>,
    pub view: ClusterView,
    pub connections: Peers,
}

impl Completer {
    /// Checks, pulls, pins and holds. Refusals that carry newer entries are returned: the front must start again.
    pub async fn complete(&self, shards: &[Shard], deadline: Instant) -> Result<Completed, Refusal> {
        let deadline = deadline.min(Instant::now() + COMPLETE_WAIT_MAX);
        let entries: BTreeMap<Shard, Entry> =
            shards.iter().filter_map(|shard| Some((*shard, self.fence.entry(*shard)?))).collect();
        let members: BTreeSet<Member> = (entries.values())
            .flat_map(Entry::members)
            .filter(|member| member.replica != self.fence.me())
            .collect();
        let mut failures = Vec::new();
        // R1 and R2, peer by peer: ask for its position, and wait until its log is held here up to there.
        let checks = members.iter().map(|member| self.check_and_pull(*member, &entries, deadline));
        let caught_up = self.until_quorum(checks.collect(), &entries, deadline, &mut failures).await?;
        let pin = self.store.pin();
        self.still_at(&entries)?;
        // R3 in the other direction: what the pin shows must be durable on all that were asked.
        let position = self.store.published_up_to(pin.position());
        let holds = members.iter().filter(|member| caught_up.contains(&member.replica));
        let holds = holds.map(|member| self.hold(*member, &entries, position, deadline));
        let mut agreed = self.until_quorum(holds.collect(), &entries, deadline, &mut failures).await?;
        agreed.insert(self.fence.me());
        let missing: Vec<u32> = (entries.iter())
            .filter(|(_, entry)| !entry.quorum().is_reached(&agreed))
            .map(|(shard, _)| shard.0)
            .collect();
        let mut incomplete = Vec::new();
        if !missing.is_empty() {
            failures.sort();
            failures.dedup();
            incomplete.push(format!(
                "{} of {} shards on {} could not reach a read quorum: {}",
                missing.len(),
                entries.len(),
                self.view.name_of(self.fence.me()),
                failures.join("; ")
            ));
        }
        Ok(Completed { pin, incomplete })
    }

    /// Whether the fence is as it was when the query began: what came after it was raised is not among the positions
    /// of a move, and must not be shown by it.
    fn still_at(&self, entries: &BTreeMap<Shard, Entry>) -> Result<(), Refusal> {
        let raised = entries.iter().filter_map(|(shard, entry)| {
            let own = self.fence.entry(*shard).filter(|own| own.epoch != entry.epoch)?;
            Some(carry(*shard, &own))
        });
        let shards: Vec<ShardEpoch> = raised.collect();
        if shards.is_empty() {
            return Ok(());
        }
        Err(Refusal { reason: Reason::Stale.into(), message: "epochs changed meanwhile".into(), shards })
    }

    /// Drives `steps` until the stores that are done, with this one, are a quorum of every shard; or all are done,
    /// or the deadline.
    async fn until_quorum<F>(
        &self,
        mut steps: FuturesUnordered<F>,
        entries: &BTreeMap<Shard, Entry>,
        deadline: Instant,
        failures: &mut Vec<String>,
    ) -> Result<BTreeSet<ReplicaId>, Refusal>
    where
        F: Future<Output = (Member, Result<(), StepError>)>,
    {
        let mut done = BTreeSet::from([self.fence.me()]);
        while !entries.values().all(|entry| entry.quorum().is_reached(&done)) {
            match timeout_at(deadline, steps.next()).await {
                Ok(Some((member, Ok(())))) => {
                    done.insert(member.replica);
                }
                Ok(Some((_, Err(StepError::Refused(refusal))))) if !refusal.shards.is_empty() => {
                    return Err(refusal);
                }
                Ok(Some((member, Err(error)))) => {
                    failures.push(format!("{} {}", self.view.name_of(member.replica), error.text()));
                }
                Ok(None) => break,
                Err(_) => {
                    failures.push("other replicas did not answer in time".into());
                    break;
                }
            }
        }
        Ok(done)
    }

    async fn check_and_pull(
        &self,
        member: Member,
        entries: &BTreeMap<Shard, Entry>,
        deadline: Instant,
    ) -> (Member, Result<(), StepError>) {
        let result = async {
            let address = self.view.address(member.node).ok_or(StepError::Text("has no known address"))?;
            let mut carried = BTreeSet::new();
            let reply = loop {
                let request = CheckRequest { envelope: Some(self.envelope(member, entries, &carried)) };
                let reply = self.connections.client(&address).check(request).await?.into_inner();
                match reply.refusal {
                    // It lacks entries: they come along with the next.
                    Some(refusal) if !needed(&refusal).is_subset(&carried) => carried = needed(&refusal),
                    Some(refusal) => return Err(StepError::Refused(refusal)),
                    None => break reply,
                }
            };
            let position = reply.position.map(from_wire).unwrap_or_default();
            let shared =
                entries.iter().filter(|(_, entry)| entry.has(member.replica)).map(|(shard, _)| *shard);
            if !self.tails.await_held(member.replica, &shared.collect(), &position, deadline).await {
                return Err(StepError::Text("has rows that could not be pulled in time"));
            }
            Ok(())
        };
        (member, result.await)
    }

    async fn hold(
        &self,
        member: Member,
        entries: &BTreeMap<Shard, Entry>,
        position: Prefix,
        deadline: Instant,
    ) -> (Member, Result<(), StepError>) {
        let result = async {
            let address = self.view.address(member.node).ok_or(StepError::Text("has no known address"))?;
            let request = HoldRequest {
                envelope: Some(self.envelope(member, entries, &BTreeSet::new())),
                position: Some(to_wire(position)),
            };
            let reply = timeout_at(deadline, self.connections.client(&address).hold(request)).await;
            let reply = reply.map_err(|_| StepError::Text("did not answer in time"))??.into_inner();
            reply.refusal.map_or(Ok(()), |refusal| Err(StepError::Refused(refusal)))
        };
        (member, result.await)
    }

    /// Names the shards that both are replicas of.
    fn envelope(
        &self,
        member: Member,
        entries: &BTreeMap<Shard, Entry>,
        carried: &BTreeSet<Shard>,
    ) -> Envelope {
        let shared = entries.iter().filter(|(_, entry)| entry.has(member.replica));
        let shards = shard_epochs(shared, carried);
        envelope(self.fence.cluster(), Some(self.fence.me()), member.replica, shards)
    }
}

enum StepError {
    Text(&'static str),
    Rpc(tonic::Status),
    Refused(Refusal),
}

impl StepError {
    fn text(&self) -> String {
        match self {
            StepError::Text(text) => (*text).to_owned(),
            StepError::Rpc(status) => format!("cannot be reached ({})", status.message()),
            StepError::Refused(refusal) => format!("refused ({})", refusal.message),
        }
    }
}

impl From<tonic::Status> for StepError {
    fn from(status: tonic::Status) -> Self {
        StepError::Rpc(status)
    }
}
