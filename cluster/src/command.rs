//! Every change of the metadata: one variant each, applied by [`ClusterState::apply`](crate::state::ClusterState::apply).
//!
//! Commands are what the Raft log holds, so their serialised names are a format: fields may be added with a
//! default, never renamed or given another meaning.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ClusterId, Epoch, Incarnation, MetaId, MoveId, NodeId, ReplicaId, ShardId, Signal};
use crate::state::{Limits, NodeState, Position, Roles, Settings};

/// A change of the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first command: names the cluster. `next_meta` follows the member ids of the founding list.
    InitCluster {
        cluster: ClusterId,
        settings: Settings,
        next_meta: MetaId,
    },
    /// A node reports itself at each start; the name decides which node it is.
    RegisterNode {
        name: String,
        address: String,
        roles: Roles,
        zone: Option<String>,
        /// The identity of its store; a node without the storage role has none.
        replica: Option<ReplicaId>,
        /// The highest feature level that its binary knows.
        feature_level: u32,
    },
    /// Compare-and-set of a node's state. `Removed` needs that no shard names the node.
    SetNodeState {
        node: NodeId,
        expect: NodeState,
        to: NodeState,
    },
    /// Gives a Raft member id to a directory; the same directory always gets the same one.
    AllocateMeta {
        name: String,
        incarnation: Incarnation,
    },
    /// The first placement of all shards; shard `i` goes to the stores `sets[i]`.
    PlaceShards {
        sets: Vec<Vec<(NodeId, ReplicaId)>>,
    },
    /// M1: joint epoch `expect + 1` from the current set to `new`.
    StartMove {
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        new: Vec<(NodeId, ReplicaId)>,
    },
    /// M2: the old set has learnt the joint epoch; positions of those stores that are complete (T of M3).
    RecordFence {
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        positions: BTreeMap<ReplicaId, Position>,
    },
    /// M4: epoch `expect + 1` of the new set alone. `holds`: stores that hold all fenced positions durably (M3).
    FinishMove {
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        holds: BTreeSet<ReplicaId>,
    },
    /// M6: epoch `expect + 1` of the old set alone.
    CancelMove {
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
    },
    /// The operator's override where a majority is lost for good: epoch `expect + 1` of `set`, whatever is missing.
    AcceptDataLoss {
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        set: Vec<(NodeId, ReplicaId)>,
        /// What is lost, as the operator was told.
        lost: String,
    },
    /// Doubles the number of shards, which is `expect_shards` now: a fence epoch in every shard.
    StartSplit {
        id: MoveId,
        expect_shards: u32,
    },
    /// The stores of a shard's set that closed the parent's log at the fence epoch `expect`.
    RecordSplitFence {
        id: MoveId,
        shard: ShardId,
        expect: Epoch,
        closed: BTreeSet<ReplicaId>,
    },
    /// Every shard is fenced: shards `s` and `s + n` take over from `s`.
    FinishSplit {
        id: MoveId,
    },
    /// Another epoch in every shard, with the sets and the number as they were.
    CancelSplit {
        id: MoveId,
    },
    /// Replaces a tenant's limits.
    SetLimits {
        tenant: String,
        limits: Limits,
    },
    /// Lets a bearer token stand for a tenant; the hash is SHA-256 in hexadecimal.
    AddToken {
        tenant: String,
        hash: String,
    },
    RemoveToken {
        tenant: String,
        hash: String,
    },
    /// Raises a retention floor; a lower one than before changes nothing.
    RaiseFloor {
        tenant: String,
        signal: Signal,
        floor_unix_nano: u64,
    },
    /// The time that a majority of the storage nodes have reached: raises every floor that retention asks for by then.
    AdvanceTime {
        unix_nano: u64,
    },
    /// A majority agrees on a window's rows. `expect` is the shard's epoch, `agreed` the stores with that digest.
    SealWindow {
        signal: Signal,
        window: u64,
        shard: ShardId,
        expect: Epoch,
        digest: String,
        rows: u64,
        agreed: BTreeSet<ReplicaId>,
    },
    /// Announces an upload under a key that was never used before.
    TierIntent {
        signal: Signal,
        window: u64,
        shard: ShardId,
        digest: String,
        key: String,
        by: ReplicaId,
    },
    /// The upload was read back; the intent must still be alive.
    TierCommit {
        signal: Signal,
        window: u64,
        shard: ShardId,
        key: String,
        bytes: u64,
        checksum: u64,
    },
    /// Garbage collection cancels an intent before it deletes the object.
    TierCancel {
        signal: Signal,
        window: u64,
        shard: ShardId,
        key: String,
    },
    /// Forgets a window that lies below every retention floor.
    ForgetWindow {
        signal: Signal,
        window: u64,
    },
    /// Compare-and-set of a named setting; `None` is absent.
    SetSetting {
        name: String,
        expect: Option<String>,
        to: Option<String>,
    },
    /// Allows what only newer binaries understand; every node must know it.
    RaiseFeatureLevel {
        to: u32,
    },
}

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    Done,
    /// It was applied before, or asks for what already holds.
    Unchanged,
    /// The id of the registered node.
    Node(NodeId),
    /// The Raft member id of the directory.
    Meta(MetaId),
    /// The shard's epoch after the change.
    Epoch(Epoch),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejected {
    #[error("the cluster has no name yet")]
    NotInitialised,
    #[error("the cluster is {0} already")]
    AlreadyInitialised(ClusterId),
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    #[error("node {node} is {actual:?}, not {expected:?}")]
    NodeStateIs { node: NodeId, expected: NodeState, actual: NodeState },
    #[error("node {node} still holds shard {shard}")]
    NodeHoldsShard { node: NodeId, shard: ShardId },
    #[error("node {node} cannot hold shards: {reason}")]
    NodeCannotHold { node: NodeId, reason: String },
    #[error("the store {replica} is registered by node {node} already")]
    ReplicaTaken { replica: ReplicaId, node: NodeId },
    #[error("{0} is not valid: {1}")]
    Invalid(String, String),
    #[error("the shards are placed already")]
    AlreadyPlaced,
    #[error("there is no shard {0}")]
    NoSuchShard(ShardId),
    #[error("shard {shard} is at epoch {actual}, not {expected}")]
    EpochIs { shard: ShardId, expected: Epoch, actual: Epoch },
    #[error("shard {shard} is busy with change {id}")]
    ShardBusy { shard: ShardId, id: MoveId },
    #[error("there is no change {0} under way")]
    NoSuchMove(MoveId),
    #[error("a step is missing: {0}")]
    StepMissing(String),
    #[error("no majority: {0}")]
    NoMajority(String),
    #[error("there are {actual} shards, not {expected}")]
    ShardCountIs { expected: u32, actual: u32 },
    #[error("{what} is {actual:?}")]
    Differs { what: String, actual: Option<String> },
    #[error("node {node} knows feature level {known} only")]
    FeatureUnknown { node: NodeId, known: u32 },
}
