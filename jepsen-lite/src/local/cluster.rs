//! All processes of a cluster with the proxies between them: storage nodes, meta members and fronts.

#![allow(clippy::disallowed_methods, reason = "starts what is tested, and is part of no node")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use oteld_env::faults::FaultsFile;
use tokio::time::Instant;

use super::mesh::Mesh;
use super::nemesis::Nemesis;
use super::node::Node;
use super::process::Launch;
use crate::driver::{self, Addresses, Running, SETTINGS, Scene, ask, loopback};
use crate::nemesis::topology::Topology;

/// How long a busy machine may take to start all processes.
const START_WAIT: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Exists. Data, logs and settings of all nodes go there.
    pub dir: PathBuf,
    pub oteld: PathBuf,
    pub topology: Topology,
    pub replication_factor: u32,
    pub shards: u32,
    pub seed: u64,
    /// Whether a kill loses what was not synced.
    pub power_loss: bool,
    /// Whether this binary has the command [`super::process::GUARD`].
    pub guarded: bool,
}

/// Dropping it kills everything.
pub struct Cluster {
    pub nodes: BTreeMap<String, Node>,
    pub mesh: Mesh,
    sockets: PathBuf,
}

impl Cluster {
    /// Everything but the processes.
    ///
    /// # Errors
    /// When ports or files cannot be had.
    pub fn prepare(options: &Options) -> Result<Cluster, String> {
        let failed =
            |error: io::Error| format!("cannot prepare a cluster in {}: {error}", options.dir.display());
        let ip = loopback();
        let names = options.topology.all();
        // Held until all are known, so that none is given twice.
        let mut ports = Vec::new();
        let mut free = || -> io::Result<SocketAddr> {
            let listener = TcpListener::bind(SocketAddr::new(ip, 0))?;
            let address = listener.local_addr()?;
            ports.push(listener);
            Ok(address)
        };
        let mut addresses = BTreeMap::new();
        for name in &names {
            let four = [free(), free(), free(), free()].into_iter().collect::<io::Result<Vec<_>>>();
            addresses.insert(name.clone(), four.map_err(failed)?);
        }
        let node_addresses = addresses.iter().map(|(name, four)| (name.clone(), four[0])).collect();
        let mesh = Mesh::start(ip, node_addresses).map_err(failed)?;
        // A socket's path has little room.
        let sockets = std::env::temp_dir().join(format!("jepsen-lite-{}", std::process::id()));
        std::fs::create_dir_all(&sockets).map_err(failed)?;
        let members: Vec<String> =
            options.topology.meta.iter().map(|name| format!("{name}={}", addresses[name][0])).collect();
        let mut nodes = BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            let four = addresses[name].iter().map(SocketAddr::to_string).collect::<Vec<_>>();
            let [node, query, otlp_http, otlp_grpc] = four.try_into().expect("each node has four ports");
            let own = Addresses { node, query, otlp_http, otlp_grpc };
            let control = sockets.join(format!("{name}.sock"));
            let data = options.dir.join("nodes").join(name);
            let faults = options.dir.join(format!("{name}.faults.json"));
            let seed = options.seed.wrapping_mul(1_000).wrapping_add(index as u64);
            let file = FaultsFile {
                seed,
                control: Some(control.clone()),
                power_loss: options.power_loss,
                dial: mesh.detours(name),
            };
            let file = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
            std::fs::write(&faults, file).map_err(failed)?;
            let arguments = arguments(options, name, &own, &members, &data, &faults);
            let log = options.dir.join(format!("{name}.log"));
            let launch = Launch { program: options.oteld.clone(), arguments, log, guarded: options.guarded };
            let is_storage = options.topology.storage.contains(name);
            nodes.insert(name.clone(), Node::new(name, own, control, data, is_storage, launch));
        }
        Ok(Cluster { nodes, mesh, sockets })
    }

    /// Waits until every node does all that its roles promise.
    ///
    /// # Errors
    /// When one ends, or is not ready in time: what it says, with the end of its log.
    async fn ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_WAIT;
        for node in self.nodes.values_mut() {
            loop {
                if let Some(status) = node.ended() {
                    return Err(format!("{} ended with {status}:\n{}", node.name, node.tail()));
                }
                let Err(says) = ask::is_ready(&node.addresses.query).await else { break };
                if Instant::now() >= deadline {
                    let waited = START_WAIT.as_secs();
                    return Err(format!(
                        "{} is not ready after {waited} s ({says}):\n{}",
                        node.name,
                        node.tail()
                    ));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none: a schedule for another cluster.
    pub fn node(&mut self, name: &str) -> Result<&mut Node, String> {
        self.nodes.get_mut(name).ok_or_else(|| format!("there is no node {name}"))
    }
}

impl driver::Cluster for Cluster {
    type Nemesis = Nemesis;

    async fn start(&mut self) -> Result<(), String> {
        self.nodes.values_mut().try_for_each(Node::start)?;
        self.ready().await
    }

    fn addresses(&self) -> BTreeMap<String, Addresses> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.addresses.clone())).collect()
    }

    fn running(&self) -> Vec<Running> {
        let running = |node: &Node| Running {
            node: node.name.clone(),
            boot: node.boot,
            resident_bytes: node.resident_bytes(),
            query: node.addresses.query.clone(),
        };
        self.nodes.values().filter(|node| node.runs()).map(running).collect()
    }

    fn nemesis(cluster: Rc<RefCell<Self>>, scene: Scene) -> Nemesis {
        Nemesis::new(cluster, scene)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.sockets);
    }
}

