//! Making a leaf's view complete before it answers (PROTOCOL R1 to R4): whatever was acknowledged before the
//! query is in the pinned scan, and whatever the scan shows is durable on a quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use oteld_cluster::ids::ReplicaId;
use oteld_cluster::shard_map::{Entry, Member};
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{CheckRequest, Envelope, HoldRequest, Refusal, ShardEpoch};
use oteld_store::model::Shard;
use oteld_store::{Pin, Prefix, Store};
use tokio::time::{Instant, timeout_at};

use crate::repair::tail::{from_wire, to_wire};
use crate::repair::tails::Tails;
use crate::rpc::fence::{Fence, carry, envelope, mention, needed, shard_epochs};
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// Longest wait for other replicas; then the front asks another leaf.
pub const COMPLETE_WAIT_MAX: Duration = Duration::from_secs(5);

/// After so long without a quorum, those that were checked meanwhile are asked too.
const HEDGE: Duration = Duration::from_millis(250);

/// The parts of a storage node that completeness needs.
#[derive(Clone)]
pub struct Completer {
    pub store: Store,
    pub fence: Arc<Fence>,
    pub tails: Arc<Tails>,
    pub view: ClusterView,
    pub connections: Peers,
}

/// A try to make what one pin shows durable on a quorum (R3).
struct Round {
    pin: Pin,
    /// Those that had been checked and pulled from when the pin was taken.
    asked: BTreeSet<Member>,
    /// Those of them that hold all that the pin shows, and this store.
    agreed: BTreeSet<ReplicaId>,
    has_failed: bool,
}

/// An answer of another replica.
enum Step {
    Checked(Member, Result<(), StepError>),
    Held(usize, Member, Result<(), StepError>),
}

/// Steps under way.
type Steps<'a> = FuturesUnordered<BoxFuture<'a, Step>>;

impl Completer {
    /// Checks, pulls, pins and holds. The set S of the protocol is chosen on the way: who is checked and pulled from
    /// is asked to hold the pin, and where that fails or takes long, another pin is tried with those that came later.
    ///
    /// # Errors
    /// Refusals that carry newer entries: the front must start again. INCOMPLETE with the shards whose quorum was not
    /// reached: the front asks other replicas (R4).
    pub async fn complete(&self, shards: &[Shard], deadline: Instant) -> Result<Pin, Refusal> {
        let deadline = deadline.min(Instant::now() + COMPLETE_WAIT_MAX);
        let entries: BTreeMap<Shard, Entry> =
            shards.iter().filter_map(|shard| Some((*shard, self.fence.entry(*shard)?))).collect();
        let members: BTreeSet<Member> = (entries.values())
            .flat_map(Entry::members)
            .filter(|member| member.replica != self.fence.me())
            .collect();
        let mut steps = Steps::new();
        for member in &members {
            let (member, entries) = (*member, &entries);
            let check = self.check_and_pull(member, entries, deadline);
            steps.push(check.map(move |result| Step::Checked(member, result)).boxed());
        }
        let mut checked = BTreeSet::new();
        let mut rounds: Vec<Round> = Vec::new();
        let mut failures = Vec::new();
        let mut patience = Instant::now() + HEDGE;
        loop {
            let last = rounds.last();
            let is_stuck =
                steps.is_empty() || patience <= Instant::now() || last.is_some_and(|r| r.has_failed);
            let is_due = match last {
                None => self.is_quorum(&entries, &checked) || is_stuck && !checked.is_empty(),
                Some(round) => is_stuck && round.asked != checked,
            };
            if is_due {
                patience = Instant::now() + HEDGE;
                self.start_round(&entries, &checked, &mut rounds, &mut steps, deadline)?;
            }
            let done = rounds.iter().position(|round| missing(&entries, &round.agreed).is_empty());
            if let Some(done) = done {
                return Ok(rounds.swap_remove(done).pin);
            }
            let has_more = rounds.last().map_or(!checked.is_empty(), |round| round.asked != checked);
            let wake = if has_more { patience.min(deadline) } else { deadline };
            match timeout_at(wake, steps.next()).await {
                Ok(Some(step)) => self.take(step, &mut checked, &mut rounds, &mut failures)?,
                Ok(None) if has_more => {}
                Ok(None) => break,
                Err(_) if Instant::now() < deadline => {}
                Err(_) => {
                    failures.push("other replicas did not answer in time".into());
                    break;
                }
            }
        }
        Err(self.incomplete(&entries, &rounds, failures))
    }

    fn is_quorum(&self, entries: &BTreeMap<Shard, Entry>, checked: &BTreeSet<Member>) -> bool {
        let replicas = checked.iter().map(|member| member.replica).chain([self.fence.me()]).collect();
        missing(entries, &replicas).is_empty()
    }

