//! What a node knows of the cluster: the watched state of the meta group, and newer shard entries that other
//! nodes taught it. Nothing in it ever goes back (PROTOCOL, failure 12).

use std::collections::BTreeMap;
use std::sync::Arc;

use oteld_cluster::ids::{ClusterId, NodeId, ReplicaId, ShardId};
use oteld_cluster::shard_map::{Entry, ShardMap};
use oteld_cluster::state::ClusterState;
use oteld_env::Env;
use oteld_proto::node::Refusal;
use oteld_store::model::{Shard, Split};
use parking_lot::RwLock;
use tokio::sync::watch;

/// Shared view of the cluster. Cheap to clone; follows the metadata by itself.
#[derive(Clone)]
pub struct ClusterView {
    state: watch::Receiver<Arc<ClusterState>>,
    map: Arc<RwLock<ShardMap>>,
}

impl ClusterView {
    /// Follows `state` until its sender is gone.
    pub fn follow(env: &Env, state: watch::Receiver<Arc<ClusterState>>) -> Self {
        let mut map = ShardMap::default();
        map.adopt_state(&state.borrow());
        let view = ClusterView { state, map: Arc::new(RwLock::new(map)) };
        let (mut changes, map) = (view.state.clone(), view.map.clone());
        env.tasks.spawn(async move {
            while changes.changed().await.is_ok() {
                let state = changes.borrow_and_update().clone();
                map.write().adopt_state(&state);
            }
        });
        view
    }

    /// The newest state of the metadata that reached this node.
    pub fn state(&self) -> Arc<ClusterState> {
        self.state.borrow().clone()
    }

    /// Wakes when the state changes.
    pub fn changes(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    /// `None` before the cluster is formed.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.state.borrow().cluster
    }

    /// How requests are split; `None` before the shards are placed.
    pub fn split(&self) -> Option<Split> {
        let shards = self.map.read().len();
        (shards > 0).then(|| Split { version: self.state.borrow().settings.split_version, shards })
    }

    pub fn entry(&self, shard: Shard) -> Option<Entry> {
        self.map.read().entry(ShardId(shard.0)).cloned()
    }

    /// Takes an entry that another node sent, when it is newer.
    pub fn adopt(&self, shard: Shard, entry: &Entry) {
        self.map.write().adopt(ShardId(shard.0), entry);
    }

    /// Takes the newer entries that a refusal carries, and gives all that it carries.
    pub fn learn_from(&self, refusal: &Refusal) -> BTreeMap<Shard, Entry> {
        let carried = refusal.shards.iter().filter(|shard| !shard.entry.is_empty());
        // One that does not decode is left to the metadata, which has them all.
        let entries = carried.filter_map(|s| Some((Shard(s.shard), Entry::decode(&s.entry).ok()?)));
        let entries: BTreeMap<Shard, Entry> = entries.collect();
        entries.iter().for_each(|(shard, entry)| self.adopt(*shard, entry));
        entries
    }

    /// All placed shards with their entries, in order.
    pub fn entries(&self) -> Vec<(Shard, Entry)> {
        self.map.read().iter().map(|(shard, entry)| (Shard(shard.0), entry.clone())).collect()
    }

    /// `host:port` for RPC with a node.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.state.borrow().nodes.get(&node).map(|node| node.address.clone())
    }

    /// Name of the node that has a store, for messages.
    pub fn name_of(&self, replica: ReplicaId) -> String {
        let state = self.state.borrow();
        let node = state.nodes.values().find(|node| node.replica == Some(replica));
        node.map_or_else(|| replica.to_string(), |node| node.name.clone())
    }
}
