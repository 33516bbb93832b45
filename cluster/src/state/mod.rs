//! The cluster's metadata: one value, changed only by [`ClusterState::apply`], equal on every member that applied
//! the same log.
//!
//! Serialised as MessagePack maps by field names, so that fields can be added with a default. No field is a hash
//! map: equal states have equal bytes.

mod moves;
mod nodes;
mod retention;
mod shards;
mod split;
mod tenants;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::command::{Applied, Command, Rejected};
use crate::ids::{ClusterId, Epoch, Incarnation, MetaId, MoveId, NodeId, ReplicaId, ShardId, Signal};
use crate::shard_map::{Entry, Member};

pub use retention::retention_setting;

/// The feature level of this binary: the highest that it understands.
pub const FEATURE_LEVEL: u32 = 1;

/// What the meta group agrees on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterState {
    /// `None` until the first command.
    pub cluster: Option<ClusterId>,
    pub feature_level: u32,
    pub settings: Settings,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Every Raft member id that was ever given, with the directory it was given to.
    pub meta_members: BTreeMap<MetaId, MetaMember>,
    /// The next ids to give.
    pub next_node: NodeId,
    pub next_meta: MetaId,
    /// Shard `i` at index `i`; empty until they are placed.
    pub shards: Vec<ShardEntry>,
    pub split: Option<Split>,
    /// The last finished or cancelled split.
    pub last_split: Option<MoveId>,
    pub tenants: BTreeMap<String, TenantEntry>,
    pub windows: BTreeMap<Signal, BTreeMap<u64, BTreeMap<ShardId, SealedWindow>>>,
    /// The time that a majority of the storage nodes had reached, in nanoseconds, as floors saw it last.
    pub time_unix_nano: u64,
    /// Floors of every tenant that has no retention of its own, in nanoseconds of event time.
    pub floors: BTreeMap<Signal, u64>,
    /// Named settings that parts of a node read at run time.
    pub options: BTreeMap<String, String>,
    /// Every time an operator accepted the loss of data.
    pub losses: Vec<Loss>,
    /// Index in the Raft log of the last command that changed this state; grows with every change.
    pub changed_at: u64,
}

/// What is fixed when the cluster is formed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Replicas of a shard, where there are nodes enough.
    pub replication_factor: u32,
    /// Shards at the first placement; the count now is `shards.len()`.
    pub shards: u32,
    /// Storage nodes that must have registered before the shards are placed.
    pub expected_storage_nodes: u32,
    /// Version of the pure function that splits a request into parts.
    pub split_version: u32,
    /// How long data is kept, in seconds; absent or 0 is for ever. The settings `retention.<signal>` count instead
    /// where there are any.
    pub retention_seconds: BTreeMap<Signal, u64>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    /// `host:port` of its node RPC.
    pub address: String,
    pub roles: Roles,
    pub zone: Option<String>,
    pub state: NodeState,
    /// The identity of its store, as it last reported it.
    pub replica: Option<ReplicaId>,
    #[serde(default)]
    pub feature_level: u32,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Roles {
    pub front: bool,
    pub storage: bool,
    pub meta: bool,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Registered, not yet to be given shards.
    Joining,
    Active,
    /// Its shards are to be moved away; it gets none.
    Draining,
    /// Declared lost by an operator; its shards are to be replaced.
    Down,
    /// Gone; its id is never used again.
    Removed,
}

/// A directory that holds a Raft log and vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaMember {
    pub name: String,
    pub incarnation: Incarnation,
}

/// A place in a store's log: the boot that wrote it, what tells that from others of its number, and a number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub boot: u64,
    #[serde(default)]
    pub nonce: u64,
    pub n: u64,
}

/// A shard in the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    pub shard: ShardId,
    pub entry: Entry,
    /// The move that is under way; there is one exactly while the entry is joint.
    pub moving: Option<Move>,
    /// The last move that ended, so that a repeated command is recognised.
    pub last_move: Option<MoveId>,
    /// The shard that this one was split from, and the epoch of the fence.
    #[serde(default)]
    pub split_from: Option<(ShardId, Epoch)>,
}

/// A move between M1 and M4 or M6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub id: MoveId,
    pub step: MoveStep,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveStep {
    /// M1 is committed; the old set must learn the joint epoch.
    Joint,
    /// M2 is done: positions of a majority of the old set or more. Who holds up to those of any majority of it holds
    /// all that was ever acknowledged before the joint epoch (M3).
    Fenced { positions: BTreeMap<ReplicaId, Position> },
}

/// A doubling of the number of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub id: MoveId,
    pub from: u32,
    /// Per shard, the stores that closed the parent's log; a majority of its set or absent.
    pub closed: BTreeMap<ShardId, BTreeSet<ReplicaId>>,
}

/// What a tenant may do and keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantEntry {
    pub limits: Limits,
    /// Event time in nanoseconds; rows below do not exist anywhere, see [`ClusterState::floor`].
    pub floors: BTreeMap<Signal, u64>,
    /// SHA-256 of its bearer tokens, in hexadecimal.
    pub tokens: BTreeSet<String>,
}

/// Limits of a tenant; `None` is the node's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub ingest_bytes_per_second: Option<u64>,
    pub series_max: Option<u64>,
    pub query_bytes_max: Option<u64>,
    /// How long data is kept, instead of the cluster's; 0 is for ever.
    pub retention_seconds: BTreeMap<Signal, u64>,
}