    /// Pins, and asks all who were checked to hold what the pin shows.
    fn start_round<'a>(
        &'a self,
        entries: &'a BTreeMap<Shard, Entry>,
        checked: &BTreeSet<Member>,
        rounds: &mut Vec<Round>,
        steps: &mut Steps<'a>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let pin = self.store.pin();
        self.still_at(entries)?;
        let position = self.store.published_up_to(pin.position());
        for member in checked {
            let (member, number) = (*member, rounds.len());
            let hold = self.hold(member, entries, position, deadline);
            steps.push(hold.map(move |result| Step::Held(number, member, result)).boxed());
        }
        let mut agreed = BTreeSet::from([self.fence.me()]);
        if oteld_env::mutant("hold-skipped") {
            agreed.extend(checked.iter().map(|member| member.replica));
        }
        rounds.push(Round { pin, asked: checked.clone(), agreed, has_failed: false });
        Ok(())
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

    fn take(
        &self,
        step: Step,
        checked: &mut BTreeSet<Member>,
        rounds: &mut [Round],
        failures: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let (member, error) = match step {
            Step::Checked(member, Ok(())) => {
                checked.insert(member);
                return Ok(());
            }
            Step::Held(round, member, Ok(())) => {
                rounds[round].agreed.insert(member.replica);
                return Ok(());
            }
            Step::Checked(member, Err(error)) => (member, error),
            Step::Held(round, member, Err(error)) => {
                rounds[round].has_failed = true;
                (member, error)
            }
        };
        match error {
            StepError::Refused(refusal) if !refusal.shards.is_empty() => Err(refusal),
            error => {
                failures.push(format!("{} {}", self.view.name_of(member.replica), error.text()));
                Ok(())
            }
        }
    }

    /// Says which shards have no quorum, and why.
    fn incomplete(
        &self,
        entries: &BTreeMap<Shard, Entry>,
        rounds: &[Round],
        mut failures: Vec<String>,
    ) -> Refusal {
        let missing = |round: &Round| missing(entries, &round.agreed);
        let all = || entries.keys().copied().collect();
        let shards: Vec<Shard> = rounds.iter().map(missing).min_by_key(Vec::len).unwrap_or_else(all);
        failures.sort();
        failures.dedup();
        let message = format!(
            "{} of {} shards could not reach a read quorum: {}",
            shards.len(),
            entries.len(),
            failures.join("; ")
        );
        let shards = shards.iter().map(|shard| mention(*shard, &entries[shard])).collect();
        Refusal { reason: Reason::Incomplete.into(), message, shards }
    }

    async fn check_and_pull(
        &self,
        member: Member,
        entries: &BTreeMap<Shard, Entry>,
        deadline: Instant,
    ) -> Result<(), StepError> {
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
            if oteld_env::mutant("pull-skipped") {
                return Ok(());
            }
            let position = reply.position.map(from_wire).unwrap_or_default();
            let shared =
                entries.iter().filter(|(_, entry)| entry.has(member.replica)).map(|(shard, _)| *shard);
            let shared = shared.collect();
            tokio::select! {
                biased;
                held = self.tails.await_held(member.replica, &shared, &position, deadline) => match held {
                    true => Ok(()),
                    false => Err(StepError::Text("has rows that could not be pulled in time")),
                },
                // Nothing can be pulled: another replica is asked at once.
                reason = self.store.until_read_only() => Err(StepError::ReadOnly(reason)),
            }
        };
        result.await
    }

    async fn hold(
        &self,
        member: Member,
        entries: &BTreeMap<Shard, Entry>,
        position: Prefix,
        deadline: Instant,
    ) -> Result<(), StepError> {
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
        result.await
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

/// The shards of which `replicas` are no quorum.
fn missing(entries: &BTreeMap<Shard, Entry>, replicas: &BTreeSet<ReplicaId>) -> Vec<Shard> {
    let short = entries.iter().filter(|(_, entry)| !entry.quorum().is_reached(replicas));
    short.map(|(shard, _)| *shard).collect()
}

enum StepError {
    Text(&'static str),
    Rpc(tonic::Status),
    Refused(Refusal),
    /// Of this store.
    ReadOnly(String),
}

impl StepError {
    fn text(&self) -> String {
        match self {
            StepError::Text(text) => (*text).to_owned(),
            StepError::Rpc(status) => format!("cannot be reached ({})", status.message()),
            StepError::Refused(refusal) => format!("refused ({})", refusal.message),
            StepError::ReadOnly(reason) => format!("has rows that cannot be kept here ({reason})"),
        }
    }
}

impl From<tonic::Status> for StepError {
    fn from(status: tonic::Status) -> Self {
        StepError::Rpc(status)
    }
}
