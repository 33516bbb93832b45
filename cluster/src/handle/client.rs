//! Asking one member of the group from outside of the cluster: for tools and tests that must know what each single
//! request did. Nodes ask through [`MetaHandle`](super::MetaHandle), which finds the leader by itself.

use std::sync::Arc;

use bytes::Bytes;
use oteld_env::Net;
use oteld_proto::meta::{ProposeRequest, ReadRequest};
use tonic::Status;

use super::ask::{self, Reply};
use crate::command::{Applied, Command, Rejected};
use crate::raft::{AppliedState, Channels, Written};
use crate::state::ClusterState;

/// What one member answered to one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    Done(T),
    /// It had no effect. The leader's address as the cluster knows it; empty where the member knows none.
    NotLeader(String),
    /// It had no effect: there was no connection to the member.
    NotSent(String),
    /// A command may be applied, now or later. A read failed.
    Unknown(String),
}

/// A command that is in the log for good.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// Where, whether it was applied or rejected.
    pub log_index: u64,
    pub answer: Result<Applied, Rejected>,
}

/// A linearizable read.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRead {
    /// The last index that the state has applied.
    pub log_index: u64,
    pub state: Arc<ClusterState>,
}

/// Connections to members, by address. Cheap to clone.
#[derive(Clone)]
pub struct MetaClient {
    channels: Channels,
}

impl MetaClient {
    pub fn new(net: Net) -> Self {
        MetaClient { channels: Channels::new(net, &[]) }
    }

    /// Sends a command to the member at `address` (`host:port`), once. Waits as long as the member takes: a caller
    /// that gives up before does not know the outcome.
    pub async fn propose(&self, address: &str, command: &Command) -> Answer<Proposed> {
        let packed = rmp_serde::to_vec_named(command).expect("a command always packs into memory");
        let request = ProposeRequest { packed: packed.into(), cluster: Bytes::new() };
        let mut client = match self.channels.client(address) {
            Ok(client) => client,
            Err(error) => return Answer::NotSent(format!("{address}: {error}")),
        };
        let reply = client.propose(request).await.and_then(|reply| ask::proposed(reply.into_inner()));
        let done = |Written { index, answer }| Proposed { log_index: index, answer };
        answer(address, reply, done)
    }

    /// Asks the member at `address` for the state, once.
    pub async fn read(&self, address: &str) -> Answer<StateRead> {
        let mut client = match self.channels.client(address) {
            Ok(client) => client,
            Err(error) => return Answer::NotSent(format!("{address}: {error}")),
        };
        let reply = client.read(ReadRequest {}).await.and_then(|reply| ask::read(reply.into_inner()));
        let done = |AppliedState { index, state }| StateRead { log_index: index, state };
        answer(address, reply, done)
    }
}

fn answer<T, U>(address: &str, reply: Result<Reply<T>, Status>, done: impl FnOnce(T) -> U) -> Answer<U> {
    match reply {
        Ok(Reply::Done(value)) => Answer::Done(done(value)),
        Ok(Reply::NotLeader(leader)) => Answer::NotLeader(leader),
        Ok(Reply::Unknown(why)) => Answer::Unknown(format!("{address}: {why}")),
        Err(status) if ask::was_not_sent(&status) => Answer::NotSent(format!("{address}: {status}")),
        Err(status) => Answer::Unknown(format!("{address}: {status}")),
    }
}