/// A window of a shard whose replicas agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedWindow {
    /// Of the sorted rows, in hexadecimal.
    pub digest: String,
    pub rows: u64,
    /// The shard's epoch when it was sealed.
    pub epoch: Epoch,
    /// Counts the seals of this window: late rows are sealed in by another one.
    pub generation: u32,
    pub tier: Option<Tier>,
}

/// A sealed window's object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Somebody uploads under this key.
    Intent {
        key: String,
        by: ReplicaId,
    },
    Stored {
        key: String,
        bytes: u64,
        checksum: u64,
    },
}

/// An accepted loss of data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub id: MoveId,
    pub without: Vec<Member>,
    pub lost: String,
}

impl ClusterState {
    /// Applies the command at `index` of the log. A rejected command changes nothing.
    ///
    /// Pure: the result depends on the state and the command only.
    pub fn apply(&mut self, index: u64, command: Command) -> Result<Applied, Rejected> {
        let applied = self.dispatch(command)?;
        if applied != Applied::Unchanged {
            assert!(index > self.changed_at || self.changed_at == 0, "log indexes only grow");
            self.changed_at = index;
        }
        Ok(applied)
    }

    fn dispatch(&mut self, command: Command) -> Result<Applied, Rejected> {
        if let Command::InitCluster { cluster, settings, next_meta } = command {
            return self.init_cluster(cluster, settings, next_meta);
        }
        if self.cluster.is_none() {
            return Err(Rejected::NotInitialised);
        }
        match command {
            Command::InitCluster { .. } => unreachable!("handled above"),
            Command::RegisterNode { name, address, roles, zone, replica, feature_level } => {
                let state = NodeState::Active;
                self.register_node(Node { name, address, roles, zone, state, replica, feature_level })
            }
            Command::SetNodeState { node, expect, to } => self.set_node_state(node, expect, to),
            Command::AllocateMeta { name, incarnation } => self.allocate_meta(name, incarnation),
            Command::RaiseFeatureLevel { to } => self.raise_feature_level(to),
            Command::PlaceShards { sets } => self.place_shards(&sets),
            Command::StartMove { shard, expect, id, new } => self.start_move(shard, expect, id, &new),
            Command::RecordFence { shard, expect, id, positions } => {
                self.record_fence(shard, expect, id, positions)
            }
            Command::FinishMove { shard, expect, id, holds } => self.finish_move(shard, expect, id, &holds),
            Command::CancelMove { shard, expect, id } => self.cancel_move(shard, expect, id),
            Command::AcceptDataLoss { shard, expect, id, set, lost } => {
                self.accept_data_loss(shard, expect, id, &set, lost)
            }
            Command::StartSplit { id, expect_shards } => self.start_split(id, expect_shards),
            Command::RecordSplitFence { id, shard, expect, closed } => {
                self.record_split_fence(id, shard, expect, closed)
            }
            Command::FinishSplit { id } => self.finish_split(id),
            Command::CancelSplit { id } => self.cancel_split(id),
            Command::SetLimits { tenant, limits } => self.set_limits(tenant, limits),
            Command::AddToken { tenant, hash } => self.add_token(tenant, hash),
            Command::RemoveToken { tenant, hash } => self.remove_token(&tenant, &hash),
            Command::RaiseFloor { tenant, signal, floor_unix_nano } => {
                self.raise_floor(tenant, signal, floor_unix_nano)
            }
            Command::AdvanceTime { unix_nano } => Ok(self.advance_time(unix_nano)),
            Command::SetSetting { name, expect, to } => self.set_setting(name, expect, to),
            Command::SealWindow { signal, window, shard, expect, digest, rows, agreed } => {
                self.seal_window((signal, window, shard), expect, digest, rows, &agreed)
            }
            Command::TierIntent { signal, window, shard, digest, key, by } => {
                self.tier_intent((signal, window, shard), &digest, key, by)
            }
            Command::TierCommit { signal, window, shard, key, bytes, checksum } => {
                self.tier_commit((signal, window, shard), key, bytes, checksum)
            }
            Command::TierCancel { signal, window, shard, key } => {
                self.tier_cancel((signal, window, shard), &key)
            }
            Command::ForgetWindow { signal, window } => self.forget_window(signal, window),
        }
    }

    /// The form of snapshots and saved copies: a MessagePack map by names.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a state always packs into memory")
    }

    /// # Errors
    /// When `bytes` are not an encoded state.
    pub fn decode(bytes: &[u8]) -> Result<ClusterState, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }

    /// The node of a name that is not removed.
    pub fn node_by_name(&self, name: &str) -> Option<(NodeId, &Node)> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, node)| node.name == name && node.state != NodeState::Removed).map(|(id, n)| (*id, n))
    }

    /// The node that has a store now.
    pub fn node_by_replica(&self, replica: ReplicaId) -> Option<(NodeId, &Node)> {
        self.nodes.iter().find(|(_, node)| node.replica == Some(replica)).map(|(id, node)| (*id, node))
    }

    /// A shard of the map.
    pub fn shard(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.shards.get(shard.0 as usize)
    }
}

#[cfg(test)]
mod tests;
