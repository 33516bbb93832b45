//! The simulated machines: real node code on turmoil, each with a disk, a clock and a Raft log that outlive its
//! process.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use oteld::config::{Config, IngestConfig, ListenConfig, MetaConfig, NodeConfig, Role, StorageConfig};
use oteld::server::Node;
use oteld_cluster::handle::MetaLog;
use oteld_cluster::raft::SimulatedLog;
use oteld_cluster::shard_map::Member;
use oteld_cluster::state::{ClusterState, ShardEntry};
use oteld_env::disk::SimDisk;
use oteld_env::{Clock, Env, Net, Random, Tasks, WorkQueue};
use oteld_query::Limits;

use crate::clients::{Front, NodeAddress, Plan, Targets};
use crate::history::event::{Sample, ShardSample};
use crate::nemesis::fault::Link;
use crate::nemesis::topology::Topology;

pub(super) const DATA_DIR: &str = "/data";

/// Bytes of each simulated disk.
pub(super) const DISK_BYTES: u64 = 1 << 30;

/// After the last fault ended, everything must be readable again within this.
pub(super) const RECOVERED: Duration = Duration::from_secs(60);

/// Largest request of a simulated front.
const REQUEST_BYTES_MAX: u64 = 256 << 10;

/// What requests in flight of a simulated front may hold: less than a burst of the clients.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// A machine's parts that outlive its process.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) disk: SimDisk,
    pub(super) log: SimulatedLog,
    pub(super) random: Random,
    pub(super) clock: Clock,
    /// Where its blocking work waits: how a simulated machine is slow.
    pub(super) work: WorkQueue,
    pub(super) boots: Cell<u64>,
    pub(super) is_running: Cell<bool>,
    /// The running process, once it listens.
    pub(super) node: RefCell<Option<Rc<Node>>>,
}

/// The shape of a seed's cluster, and what its clients do.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) topology: Topology,
    pub(super) replication_factor: u32,
    pub(super) shards: u32,
    pub(super) memtable_bytes_max: u64,
    pub(super) wal_keep_bytes: u64,
    /// The longest that blocking work waits on a machine that nothing slows.
    pub(super) work_wait_max: Duration,
    pub(super) plan: Plan,
}

impl Shape {
    pub(super) fn of(topology: Topology, replication_factor: u32) -> Self {
        Shape {
            topology,
            replication_factor,
            shards: 8,
            memtable_bytes_max: 32 << 10,
            wal_keep_bytes: 64 << 10,
            work_wait_max: Duration::from_millis(20),
            plan: plan(),
        }
    }

    /// Clients give up before the nodes that they do not reach come back, and read so often that something is read at
    /// every moment: what was shown once is not written again before it is missed.
    pub(super) fn impatient(self) -> Self {
        let plan = Plan {
            readers: 12,
            read_pause_ms: 20..150,
            answer_wait: Duration::from_millis(800),
            read_wait: Duration::from_secs(3),
            give_up: Duration::from_secs(1),
            ..self.plan
        };
        Shape { plan, ..self }
    }

    /// Small or large, with meta nodes of their own or without: what the seed says.
    pub(super) fn of_seed(seed: u64) -> Self {
        let random = Random::from_seed(seed ^ 0x5ade);
        let pick = |choices: &[u64]| choices[random.in_range(0..choices.len() as u64) as usize];
        let (storage, meta) = (pick(&[3, 4, 5]) as u32, pick(&[0, 0, 3]) as u32);
        Shape {
            shards: pick(&[4, 8, 16]) as u32,
            memtable_bytes_max: pick(&[24 << 10, 96 << 10, 512 << 10]),
            wal_keep_bytes: pick(&[4 << 10, 64 << 10, 1 << 20]),
            work_wait_max: Duration::from_millis(pick(&[0, 5, 60])),
            ..Shape::of(Topology::new(storage, meta, 2), 3)
        }
    }
}

fn plan() -> Plan {
    Plan {
        writers: 3,
        items_per_second: 240,
        items_per_request: 1..16,
        readers: 4,
        read_pause_ms: 100..1000,
        cell: 512,
        meta_sessions: 2,
        probes: true,
        burst_every: 8,
        request_bytes_max: REQUEST_BYTES_MAX,
        answer_wait: Duration::from_secs(4),
        read_wait: Duration::from_secs(10),
        give_up: Duration::from_secs(20),
        recover_max: RECOVERED,
    }
}

/// The cluster in its simulation.
pub(super) struct World {
    pub(super) sim: turmoil::Sim<'static>,
    pub(super) machines: BTreeMap<String, Rc<Machine>>,
    /// How many cuts, and how many holds, each link is under.
    cuts: BTreeMap<Link, u32>,
    holds: BTreeMap<Link, u32>,
    /// Counters of processes that ended.
    counted: BTreeMap<&'static str, u64>,
}

