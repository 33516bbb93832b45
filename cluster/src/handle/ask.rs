//! Asking the leader, wherever it is: members that are known are tried in turn and point to the leader.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use oteld_proto::meta::meta_client::MetaClient;
use oteld_proto::meta::{ProposeReply, ReadReply, propose_reply, read_reply};
use thiserror::Error;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{ConnectError, Status};

use super::Inner;
use crate::raft::{AppliedState, Written};
use crate::state::ClusterState;

/// Pause after a round in which nobody led.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for one member when the request may be repeated elsewhere.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member said.
pub(super) enum Reply<T> {
    Done(T),
    /// It had no effect; the leader's address, or empty.
    NotLeader(String),
    Unknown(String),
}

/// Why the leader did not answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// The request had no effect.
    #[error("no leader of the meta group was found: {0}")]
    NoLeader(String),
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

impl Inner {
    /// Where members may be: the last known leader first.
    pub(super) fn candidates(&self) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        addresses.extend(self.leader.lock().clone());
        if let Some(member) = self.member() {
            addresses.extend(member.other_leader().map(|leader| leader.address));
        }
        addresses.extend(self.options.members.iter().map(|founder| founder.address.clone()));
        let state = self.state.borrow().clone();
        let meta = state.nodes.values().filter(|node| node.roles.meta);
        addresses.extend(meta.map(|node| node.address.clone()));
        let mut distinct: Vec<String> = Vec::new();
        for address in addresses {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        distinct
    }

    /// Sends a request to the leader. With `repeatable`, a lost answer is asked for again; without, it is
    /// [`AskError::Unknown`].
    pub(super) async fn ask_leader<T, F, R>(
        &self,
        timeout: Duration,
        repeatable: bool,
        request: F,
    ) -> Result<T, AskError>
    where
        F: Fn(MetaClient<Channel>) -> R,
        R: Future<Output = Result<Reply<T>, Status>>,
    {
        let deadline = Instant::now() + timeout;
        let mut reason = "no member is known".to_owned();
        let mut hint: Option<String> = None;
        // Members that moved are pointed to where they were until the group has recorded where they are.
        let mut silent: BTreeSet<String> = BTreeSet::new();
        loop {
            let mut round = self.candidates();
            if let Some(hint) = hint.take() {
                round.retain(|address| *address != hint);
                round.insert(0, hint);
            }
            for address in round {
                let remaining = deadline.saturating_duration_since(Instant::now());
                if remaining.is_zero() {
                    return Err(AskError::NoLeader(reason));
                }
                let patience = if repeatable { remaining.min(TRY_TIMEOUT) } else { remaining };
                let client = match self.channels.client(&address) {
                    Ok(client) => client,
                    Err(error) => {
                        reason = format!("{address}: {error}");
                        continue;
                    }
                };
                match tokio::time::timeout(patience, request(client)).await {
                    Ok(Ok(Reply::Done(answer))) => {
                        *self.leader.lock() = Some(address);
                        return Ok(answer);
                    }
                    Ok(Ok(Reply::NotLeader(leader))) => {
                        reason = format!("{address} does not lead");
                        if !leader.is_empty() && leader != address && !silent.contains(&leader) {
                            hint = Some(leader);
                            break;
                        }
                    }
                    Ok(Ok(Reply::Unknown(why))) if !repeatable => return Err(AskError::Unknown(why)),
                    Ok(Err(status)) if !repeatable && !was_not_sent(&status) => {
                        return Err(AskError::Unknown(format!("{address}: {status}")));
                    }
                    Err(_) if !repeatable => {
                        return Err(AskError::Unknown(format!("{address} did not answer in {patience:?}")));
                    }
                    Ok(Ok(Reply::Unknown(why))) => reason = format!("{address}: {why}"),
                    Ok(Err(status)) => {
                        reason = format!("{address}: {}", status.message());
                        silent.insert(address);
                    }
                    Err(_) => {
                        reason = format!("{address} did not answer in {patience:?}");
                        silent.insert(address);
                    }
                }
            }
            self.leader.lock().take();
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

/// Whether the request certainly never left: there was no connection.
pub(super) fn was_not_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Reads a member's answer to a command.
pub(super) fn proposed(reply: ProposeReply) -> Result<Reply<Written>, Status> {
    let damaged =
        |error: rmp_serde::decode::Error| Status::internal(format!("the answer does not parse: {error}"));
    let index = reply.log_index;
    Ok(match reply.outcome {
        Some(propose_reply::Outcome::Applied(bytes)) => {
            Reply::Done(Written { index, answer: Ok(rmp_serde::from_slice(&bytes).map_err(damaged)?) })
        }
        Some(propose_reply::Outcome::Rejected(bytes)) => {
            Reply::Done(Written { index, answer: Err(rmp_serde::from_slice(&bytes).map_err(damaged)?) })
        }
        Some(propose_reply::Outcome::NotLeader(other)) => Reply::NotLeader(other.leader_address),
        Some(propose_reply::Outcome::Unknown(why)) => Reply::Unknown(why),
        None => Reply::Unknown("the answer is empty".to_owned()),
    })
}

/// Reads a member's answer to a read.
pub(super) fn read(reply: ReadReply) -> Result<Reply<AppliedState>, Status> {
    Ok(match reply.outcome {
        Some(read_reply::Outcome::State(bytes)) => {
            let state = ClusterState::decode(&bytes)
                .map_err(|error| Status::internal(format!("the state does not parse: {error}")))?;
            Reply::Done(AppliedState { index: reply.log_index, state: Arc::new(state) })
        }
        Some(read_reply::Outcome::NotLeader(other)) => Reply::NotLeader(other.leader_address),
        Some(read_reply::Outcome::Unavailable(why)) => Reply::Unknown(why),
        None => Reply::Unknown("the answer is empty".to_owned()),
    })
}
