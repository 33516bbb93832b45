//! The nodes of a cluster, as far as a schedule of faults needs them.

/// Names of nodes by role. A node may be in `storage` and `meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub storage: Vec<String>,
    pub meta: Vec<String>,
    pub fronts: Vec<String>,
}

impl Topology {
    /// `storage-1..`, `meta-1..` and `front-1..`; without dedicated meta nodes the storage nodes are the members.
    pub fn new(storage: u32, meta: u32, fronts: u32) -> Self {
        let names = |role: &str, count: u32| (1..=count).map(|number| format!("{role}-{number}")).collect();
        let storage: Vec<String> = names("storage", storage);
        let meta = if meta == 0 { storage.clone() } else { names("meta", meta) };
        Topology { storage, meta, fronts: names("front", fronts) }
    }

    /// Every node once: storage, then meta, then fronts.
    pub fn all(&self) -> Vec<String> {
        let mut all = self.storage.clone();
        let others = self.meta.iter().chain(&self.fronts);
        all.extend(others.filter(|name| !self.storage.contains(name)).cloned());
        all
    }

    /// Whether the meta group can lose its majority without a storage node or a front that stops.
    pub fn has_dedicated_meta(&self) -> bool {
        let elsewhere = |name: &String| self.storage.contains(name) || self.fronts.contains(name);
        !self.meta.is_empty() && !self.meta.iter().any(elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_nodes_are_the_meta_members_where_none_are_dedicated() {
        let topology = Topology::new(2, 0, 1);
        assert_eq!(topology.all(), ["storage-1", "storage-2", "front-1"]);
        assert_eq!(topology.meta, topology.storage);
        assert!(!topology.has_dedicated_meta());
        assert!(Topology::new(1, 1, 1).has_dedicated_meta());
    }
}