impl World {
    /// All machines, not yet started: they start with the simulation.
    pub(super) fn new(seed: u64, shape: &Shape, duration: Duration) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(duration)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(4096)
            .build();
        let mut machines = BTreeMap::new();
        for name in shape.topology.all() {
            machines.insert(name.clone(), add_machine(&mut sim, seed, shape, &name));
        }
        let (cuts, holds, counted) = Default::default();
        World { sim, machines, cuts, holds, counted }
    }

    /// Where the nodes listen.
    pub(super) fn targets(topology: &Topology) -> Targets {
        let front = |name: &String| Front {
            name: name.clone(),
            otlp_http: format!("{name}:4318"),
            query: format!("{name}:8081"),
        };
        let node =
            |name: String| NodeAddress { query: format!("{name}:8081"), node: format!("{name}:7070"), name };
        Targets {
            fronts: topology.fronts.iter().map(front).collect(),
            nodes: topology.all().into_iter().map(node).collect(),
            meta: topology.meta.iter().map(|name| format!("{name}:7070")).collect(),
        }
    }

    /// The process ends. What it measured is kept.
    pub(super) fn end_process(&mut self, name: &str) {
        let machine = self.machines[name].clone();
        self.count(&machine);
        machine.node.take();
        self.sim.crash(name);
        machine.is_running.set(false);
    }

    pub(super) fn start_process(&mut self, name: &str) {
        self.machines[name].is_running.set(true);
        self.sim.bounce(name);
    }

    pub(super) fn address(&self, name: &str) -> std::net::IpAddr {
        self.sim.lookup(name)
    }

    /// Cuts and holds may overlap: a link is whole again when all of them ended.
    pub(super) fn cut(&mut self, link: &Link) {
        *self.cuts.entry(link.clone()).or_default() += 1;
        self.set_link(link);
    }

    pub(super) fn mend(&mut self, link: &Link) {
        *self.cuts.get_mut(link).expect("a mend follows its cut") -= 1;
        self.set_link(link);
    }

    pub(super) fn hold(&mut self, link: &Link) {
        *self.holds.entry(link.clone()).or_default() += 1;
        self.set_link(link);
    }

    pub(super) fn release(&mut self, link: &Link) {
        *self.holds.get_mut(link).expect("a release follows its hold") -= 1;
        self.set_link(link);
    }

    /// The simulated network holds both directions of a link or none, and cuts each by itself.
    fn set_link(&self, link: &Link) {
        let (a, b) = (link.0.as_str(), link.1.as_str());
        let back = (link.1.clone(), link.0.clone());
        let is_in = |counts: &BTreeMap<Link, u32>, link| counts.get(link).is_some_and(|count| *count > 0);
        let held = is_in(&self.holds, link) || is_in(&self.holds, &back);
        if held {
            self.sim.hold(a, b);
        } else {
            self.sim.release(a, b);
        }
        for (cut, from, to) in [(is_in(&self.cuts, link), a, b), (is_in(&self.cuts, &back), b, a)] {
            match cut {
                true => self.sim.partition_oneway(from, to),
                false if !held => self.sim.repair_oneway(from, to),
                false => {}
            }
        }
    }

    /// What every running node knows of the shards.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let at_us = self.sim.elapsed().as_micros() as u64;
        let running =
            self.machines.values().filter_map(|machine| Some((machine, machine.node.borrow().clone()?)));
        let sample = |(machine, node): (&Rc<Machine>, Rc<Node>)| {
            let member = node.meta_member();
            let name = |id| {
                let members = member.iter().flat_map(|status| &status.members);
                members.filter(|member| Some(member.id) == id).map(|member| member.name.clone()).next()
            };
            let readings = node.readings().read();
            let reading = |name: &str| {
                readings.iter().find(|reading| reading.name == name).map_or(0, |reading| reading.value as u64)
            };
            Sample {
                at_us,
                node: machine.name.clone(),
                boot: machine.boots.get() as u32,
                shards: shards_of(&node.cluster()),
                seen_by: member.as_ref().and_then(|status| name(status.member)),
                leader: member.as_ref().and_then(|status| name(status.leader)),
                term: member.as_ref().map_or(0, |status| status.term),
                request_bytes: reading("oteld.admit.memory"),
                request_bytes_max: reading("oteld.admit.memory_limit"),
                ..Sample::default()
            }
        };
        running.map(sample).collect()
    }

    /// Counters of all processes, those that ended and those that run.
    pub(super) fn counters(&mut self) -> BTreeMap<&'static str, u64> {
        for machine in self.machines.values().cloned().collect::<Vec<_>>() {
            self.count(&machine);
            machine.node.take();
        }
        self.counted.clone()
    }

    fn count(&mut self, machine: &Machine) {
        let Some(node) = &*machine.node.borrow() else { return };
        for reading in node.readings().read() {
            *self.counted.entry(reading.name).or_default() += reading.value as u64;
        }
    }
}

