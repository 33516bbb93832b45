//! What a node tells the meta group about itself, and how it takes part.

use std::time::Duration;

use crate::ids::ReplicaId;
use crate::membership::Founder;
use crate::raft::SimulatedLog;
use crate::state::{Roles, Settings};

/// This node, as it registers itself at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MyNode {
    /// Unique in the cluster; it decides which node this is.
    pub name: String,
    /// `host:port` at which others reach its node RPC.
    pub address: String,
    pub roles: Roles,
    pub zone: Option<String>,
    /// The identity of its store; present exactly with the storage role.
    pub replica: Option<ReplicaId>,
}

/// How a node takes part in the meta group.
#[derive(Clone, Debug)]
pub struct MetaOptions {
    /// The members that form the group at the first start, the same list on every node; later the addresses at
    /// which members are looked for.
    pub members: Vec<Founder>,
    /// What the cluster is formed with; without effect once it is.
    pub settings: Settings,
    pub timing: Timing,
    pub log: MetaLog,
    /// Log entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Log entries that are kept behind a snapshot, for members that lag a little.
    pub kept_entries: u64,
}

impl MetaOptions {
    pub fn new(members: Vec<Founder>, settings: Settings) -> Self {
        let (timing, log) = (Timing::default(), MetaLog::Sled);
        MetaOptions { members, settings, timing, log, snapshot_entries: 1000, kept_entries: 200 }
    }
}

/// Where a member's Raft log is.
#[derive(Clone, Debug)]
pub enum MetaLog {
    /// In sled, in the member's directory.
    Sled,
    /// In memory, for simulations: the same one is given again when the member restarts.
    Simulated(SimulatedLog),
}

/// The group's clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of the leader. An append must be durable on a follower within it.
    pub heartbeat: Duration,
    /// The shortest election timeout; the longest is twice that.
    pub election: Duration,
    /// After this a command's outcome is unknown.
    pub propose: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_millis(250),
            election: Duration::from_millis(1000),
            propose: Duration::from_secs(5),
        }
    }
}
