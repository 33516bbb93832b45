//! The leader's look at the clocks: what retention may take the time to be.

use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::command::Command;
use crate::retention::{LEAP_WAIT, Verdict, agreed_time, judge};
use crate::state::{ClusterState, NodeState};

/// A clock that was not heard of for so long counts as unknown.
const HEARD_MAX: Duration = Duration::from_secs(10);

/// What a leader remembers between two looks, from the moment that it leads.
#[derive(Default)]
pub(super) struct RetentionWatch {
    doubted_since: Option<Instant>,
}

impl RetentionWatch {
    /// The command that the clocks ask for, if any.
    pub(super) fn next(&mut self, inner: &Inner, state: &ClusterState) -> Option<Command> {
        let agreed = clocks(inner, state);
        let now = Instant::now();
        let doubted = self.doubted_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let verdict = agreed.map_or(Verdict::Take, |time| judge(state.time_unix_nano, time, doubted));
        match (verdict, self.doubted_since) {
            (Verdict::Take, _) => {
                self.doubted_since = None;
                inner.retention_waits.lock().take();
            }
            (Verdict::Doubt, Some(_)) => {}
            (Verdict::Doubt, None) => {
                self.doubted_since = Some(now);
                let ahead = agreed.unwrap_or(0).saturating_sub(state.time_unix_nano) / 3_600_000_000_000;
                let why = format!(
                    "retention drops nothing for {} h: the nodes' clocks are {ahead} h ahead of what they last \
                     agreed on; set them right if they are wrong",
                    LEAP_WAIT.as_secs() / 3600
                );
                tracing::warn!("{why}");
                *inner.retention_waits.lock() = Some(why);
            }
        }
        let unix_nano = agreed.filter(|_| verdict == Verdict::Take)?;
        state.is_time_due(unix_nano).then_some(Command::AdvanceTime { unix_nano })
    }
}

/// The time that the leader and a majority of the storage nodes have reached. A node's clock has gone on since it
/// was heard of; by how much less than that its heartbeat took is of no account here.
fn clocks(inner: &Inner, state: &ClusterState) -> Option<u64> {
    let counts = |state: NodeState| !matches!(state, NodeState::Removed | NodeState::Down);
    let storage = state.nodes.values().filter(|node| node.roles.storage && counts(node.state));
    let heartbeats = inner.heartbeats.lock();
    let (mut nodes, mut clocks) = (0, Vec::new());
    for node in storage {
        nodes += 1;
        let heard = heartbeats.get(&node.name).map(|heard| (heard.at.elapsed(), heard.time_unix_nano));
        if let Some((age, time)) = heard.filter(|(age, time)| *age < HEARD_MAX && *time > 0) {
            clocks.push(time + age.as_nanos() as u64);
        }
    }
    agreed_time(inner.env.clock.now_unix_nanos(), nodes, clocks)
}
