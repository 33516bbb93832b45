//! Raft, by openraft over tonic, with its log in sled. No other module knows either of the two.

mod addresses;
mod log_backend;
mod log_store;
mod member;
mod network;
mod promise;
mod runtime;
mod simulated_log;
mod sled_log;
mod state_machine;

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::command::{Applied, Command, Rejected};
use crate::ids::MetaId;
use crate::membership::MetaNode;

pub use log_backend::{BackendError, Change, LogBackend};
pub(crate) use member::{
    AppliedState, CallError, Member, MemberOptions, ReadError, StartError, WriteError, Written,
};
pub(crate) use network::{Channels, MESSAGE_BYTES_MAX};
pub(crate) use promise::PromiseFile;
pub use simulated_log::SimulatedLog;
pub use sled_log::SledLog;

/// What the state machine answers to an entry; entries of Raft's own have no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Result<Applied, Rejected>>);

openraft::declare_raft_types!(
    /// The types of this Raft group.
    pub(crate) Types:
        D = Command,
        R = Answer,
        NodeId = MetaId,
        Node = MetaNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = runtime::SeededRuntime,
);

pub(crate) type LogId = openraft::LogId<MetaId>;
pub(crate) type Metrics = openraft::RaftMetrics<MetaId, MetaNode>;

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain values always pack into memory")
}

#[cfg(test)]
mod tests;
