//! Nodes, Raft member ids and the feature level.

use super::{ClusterState, MetaMember, Node, NodeState, Settings};
use crate::command::{Applied, Rejected};
use crate::ids::{ClusterId, Incarnation, MetaId, NodeId};

impl ClusterState {
    pub(super) fn init_cluster(
        &mut self,
        cluster: ClusterId,
        settings: Settings,
        next_meta: MetaId,
    ) -> Result<Applied, Rejected> {
        if let Some(known) = self.cluster {
            let again = known == cluster;
            return if again { Ok(Applied::Unchanged) } else { Err(Rejected::AlreadyInitialised(known)) };
        }
        if settings.replication_factor == 0 || settings.shards == 0 {
            let reason = "replication factor and shards must be at least 1".to_owned();
            return Err(Rejected::Invalid("settings".to_owned(), reason));
        }
        self.cluster = Some(cluster);
        self.feature_level = 1;
        self.settings = settings;
        self.next_node = NodeId(1);
        self.next_meta = next_meta;
        Ok(Applied::Done)
    }

    pub(super) fn register_node(&mut self, mut node: Node) -> Result<Applied, Rejected> {
        if node.name.is_empty() || node.address.is_empty() {
            let reason = "name and address must not be empty".to_owned();
            return Err(Rejected::Invalid("node".to_owned(), reason));
        }
        if node.roles.storage != node.replica.is_some() {
            let reason = "a node has a store exactly when it has the storage role".to_owned();
            return Err(Rejected::Invalid("node".to_owned(), reason));
        }
        if node.feature_level < self.feature_level {
            let reason = format!(
                "its binary knows feature level {}, the cluster is at {}",
                node.feature_level, self.feature_level
            );
            return Err(Rejected::Invalid("node".to_owned(), reason));
        }
        let known = self.node_by_name(&node.name).map(|(id, known)| (id, known.clone()));
        let id = known.as_ref().map_or(self.next_node, |(id, _)| *id);
        if let Some(replica) = node.replica
            && let Some((holder, _)) = self.node_by_replica(replica)
            && holder != id
        {
            return Err(Rejected::ReplicaTaken { replica, node: holder });
        }
        match known {
            Some((_, known)) => {
                node.state = known.state;
                self.nodes.insert(id, node);
            }
            None => {
                self.next_node = id.next();
                self.nodes.insert(id, node);
            }
        }
        Ok(Applied::Node(id))
    }

    pub(super) fn set_node_state(
        &mut self,
        id: NodeId,
        expect: NodeState,
        to: NodeState,
    ) -> Result<Applied, Rejected> {
        let node = self.nodes.get(&id).ok_or(Rejected::NoSuchNode(id))?;
        if node.state == to {
            return Ok(Applied::Unchanged);
        }
        if node.state != expect || node.state == NodeState::Removed {
            return Err(Rejected::NodeStateIs { node: id, expected: expect, actual: node.state });
        }
        if to == NodeState::Removed
            && let Some(held) =
                self.shards.iter().find(|shard| shard.entry.members().iter().any(|member| member.node == id))
        {
            return Err(Rejected::NodeHoldsShard { node: id, shard: held.shard });
        }
        let node = self.nodes.get_mut(&id).ok_or(Rejected::NoSuchNode(id))?;
        node.state = to;
        if to == NodeState::Removed {
            node.replica = None;
        }
        Ok(Applied::Done)
    }

    pub(super) fn allocate_meta(
        &mut self,
        name: String,
        incarnation: Incarnation,
    ) -> Result<Applied, Rejected> {
        let mut members = self.meta_members.iter();
        if let Some((id, _)) = members.find(|(_, member)| member.incarnation == incarnation) {
            return Ok(Applied::Meta(*id));
        }
        let id = self.next_meta;
        self.next_meta = id.next();
        self.meta_members.insert(id, MetaMember { name, incarnation });
        Ok(Applied::Meta(id))
    }

    pub(super) fn raise_feature_level(&mut self, to: u32) -> Result<Applied, Rejected> {
        if to <= self.feature_level {
            return Ok(Applied::Unchanged);
        }
        let lagging =
            self.nodes.iter().find(|(_, node)| node.state != NodeState::Removed && node.feature_level < to);
        if let Some((node, known)) = lagging {
            return Err(Rejected::FeatureUnknown { node: *node, known: known.feature_level });
        }
        self.feature_level = to;
        Ok(Applied::Done)
    }
}
