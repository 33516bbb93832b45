//! What a node says of itself, to whoever gathers the status of the cluster.

use std::sync::Arc;

use oteld_cluster::ids::ReplicaId;
use serde::{Deserialize, Serialize};

/// A node's own status. Fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnStatus {
    pub name: String,
    /// The store that it has open: a fresh one may not have reached the metadata of whoever asks.
    pub replica: Option<ReplicaId>,
    pub disk_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    /// Items that it took in as a front, over the last seconds.
    pub ingest_items_per_second: Option<f64>,
    /// Why the store takes no writes.
    pub read_only: Option<String>,
    /// Why the store serves nobody any more, once it has lost synced data.
    pub lost: Option<String>,
    /// Whether it is not known that the store holds what a quorum of the replicas of its shards hold.
    pub catching_up: bool,
}

/// Reads a node's own status. Cheap to clone.
#[derive(Clone)]
pub struct OwnStatusSource(Arc<dyn Fn() -> OwnStatus + Send + Sync>);

impl OwnStatusSource {
    pub fn new(read: impl Fn() -> OwnStatus + Send + Sync + 'static) -> Self {
        OwnStatusSource(Arc::new(read))
    }

    pub fn read(&self) -> OwnStatus {
        (self.0)()
    }
}
