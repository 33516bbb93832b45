//! The admin API on port 8081, as both sides see it: plain types without a transport.
//!
//! | method and path | body of the 200 answer |
//! |---|---|
//! | `GET /api/v1/admin/cluster/status` | [`ClusterStatus`] |
//! | `GET /api/v1/admin/nodes` | array of [`NodeStatus`], by name |
//! | `GET /api/v1/admin/shards` | array of [`ShardStatus`], by shard |
//!
//! Any node answers from what it knows; what it does not know is `null` or absent. An error is another status with
//! an [`ErrorBody`]. Fields are only ever added; readers ignore those that they do not know.

use serde::{Deserialize, Serialize};

pub const CLUSTER_STATUS_PATH: &str = "/api/v1/admin/cluster/status";
pub const NODES_PATH: &str = "/api/v1/admin/nodes";
pub const SHARDS_PATH: &str = "/api/v1/admin/shards";

/// The whole cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// 32 hexadecimal digits; absent before the cluster is founded.
    pub cluster_id: Option<String>,
    pub verdict: Verdict,
    /// Why the verdict is not `healthy`: one sentence each, the worst first. Empty when healthy.
    #[serde(default)]
    pub reasons: Vec<String>,
    pub meta: MetaStatus,
    /// By name.
    pub nodes: Vec<NodeStatus>,
    pub shards: ShardTotals,
    /// How long data is kept, by signal.
    #[serde(default)]
    pub retention: Vec<RetentionStatus>,
}

/// How long a signal is kept, for tenants without a retention of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionStatus {
    /// `metrics`, `logs` or `traces`.
    pub signal: String,
    /// 0 is for ever.
    pub seconds: u64,
    /// Event time below which nothing exists.
    pub floor_unix_nano: u64,
}

/// What a user of the cluster has to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every replica of every shard is there and the meta group has a leader with all members.
    Healthy,
    /// Writes and reads of every shard succeed, but something that should be there is not.
    Degraded,
    /// Some shard has no quorum, or no shard is placed.
    Unavailable,
}

/// The meta Raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaStatus {
    /// Name of the member that said the rest: the leader where it answers, else any that does. Members that do not
    /// hear of each other may differ.
    pub seen_by: Option<String>,
    pub term: u64,
    /// Name of the leader's node; absent while there is none that the answering node knows.
    pub leader: Option<String>,
    /// By name.
    pub members: Vec<MetaMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaMember {
    /// Name of its node.
    pub node: String,
    /// `host:port` of its node RPC.
    pub address: String,
    /// Index of the last entry in its log, where the answering node knows it.
    pub last_log_index: Option<u64>,
    pub role: MetaRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetaRole {
    Leader,
    Follower,
    Candidate,
    Learner,
    /// It did not answer.
    Unreachable,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: u64,
    pub name: String,
    /// `host:port` of its node RPC.
    pub address: String,
    pub roles: Vec<Role>,
    pub zone: Option<String>,
    pub state: NodeState,
    /// Identity of its store, 32 hexadecimal digits; absent without the storage role.
    pub replica: Option<String>,
    /// Number of shards of which it holds a replica.
    pub shards: u32,
    /// Bytes that its data directory takes.
    pub disk_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    /// Items a second that it took in as a front, over the last minute or less.
    pub ingest_items_per_second: Option<f64>,
    /// Milliseconds since its last heartbeat; absent when there was none since the answering node started.
    pub last_heartbeat_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Front,
    Storage,
    Meta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Registered, not yet given shards.
    Joining,
    Active,
    /// Active in the metadata, but it does not answer or its heartbeats stopped.
    Unreachable,
    /// Its shards are being moved away.
    Draining,
    /// Declared lost by an operator.
    Down,
    /// Gone for good.
    Removed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardTotals {
    pub total: u32,
    /// Shards with a replica that is missing, unreachable or still catching up.
    pub under_replicated: u32,
    /// Shards in a joint epoch.
    pub moving: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: u32,
    pub epoch: u64,
    /// The replica set, in the order of the shard map.
    pub replicas: Vec<ReplicaStatus>,
    /// The set that a move leads to; present only in a joint epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Vec<ReplicaStatus>>,
    /// What the move is at; present with `new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<MoveStep>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveStep {
    /// The old replicas learn of it and say up to where each holds rows.
    Fencing,
    /// The new replicas pull those rows.
    Copying,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Name of its node.
    pub node: String,
    pub state: ReplicaState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    Active,
    CatchingUp,
    Unreachable,
    /// The node's store refuses writes (full disk, failed fsync).
    ReadOnly,
    /// The answering node does not know.
    Unknown,
}

/// Body of every answer of the admin API that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}

macro_rules! display_as_serialized {
    ($($type:ident { $($variant:ident => $text:literal),* $(,)? })*) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $($type::$variant => $text),* })
            }
        }
    )*};
}

display_as_serialized! {
    Verdict { Healthy => "healthy", Degraded => "degraded", Unavailable => "unavailable" }
    MetaRole {
        Leader => "leader", Follower => "follower", Candidate => "candidate", Learner => "learner",
        Unreachable => "unreachable",
    }
    Role { Front => "front", Storage => "storage", Meta => "meta" }
    NodeState {
        Joining => "joining", Active => "active", Unreachable => "unreachable", Draining => "draining",
        Down => "down", Removed => "removed",
    }
    MoveStep { Fencing => "fencing", Copying => "copying" }
    ReplicaState {
        Active => "active", CatchingUp => "catching_up", Unreachable => "unreachable", ReadOnly => "read_only",
        Unknown => "unknown",
    }
}
