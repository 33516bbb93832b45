//! Simulated nodes: one after the other is cut off from the others but not from the clients, as a leader that does not
//! know that it is none any more, or loses power.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jepsen_lite::clients::meta::session;
use jepsen_lite::history::event::{Event, MetaOutcome};
use jepsen_lite::timeline::Timeline;
use oteld::config::{Config, ListenConfig, MetaConfig, NodeConfig, Role};
use oteld::server::Node;
use oteld_cluster::handle::MetaLog;
use oteld_cluster::raft::SimulatedLog;
use oteld_env::{Clock, Env, Net, Random, SimDisk, Tasks};

use super::{NODES, SESSIONS, check, count, is_applied, name_of};

const PORT: u16 = 7070;
const CLIENTS: &str = "clients";
const DISK_BYTES: u64 = 1 << 28;
/// Simulated time in which sessions work.
const WORK: Duration = Duration::from_secs(60);
/// From one fault to the next one, and how long each lasts.
const FAULT_EVERY: Duration = Duration::from_secs(9);
const FAULT_LASTS: Duration = Duration::from_secs(5);

fn env(random: Random, disk: SimDisk) -> Env {
    let (clock, tasks) = (Clock::simulated(), Tasks::inline());
    Env { clock, random, disk: Arc::new(disk), net: Net::Turmoil, tasks }
}

fn address_of(node: usize) -> String {
    format!("{}:{PORT}", name_of(node))
}

fn config(node: usize) -> Config {
    let (name, roles) = (name_of(node), vec![Role::Storage, Role::Meta]);
    Config {
        node: NodeConfig { name, roles, data_dir: "/data".into(), zone: String::new() },
        listen: ListenConfig {
            otlp_grpc: String::new(),
            otlp_http: String::new(),
            query: String::new(),
            node: format!("0.0.0.0:{PORT}"),
        },
        advertise: address_of(node),
        meta: MetaConfig {
            members: (0..NODES).map(|node| format!("{}={}", name_of(node), address_of(node))).collect(),
            expected_storage_nodes: NODES as u32,
            replication_factor: NODES as u32,
            shards: 4,
        },
        ..Config::default()
    }
}

/// A machine's parts that outlive its process.
#[derive(Clone)]
struct Machine {
    random: Random,
    disk: SimDisk,
    log: SimulatedLog,
}

fn add_machine(sim: &mut turmoil::Sim<'static>, seed: u64, node: usize) -> Machine {
    let random = Random::from_seed(seed * 100 + node as u64);
    let machine =
        Machine { disk: SimDisk::new(random.clone(), DISK_BYTES), log: SimulatedLog::new(), random };
    let host = machine.clone();
    sim.host(name_of(node), move || {
        let Machine { random, disk, log } = host.clone();
        async move {
            let random = Random::from_seed(random.next_u64());
            let running = Node::start_on(env(random, disk), config(node), MetaLog::Simulated(log)).await?;
            std::future::pending::<()>().await;
            drop(running);
            Ok(())
        }
    });
    machine
}

/// What begins and ends as time passes; every other fault is a power loss.
fn strike(sim: &mut turmoil::Sim<'static>, machines: &[Machine], number: usize, begins: bool) {
    let node = number % NODES;
    let name = name_of(node);
    if number % 2 == 1 {
        if begins {
            sim.crash(name.as_str());
            machines[node].disk.crash();
            machines[node].log.crash(&machines[node].random);
        } else {
            sim.bounce(name.as_str());
        }
        return;
    }
    for other in (0..NODES).filter(|other| *other != node) {
        if begins {
            sim.partition(name.as_str(), name_of(other).as_str());
        } else {
            sim.repair(name.as_str(), name_of(other).as_str());
        }
    }
}

fn simulate(seed: u64) -> Vec<Event> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(WORK * 2)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(10))
        .tcp_capacity(4096)
        .build();
    let machines: Vec<Machine> = (0..NODES).map(|node| add_machine(&mut sim, seed, node)).collect();
    let history: Rc<RefCell<Vec<Event>>> = Rc::default();
    let sink = history.clone();
    sim.client(CLIENTS, async move {
        let timeline = Timeline::simulated();
        let start = |number: u32| {
            let random = Random::from_seed(seed * 1_000 + u64::from(number));
            let env = env(random.clone(), SimDisk::new(random, 0));
            let members = (0..NODES).map(address_of).collect();
            let sink = sink.clone();
            let record = move |event| sink.borrow_mut().push(event);
            let stop = move || timeline.now_us() > WORK.as_micros() as u64;
            tokio::task::spawn_local(session(number, env, timeline, members, record, stop))
        };
        let sessions: Vec<_> = (0..SESSIONS).map(start).collect();
        for session in sessions {
            session.await?;
        }
        Ok(())
    });
    let mut number = 0;
    let mut struck = false;
    while !sim.step().expect("nodes and sessions do not fail") {
        let begins = FAULT_EVERY * (number as u32 + 1);
        if !struck && sim.elapsed() >= begins {
            strike(&mut sim, &machines, number, true);
            struck = true;
        } else if struck && sim.elapsed() >= begins + FAULT_LASTS {
            strike(&mut sim, &machines, number, false);
            struck = false;
            number += 1;
        }
    }
    history.take()
}

#[test]
fn the_history_of_a_simulated_group_is_linear_under_cuts_and_power_losses() {
    for seed in 1..=2 {
        let history = simulate(seed);
        let result = check(&history);
        assert_eq!((result.findings, result.undecided), (Vec::new(), Vec::new()), "seed {seed}");
        let (applied, operations) = (count(&history, is_applied), history.len());
        assert!(applied > 200, "seed {seed}: {applied} of {operations} are applied");
        let unknown = count(&history, |outcome| *outcome == MetaOutcome::Unknown);
        assert!(unknown > 0, "seed {seed}: no fault left an outcome unknown");
    }
}
