//! Sessions that change and read registers of the metadata, through whichever member of the meta group leads. A register
//! is a setting that holds a decimal number, absent at first.

use std::collections::BTreeSet;
use std::time::Duration;

use oteld_cluster::command::{Command, Rejected};
use oteld_cluster::handle::client::{Answer, MetaClient, Proposed};
use oteld_cluster::state::ClusterState;
use oteld_env::Env;
use tokio::time::{Instant, sleep, timeout};

use crate::history::event::{Event, MetaCall, MetaOp, MetaOutcome};
use crate::timeline::Timeline;

/// Few, so that sessions meet at each of them.
pub const REGISTERS: u32 = 4;

/// What a register is said to hold where it holds no number: no session writes this.
pub const NO_NUMBER: u64 = u64::MAX;

/// A call without an answer for so long has an unknown outcome.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// For so long a leader is looked for; then the operation had no effect.
const LEADER_TIMEOUT: Duration = Duration::from_secs(6);
/// Before the next member is asked, in milliseconds.
const RETRY_MS: std::ops::Range<u64> = 10..60;
/// Between two operations of a session, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..180;

/// Runs session `number` against `members` (`host:port` of the nodes' RPC) until `stop` says so; ends within one
/// operation from then. Numbers of sessions of a run differ.
pub async fn session(
    number: u32,
    env: Env,
    timeline: Timeline,
    members: Vec<String>,
    record: impl Fn(Event),
    stop: impl Fn() -> bool,
) {
    assert!(!members.is_empty(), "a session has somebody to ask");
    let client = MetaClient::new(env.net);
    let at = number as usize % members.len();
    let mut session =
        Session { number, env, members, client, at, known: [None; REGISTERS as usize], written: 0 };
    while !stop() {
        let key = session.env.random.in_range(0..u64::from(REGISTERS)) as u32;
        let call = session.choose(key);
        let invoked_us = timeline.now_us();
        let outcome = session.call(key, call).await;
        let completed_us = timeline.now_us();
        session.learn(key, call, outcome);
        record(Event::Meta(MetaOp { session: number, key, call, outcome, invoked_us, completed_us }));
        session.pause(PAUSE_MS).await;
    }
}

struct Session {
    number: u32,
    env: Env,
    members: Vec<String>,
    client: MetaClient,
    /// The member that is asked next.
    at: usize,
    /// What each register held last, as far as this session knows.
    known: [Option<u64>; REGISTERS as usize],
    /// Values used up. Each is written once in a run: who sees one knows which operation wrote it.
    written: u64,
}

impl Session {
    fn one_in(&self, n: u64) -> bool {
        self.env.random.in_range(0..n) == 0
    }

    async fn pause(&self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.env.random.in_range(milliseconds))).await;
    }

    fn choose(&mut self, key: u32) -> MetaCall {
        if self.one_in(3) {
            return MetaCall::Get;
        }
        let expect = self.known[key as usize];
        if expect.is_some() && self.one_in(16) {
            return MetaCall::CompareAndSet { expect, to: None };
        }
        self.written += 1;
        let to = Some(((u64::from(self.number) + 1) << 32) | self.written);
        MetaCall::CompareAndSet { expect, to }
    }

    fn learn(&mut self, key: u32, call: MetaCall, outcome: MetaOutcome) {
        let known = &mut self.known[key as usize];
        match (call, outcome) {
            (_, MetaOutcome::Value { value, .. }) => *known = value,
            (_, MetaOutcome::Differs { actual, .. }) => *known = actual,
            (MetaCall::CompareAndSet { to, .. }, MetaOutcome::Applied { .. }) => *known = to,
            _ => {}
        }
    }

    /// Makes the call, at one member after the other as long as it certainly had no effect.
    async fn call(&mut self, key: u32, call: MetaCall) -> MetaOutcome {
        // A member that led until now must not answer any more: some calls go where the leader was not found last, reads
        // above all, since nothing else shows what it thinks.
        if self.one_in(if call == MetaCall::Get { 2 } else { 8 }) {
            self.at = self.env.random.in_range(0..self.members.len() as u64) as usize;
        }
        let deadline = Instant::now() + LEADER_TIMEOUT;
        let mut silent = BTreeSet::new();
        loop {
            let asked = match call {
                MetaCall::Get => self.get(key).await,
                MetaCall::CompareAndSet { expect, to } => self.compare_and_set(key, expect, to).await,
            };
            match asked {
                Answer::Done(outcome) => return outcome,
                // Never again: it may have been applied.
                Answer::Unknown(_) if call != MetaCall::Get => {
                    self.next();
                    return MetaOutcome::Unknown;
                }
                Answer::NotLeader(leader) => self.follow(&leader, &silent),
                Answer::NotSent(_) | Answer::Unknown(_) => {
                    silent.insert(self.at);
                    self.next();
                }
            }
            if Instant::now() >= deadline {
                return MetaOutcome::Failed;
            }
            self.pause(RETRY_MS).await;
        }
    }

    fn next(&mut self) {
        self.at = (self.at + 1) % self.members.len();
    }

    /// Goes to the leader that a member named, unless it did not answer just now, or can only be reached by nodes.
    fn follow(&mut self, leader: &str, silent: &BTreeSet<usize>) {
        let named = self.members.iter().position(|member| member == leader);
        match named.filter(|named| *named != self.at && !silent.contains(named)) {
            Some(named) => self.at = named,
            None => self.next(),
        }
    }

    async fn get(&self, key: u32) -> Answer<MetaOutcome> {
        let read = timeout(CALL_TIMEOUT, self.client.read(&self.members[self.at])).await;
        settled(read, |read| {
            let value = value_of(&read.state, key);
            MetaOutcome::Value { value, index: read.log_index }
        })
    }

    async fn compare_and_set(&self, key: u32, expect: Option<u64>, to: Option<u64>) -> Answer<MetaOutcome> {
        let text = |value: Option<u64>| value.map(|value| value.to_string());
        let command = Command::SetSetting { name: name(key), expect: text(expect), to: text(to) };
        let proposed = timeout(CALL_TIMEOUT, self.client.propose(&self.members[self.at], &command)).await;
        settled(proposed, |Proposed { log_index: index, answer }| match answer {
            Ok(_) => MetaOutcome::Applied { index },
            Err(Rejected::Differs { actual, .. }) => {
                MetaOutcome::Differs { actual: actual.as_deref().map(number), index }
            }
            // The group has no name yet.
            Err(_) => MetaOutcome::Failed,
        })
    }
}

/// An answer that did not come has an unknown outcome.
fn settled<T>(
    answer: Result<Answer<T>, tokio::time::error::Elapsed>,
    outcome: impl FnOnce(T) -> MetaOutcome,
) -> Answer<MetaOutcome> {
    match answer {
        Ok(Answer::Done(done)) => Answer::Done(outcome(done)),
        Ok(Answer::NotLeader(leader)) => Answer::NotLeader(leader),
        Ok(Answer::NotSent(why)) => Answer::NotSent(why),
        Ok(Answer::Unknown(why)) => Answer::Unknown(why),
        Err(elapsed) => Answer::Unknown(elapsed.to_string()),
    }
}

fn name(key: u32) -> String {
    format!("jepsen.register-{key}")
}

fn value_of(state: &ClusterState, key: u32) -> Option<u64> {
    state.options.get(&name(key)).map(|text| number(text))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(NO_NUMBER)
}
