//! Simulation: the real code of 3 storage nodes with the meta role and a front, in one thread under one seed.
//!
//! Clients write all three signals, send some requests twice, and read now and then, while machines lose power, one loses
//! its store, and links are cut. Then everything is mended, the cluster must become ready within a bound, and the last reads are
//! checked against all that was acknowledged.

pub mod schedule;
pub mod trace;
mod client;
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use oteld_env::clock::SIMULATION_EPOCH_NANOS;
use oteld_env::disk::SimDisk;
use oteld_env::{Env, Random};

use self::client::Client;
use self::schedule::{Step, faults};
use self::world::{FRONT, NODES, World, env_of};
use crate::checker::{self, Violation};
use crate::history::{History, Outcome};
use crate::workload::{Item, Run, Signal};

/// The cluster must take writes by then, with no fault before.
const FORMED_MS: u64 = 30_000;

/// How long the faults go on.
const FAULTS_MS: u64 = 30_000;

/// After the last fault ended, everything must be readable again within this.
const RECOVERED_MS: u64 = 60_000;

const WRITERS: u32 = 3;
const ITEMS_PER_WRITE: u64 = 5;

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub struct SeedReport {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub acknowledged: u64,
    pub unknown: u64,
    pub retried: u64,
    pub reads: u64,
    pub partial_reads: u64,
    pub crashes: u64,
    pub wipes: u64,
    pub cuts: u64,
    /// Lines and hash of the trace.
    pub trace: (u64, u64),
}

struct Shared {
    history: History,
    stop_writing: bool,
    done: Option<Result<(), String>>,
    formed: bool,
}

/// Runs one seed to its end.
///
/// # Errors
/// When the simulation itself fails, or the cluster does not form or recover: a violation of liveness.
pub fn run_seed(seed: u64, trace: &trace::Trace) -> Result<SeedReport, String> {
    let total = Duration::from_millis(FORMED_MS + FAULTS_MS + RECOVERED_MS + 60_000);
    let mut world = World::new(seed, total);
    let shared = Rc::new(RefCell::new(Shared {
        history: History::default(),
        stop_writing: false,
        done: None,
        formed: false,
    }));
    let clients = shared.clone();
    world.sim.client("clients", async move {
        let outcome = run_clients(seed, clients.clone()).await;
        clients.borrow_mut().done = Some(outcome);
        Ok(())
    });
    let step =
        |world: &mut World| world.sim.step().map_err(|error| format!("the simulation failed: {error}"));
    while !shared.borrow().formed {
        step(&mut world)?;
        if world.sim.elapsed().as_millis() as u64 > FORMED_MS {
            return Err(format!("the cluster did not form within {FORMED_MS} ms"));
        }
    }
    let from_ms = world.sim.elapsed().as_millis() as u64;
    let schedule = faults(&Random::from_seed(seed ^ 0xfa17), NODES, from_ms, from_ms + FAULTS_MS);
    for timed in &schedule {
        while (world.sim.elapsed().as_millis() as u64) < timed.at_ms {
            step(&mut world)?;
        }
        trace.add(&timed.to_string());
        world.take(timed.step);
    }
    while (world.sim.elapsed().as_millis() as u64) < from_ms + FAULTS_MS {
        step(&mut world)?;
    }
    shared.borrow_mut().stop_writing = true;
    let healed_ms = world.sim.elapsed().as_millis() as u64;
    while shared.borrow().done.is_none() {
        step(&mut world)?;
        if world.sim.elapsed().as_millis() as u64 > healed_ms + RECOVERED_MS + 30_000 {
            return Err(format!("no complete read within {RECOVERED_MS} ms after the last fault"));
        }
    }
    let shared = shared.borrow();
    shared.done.clone().unwrap_or(Ok(()))?;
    let history = &shared.history;
    let count =
        |wanted: fn(&Step) -> bool| schedule.iter().filter(|timed| wanted(&timed.step)).count() as u64;
    let outcome = |wanted| history.writes.iter().filter(|write| write.outcome == wanted).count() as u64;
    Ok(SeedReport {
        seed,
        violations: checker::check(history),
        acknowledged: outcome(Outcome::Acknowledged),
        unknown: outcome(Outcome::Unknown),
        retried: history.writes.iter().filter(|write| write.attempts > 1).count() as u64,
        reads: history.reads.len() as u64,
        partial_reads: history.reads.iter().filter(|read| read.partial).count() as u64,
        crashes: count(|step| matches!(step, Step::Crash(_))),
        wipes: count(|step| matches!(step, Step::Wipe(_))),
        cuts: count(|step| matches!(step, Step::Cut(..) | Step::CutFront(_))),
        trace: trace.digest(),
    })
}

async fn run_clients(seed: u64, shared: Rc<RefCell<Shared>>) -> Result<(), String> {
    let env = env_of(seed, "clients", 0, SimDisk::new(Random::from_seed(seed), 0));
    let run = Run { seed, start_unix_nano: SIMULATION_EPOCH_NANOS };
    let client = Client { env: env.clone(), run, front: FRONT.into() };
    while !client.is_ready().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shared.borrow_mut().formed = true;
    let writers = (0..WRITERS).map(|writer| {
        let (client, env, shared) = (client.clone(), env.clone(), shared.clone());
        tokio::task::spawn_local(async move { write_on(writer, &client, &env, &shared).await })
    });
    let mut running: Vec<_> = writers.collect();
    let (reading, reader_shared) = (client.clone(), shared.clone());
    let reader_env = env.clone();
    running.push(tokio::task::spawn_local(async move {
        while !reader_shared.borrow().stop_writing {
            tokio::time::sleep(Duration::from_millis(reader_env.random.in_range(200..3000))).await;
            let signal = Signal::ALL[reader_env.random.in_range(0..3) as usize];
            match reading.read(signal).await {
                Ok(read) => reader_shared.borrow_mut().history.reads.push(read),
                Err(error) => tracing::debug!(target: "jepsen", %error, "read failed"),
            }
        }
    }));
    for task in running {
        task.await.map_err(|error| format!("a client ended: {error}"))?;
    }
    for signal in Signal::ALL {
        final_read(&client, signal, &shared).await?;
    }
    Ok(())
}

async fn write_on(writer: u32, client: &Client, env: &Env, shared: &RefCell<Shared>) {
    let mut next = [0_u64; 3];
    while !shared.borrow().stop_writing {
        let which = env.random.in_range(0..3) as usize;
        let sequences = next[which]..next[which] + ITEMS_PER_WRITE;
        next[which] = sequences.end;
        let items = sequences.map(|sequence| Item { writer, sequence }).collect();
        let write = client.write(Signal::ALL[which], items).await;
        if env.random.in_range(0..10) == 0 {
            client.write_again(&write).await;
        }
        shared.borrow_mut().history.writes.push(write);
        tokio::time::sleep(Duration::from_millis(env.random.in_range(10..200))).await;
    }
}

/// The read that must be complete, within the bound.
async fn final_read(client: &Client, signal: Signal, shared: &RefCell<Shared>) -> Result<(), String> {
    let deadline = client.now_ms() + RECOVERED_MS;
    let mut last = String::from("never asked");
    while client.now_ms() < deadline {
        match client.read(signal).await {
            Ok(read) if !read.partial => {
                shared.borrow_mut().history.reads.push(read);
                return Ok(());
            }
            Ok(_) => last = "the answer is partial".into(),
            Err(error) => last = error,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(format!("{signal:?} cannot be read completely within {RECOVERED_MS} ms after the last fault: {last}"))
}