fn arguments(
    options: &Options,
    name: &String,
    own: &Addresses,
    members: &[String],
    data: &Path,
    faults: &Path,
) -> Vec<String> {
    let topology = &options.topology;
    let roles = [("storage", &topology.storage), ("meta", &topology.meta), ("front", &topology.fronts)];
    let roles: Vec<&str> =
        roles.into_iter().filter(|(_, names)| names.contains(name)).map(|(role, _)| role).collect();
    let own_settings = [
        ("node.name", name.clone()),
        ("node.roles", roles.join(",")),
        ("node.data_dir", data.display().to_string()),
        ("listen.node", own.node.clone()),
        ("listen.query", own.query.clone()),
        ("listen.otlp_http", own.otlp_http.clone()),
        ("listen.otlp_grpc", own.otlp_grpc.clone()),
        ("meta.members", members.join(",")),
        ("meta.expected_storage_nodes", topology.storage.len().to_string()),
        ("meta.replication_factor", options.replication_factor.to_string()),
        ("meta.shards", options.shards.to_string()),
    ];
    let all = SETTINGS.into_iter().map(|(key, value)| (key, value.to_owned())).chain(own_settings);
    let mut arguments = vec!["run".to_owned(), "--faults".to_owned(), faults.display().to_string()];
    for (key, value) in all {
        arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_ports_and_detours_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().to_owned(),
            oteld: "/bin/true".into(),
            topology: Topology::new(3, 1, 1),
            replication_factor: 3,
            shards: 16,
            seed: 7,
            power_loss: true,
            guarded: false,
        };
        let cluster = Cluster::prepare(&options).unwrap();
        let mut addresses: Vec<&String> = (cluster.nodes.values())
            .flat_map(|node| [&node.addresses.node, &node.addresses.query, &node.addresses.otlp_http])
            .collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 15);
        let detours = cluster.mesh.detours("front-1");
        assert_eq!(detours.len(), 4);
        for name in ["storage-1", "storage-2", "storage-3", "meta-1"] {
            let own = &cluster.nodes[name].addresses.node;
            assert!(detours.contains_key(own) && detours[own] != *own);
        }
        let file = std::fs::read_to_string(dir.path().join("front-1.faults.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap();
        assert_eq!(file["dial"].as_object().unwrap().len(), 4);
        let arguments = cluster.nodes["meta-1"].launch.arguments.join(" ");
        assert!(arguments.contains("node.roles=meta ") && arguments.contains("meta.members=meta-1="));
    }
}
