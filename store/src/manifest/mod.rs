//! The manifest: what a node's data directory holds, and what the node may not forget. Rewritten whole at every
//! change, into a file of the next number; the newest one counts and an older one never stands in for it. The
//! bytes are described in docs/format/manifest.md.

pub(crate) mod frame;
pub(crate) mod log;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::floors::Floors;
use crate::leave::Left;
use crate::model::{Shard, Signal, Tenant};
use crate::position::{Boot, Cursor, Position, ReplicaId};
use crate::segment::SegmentInfo;
use crate::wal::WalEnd;

/// The highest entry of the shard map that was ever learnt for a shard: the fence (PROTOCOL, STATE).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceEntry {
    pub epoch: u64,
    /// The whole entry, as the cluster encodes it; the store does not look inside.
    pub encoded: Bytes,
}

/// One segment of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    /// Names the file; never used twice.
    pub id: u64,
    /// 0 as flushed, one more with every merge.
    pub level: u32,
    pub info: SegmentInfo,
}

/// What is known of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootRecord {
    pub nonce: u64,
    /// The last position, once the boot is over.
    pub end: Option<u64>,
}

/// Everything that the manifest holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub replica: ReplicaId,
    pub cluster: Option<u128>,
    pub boots: BTreeMap<u64, BootRecord>,
    pub entries: BTreeMap<Shard, FenceEntry>,
    pub cursors: BTreeMap<ReplicaId, BTreeMap<Shard, Cursor>>,
    /// Of single tenants, in event time in nanoseconds; rows below do not exist.
    pub floors: BTreeMap<Signal, BTreeMap<Tenant, u64>>,
    /// Of every tenant that is not in `floors`.
    #[serde(default)]
    pub floors_of_everyone: BTreeMap<Signal, u64>,
    /// The state of the metadata that the floors are of.
    #[serde(default)]
    pub floors_version: u64,
    /// By id.
    pub segments: Vec<SegmentMeta>,
    pub next_segment: u64,
    /// WAL files below it are flushed.
    pub wal_floor: u64,
    /// The WAL was synced up to here.
    pub wal_end: WalEnd,
    /// Peers cannot tail from before it: rows came by a snapshot then, and no entry of the log has them.
    #[serde(default)]
    pub log_start: Position,
    /// Shards that were left, and below which number segments have nothing of them any more.
    #[serde(default)]
    pub left: Left,
    /// What was found missing, once the replica has lost synced data (PROTOCOL, LOSS).
    #[serde(default)]
    pub lost: Option<String>,
}

impl Manifest {
    /// Of an empty store.
    pub(crate) fn new(replica: ReplicaId) -> Self {
        Manifest {
            replica,
            cluster: None,
            boots: BTreeMap::new(),
            entries: BTreeMap::new(),
            cursors: BTreeMap::new(),
            floors: BTreeMap::new(),
            floors_of_everyone: BTreeMap::new(),
            floors_version: 0,
            segments: Vec::new(),
            next_segment: 1,
            wal_floor: 1,
            wal_end: WalEnd::default(),
            log_start: Position::default(),
            left: Left::default(),
            lost: None,
        }
    }

    /// The newest boot.
    pub(crate) fn last_boot(&self) -> Option<Boot> {
        self.boots.last_key_value().map(|(counter, record)| Boot { counter: *counter, nonce: record.nonce })
    }

    /// Where each boot that is over ended.
    pub(crate) fn ends(&self) -> BTreeMap<u64, u64> {
        self.boots.iter().filter_map(|(counter, record)| Some((*counter, record.end?))).collect()
    }

    /// What tells each boot from others of its number.
    pub(crate) fn nonces(&self) -> BTreeMap<u64, u64> {
        self.boots.iter().map(|(counter, record)| (*counter, record.nonce)).collect()
    }

    /// All floors.
    pub(crate) fn all_floors(&self) -> Floors {
        Floors {
            everyone: self.floors_of_everyone.clone(),
            own: self.floors.clone(),
            version: self.floors_version,
        }
    }

    /// Raises floors; none falls. Says whether one changed.
    pub(crate) fn raise_floors(&mut self, newer: &Floors) -> bool {
        let mut floors = self.all_floors();
        let changed = floors.raise(newer);
        if changed {
            self.floors_of_everyone = floors.everyone;
            self.floors = floors.own;
            self.floors_version = floors.version;
        }
        changed
    }
}