fn shards_of(cluster: &ClusterState) -> BTreeMap<u32, ShardSample> {
    let name =
        |member: &Member| cluster.nodes.get(&member.node).map(|node| node.name.clone()).unwrap_or_default();
    let names = |members: &[Member]| members.iter().map(name).collect::<Vec<_>>();
    let sample = |shard: &ShardEntry| ShardSample {
        epoch: shard.entry.epoch.0,
        set: names(&shard.entry.old),
        new: shard.entry.new.as_ref().map(|new| names(new)),
    };
    cluster.shards.iter().map(|shard| (shard.shard.0, sample(shard))).collect()
}

/// The environment of a machine's process; every boot has randomness of its own.
pub(super) fn env_of(seed: u64, name: &str, boot: u64, disk: SimDisk, clock: Clock, work: WorkQueue) -> Env {
    let random = random_of(seed, name, boot);
    let tasks = Tasks::queued(random_of(seed ^ 0x7a5c, name, boot), work);
    Env { clock, random, disk: Arc::new(disk), net: Net::Turmoil, tasks }
}

fn random_of(seed: u64, name: &str, boot: u64) -> Random {
    let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(seed);
    hash.update(name.as_bytes());
    hash.update(&boot.to_le_bytes());
    Random::from_seed(hash.digest())
}

fn add_machine(sim: &mut turmoil::Sim<'static>, seed: u64, shape: &Shape, name: &str) -> Rc<Machine> {
    let config = config(name, shape);
    let random = random_of(seed, name, u64::MAX);
    let machine = Rc::new(Machine {
        disk: SimDisk::new(random.clone(), DISK_BYTES),
        log: SimulatedLog::new(),
        random,
        clock: Clock::simulated(),
        work: WorkQueue::new(shape.work_wait_max),
        boots: Cell::new(0),
        is_running: Cell::new(true),
        node: RefCell::default(),
        name: name.to_owned(),
    });
    let host = machine.clone();
    sim.host(name, move || {
        let (machine, config) = (host.clone(), config.clone());
        async move {
            loop {
                run_node(seed, &machine, &config).await?;
            }
        }
    });
    machine
}

/// One life of a node; returns when its store lost data and it is to start again, as `oteld run` does.
async fn run_node(seed: u64, machine: &Machine, config: &Config) -> turmoil::Result {
    let boot = machine.boots.get() + 1;
    machine.boots.set(boot);
    let (disk, clock, work) = (machine.disk.clone(), machine.clock.clone(), machine.work.clone());
    let env = env_of(seed, &machine.name, boot, disk, clock, work);
    let storage = MetaLog::Simulated(machine.log.clone());
    let name = machine.name.as_str();
    let node = match Node::start_on(env, config.clone(), storage).await {
        Ok(node) => node,
        Err(error) => {
            // A supervisor starts it again; so does whoever repairs the disk.
            tracing::error!(target: "jepsen", %error, node = name, "the node does not start");
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(());
        }
    };
    tracing::info!(target: "jepsen", node = name, boot, "started");
    let node = Rc::new(node);
    machine.node.replace(Some(node.clone()));
    if node.is_lost() {
        std::future::pending::<()>().await;
    }
    node.lost().await;
    tracing::info!(target: "jepsen", node = name, "starts again: its store lost data");
    machine.node.take();
    if let Some(node) = Rc::into_inner(node) {
        node.stop().await;
    }
    Ok(())
}

fn config(name: &str, shape: &Shape) -> Config {
    let Topology { storage, meta, fronts } = &shape.topology;
    let has = |names: &[String]| names.iter().any(|other| other == name);
    let roles = [(has(fronts), Role::Front), (has(storage), Role::Storage), (has(meta), Role::Meta)];
    let listen = |port: u16| if has(fronts) { format!("0.0.0.0:{port}") } else { String::new() };
    Config {
        node: NodeConfig {
            name: name.into(),
            roles: roles.into_iter().filter(|(has, _)| *has).map(|(_, role)| role).collect(),
            data_dir: DATA_DIR.into(),
            zone: String::new(),
        },
        listen: ListenConfig {
            otlp_grpc: listen(4317),
            otlp_http: listen(4318),
            query: "0.0.0.0:8081".into(),
            node: "0.0.0.0:7070".into(),
        },
        advertise: format!("{name}:7070"),
        meta: MetaConfig {
            members: meta.iter().map(|name| format!("{name}={name}:7070")).collect(),
            expected_storage_nodes: storage.len() as u32,
            replication_factor: shape.replication_factor,
            shards: shape.shards,
        },
        ingest: IngestConfig {
            timeout_ms: 3_000,
            request_bytes_max: REQUEST_BYTES_MAX as usize,
            memory_bytes_max: MEMORY_BYTES_MAX,
            ..IngestConfig::default()
        },
        storage: StorageConfig {
            memtable_bytes_max: shape.memtable_bytes_max,
            min_free_bytes: 1 << 20,
            wal_keep_bytes: shape.wal_keep_bytes,
        },
        query: Limits { entries_max: 100_000_000, ..Limits::default() },
        ..Config::default()
    }
}
