//! The simulated machines: real node code on turmoil, each with a disk and a Raft log that lose what was not synced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use oteld::config::{Config, IngestConfig, ListenConfig, MetaConfig, NodeConfig, Role};
use oteld::server::Node;
use oteld_cluster::handle::MetaLog;
use oteld_cluster::raft::SimulatedLog;
use oteld_env::disk::{Disk, SimDisk};
use oteld_env::{Clock, Env, Net, Random, Tasks};
use oteld_query::Limits;

use super::schedule::{NodeIndex, Step};

pub(super) const FRONT: &str = "front";

const DATA_DIR: &str = "/data";

/// Bytes of each simulated disk.
const DISK_BYTES: u64 = 1 << 30;

/// Storage nodes of the simulated cluster, each a meta member.
pub(super) const NODES: usize = 3;

/// A machine's parts that outlive its process.
struct Machine {
    name: String,
    disk: SimDisk,
    log: SimulatedLog,
    random: Random,
}

/// The cluster in its simulation.
pub(super) struct World {
    pub(super) sim: turmoil::Sim<'static>,
    machines: Vec<Rc<Machine>>,
    cuts: BTreeMap<(String, String), u32>,
}

pub(super) fn name_of(node: NodeIndex) -> String {
    format!("node-{}", node + 1)
}

impl World {
    /// All machines, not yet started: they start with the simulation.
    pub(super) fn new(seed: u64, duration: Duration) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(duration)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(4096)
            .build();
        let mut machines = Vec::new();
        for index in 0..NODES {
            let config = config(&name_of(index), vec![Role::Storage, Role::Meta]);
            machines.push(add_machine(&mut sim, seed, config));
        }
        let front = config(FRONT, vec![Role::Front]);
        machines.push(add_machine(&mut sim, seed, front));
        World { sim, machines, cuts: BTreeMap::new() }
    }

    /// Takes one step of a schedule.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Crash(node) => self.crash(node),
            Step::Wipe(node) => {
                self.crash(node);
                wipe_store(&self.machines[node].disk);
            }
            Step::Restart(node) => self.sim.bounce(self.machines[node].name.as_str()),
            Step::Cut(a, b) => self.cut(name_of(a), name_of(b)),
            Step::CutFront(node) => self.cut(name_of(node), FRONT.into()),
            Step::Mend(a, b) => self.mend(name_of(a), name_of(b)),
            Step::MendFront(node) => self.mend(name_of(node), FRONT.into()),
        }
    }

    fn crash(&mut self, node: NodeIndex) {
        let machine = &self.machines[node];
        self.sim.crash(machine.name.as_str());
        machine.disk.crash();
        machine.log.crash(&machine.random);
    }

    /// Cuts may overlap: a link is whole again when all of them ended.
    fn cut(&mut self, a: String, b: String) {
        let pair = if a < b { (a, b) } else { (b, a) };
        let count = self.cuts.entry(pair.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.sim.partition(pair.0.as_str(), pair.1.as_str());
        }
    }

    fn mend(&mut self, a: String, b: String) {
        let pair = if a < b { (a, b) } else { (b, a) };
        let count = self.cuts.get_mut(&pair).expect("a mend follows its cut");
        *count -= 1;
        if *count == 0 {
            self.sim.repair(pair.0.as_str(), pair.1.as_str());
        }
    }
}

/// Removes every file of the store that a machine began with.
fn wipe_store(disk: &SimDisk) {
    let store = Path::new(DATA_DIR).join("store");
    for dir in [store.join("wal"), store.join("segments"), store] {
        // A machine that had not started yet has no such directory.
        for file in disk.list(&dir).unwrap_or_default() {
            disk.remove_file(&file).expect("a listed file of a disk without faults can be removed");
        }
        let _ = disk.sync_dir(&dir);
    }
}

/// The environment of a machine's process; every boot has randomness of its own.
pub(super) fn env_of(seed: u64, name: &str, boot: u64, disk: SimDisk) -> Env {
    let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(seed);
    hash.update(name.as_bytes());
    hash.update(&boot.to_le_bytes());
    Env {
        clock: Clock::simulated(),
        random: Random::from_seed(hash.digest()),
        disk: Arc::new(disk),
        net: Net::Turmoil,
        tasks: Tasks::inline(),
    }
}

fn add_machine(sim: &mut turmoil::Sim<'static>, seed: u64, config: Config) -> Rc<Machine> {
    let name = config.node.name.clone();
    let random = env_of(seed, &name, u64::MAX, SimDisk::new(Random::from_seed(seed), 0)).random;
    let machine = Rc::new(Machine {
        disk: SimDisk::new(random.clone(), DISK_BYTES),
        log: SimulatedLog::new(),
        random,
        name: name.clone(),
    });
    let boots = Rc::new(RefCell::new(0));
    let host = machine.clone();
    sim.host(name.as_str(), move || {
        let (machine, config) = (host.clone(), config.clone());
        *boots.borrow_mut() += 1;
        let boot = *boots.borrow();
        async move {
            let env = env_of(seed, &machine.name, boot, machine.disk.clone());
            let storage = MetaLog::Simulated(machine.log.clone());
            let node = Node::start_on(env, config, storage).await.map_err(|error| {
                tracing::error!(target: "jepsen", %error, node = machine.name, "the node does not start");
                error.to_string()
            })?;
            tracing::info!(target: "jepsen", node = machine.name, boot, "started");
            std::future::pending::<()>().await;
            drop(node);
            Ok(())
        }
    });
    machine
}

fn config(name: &str, roles: Vec<Role>) -> Config {
    let front = roles.contains(&Role::Front);
    let listen = |port: u16| if front { format!("0.0.0.0:{port}") } else { String::new() };
    Config {
        node: NodeConfig { name: name.into(), roles, data_dir: DATA_DIR.into(), zone: String::new() },
        listen: ListenConfig {
            otlp_grpc: listen(4317),
            otlp_http: listen(4318),
            query: listen(8081),
            node: "0.0.0.0:7070".into(),
        },
        advertise: format!("{name}:7070"),
        meta: MetaConfig {
            members: (0..NODES).map(|index| format!("{0}={0}:7070", name_of(index))).collect(),
            expected_storage_nodes: NODES as u32,
            replication_factor: 3,
            shards: 8,
        },
        ingest: IngestConfig { timeout_ms: 3_000, ..IngestConfig::default() },
        query: Limits { entries_max: 10_000_000, ..Limits::default() },
        ..Config::default()
    }
}
