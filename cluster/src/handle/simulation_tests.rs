//! A group in turmoil: simulated time and network, logs that lose what was not synced.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream;
use oteld_env::{Clock, Conn, Net, Random, RealDisk, Tasks};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::*;
use crate::ids::ReplicaId;
use crate::raft::SimulatedLog;
use crate::state::{Roles, Settings};

const PORT: u16 = 7070;
const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// A connection that tonic's server takes.
struct Accepted(Conn);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn env(seed: u64) -> Env {
    Env {
        clock: Clock::simulated(),
        random: Random::from_seed(seed),
        disk: Arc::new(RealDisk::new()),
        net: Net::Turmoil,
        tasks: Tasks::inline(),
    }
}

async fn open(name: &str, env: Env, dir: &Path, log: MetaLog) -> MetaHandle {
    let founder = |name: &str| Founder { name: name.to_owned(), address: format!("{name}:{PORT}") };
    let settings = Settings {
        replication_factor: 3,
        shards: 4,
        expected_storage_nodes: 3,
        split_version: 1,
        ..Settings::default()
    };
    let mut options = MetaOptions::new(MEMBERS.map(founder).into(), settings);
    options.log = log;
    let meta = MEMBERS.contains(&name);
    let roles = Roles { front: !meta, storage: meta, meta };
    let replica = meta.then(|| ReplicaId(name.as_bytes()[0].into()));
    let my = MyNode { name: name.to_owned(), address: format!("{name}:{PORT}"), roles, zone: None, replica };
    MetaHandle::open(env, dir, my, options).await.expect("opens")
}

async fn serve(name: &str, seed: u64, dir: &Path, log: SimulatedLog) -> turmoil::Result {
    let env = env(seed);
    let listener = env.net.bind(&format!("0.0.0.0:{PORT}")).await?;
    let handle = open(name, env, dir, MetaLog::Simulated(log)).await;
    let connections = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(conn, _)| Accepted(conn));
        Some((accepted, listener))
    });
    Server::builder().add_service(handle.service()).serve_with_incoming(Box::pin(connections)).await?;
    Ok(())
}

async fn set(handle: &MetaHandle, value: &str) {
    loop {
        let Ok(state) = handle.read().await else { continue };
        let expect = state.options.get("x").cloned();
        let command = Command::SetSetting { name: "x".to_owned(), expect, to: Some(value.to_owned()) };
        match handle.propose(command).await {
            Ok(_) => return,
            Err(ProposeError::Unknown(_) | ProposeError::NoLeader(_)) => {}
            Err(ProposeError::Rejected(rejected)) => panic!("{rejected}"),
        }
    }
}

async fn leader(handle: &MetaHandle) -> String {
    loop {
        let status = handle.status().await;
        let leader = status
            .iter()
            .flat_map(|status| status.members.iter().find(|member| Some(member.id) == status.leader));
        if let Some(leader) = leader.map(|member| member.name.clone()).next() {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Set while the scenario waits for all members to lose power at once.
type PowerLoss = Arc<Mutex<bool>>;

async fn scenario(dir: TempDir, power_loss: PowerLoss) -> turmoil::Result {
    let handle = open("front", env(99), dir.path(), MetaLog::Sled).await;
    handle.watch().wait_for(|state| !state.shards.is_empty()).await?;
    set(&handle, "1").await;

    let cut_off = leader(&handle).await;
    for other in MEMBERS.into_iter().chain(["front"]).filter(|other| *other != cut_off) {
        turmoil::partition(cut_off.as_str(), other);
    }
    set(&handle, "2").await;
    let state = handle.read().await?;
    assert_eq!(state.options["x"], "2", "a read after the change of leader");
    assert_ne!(leader(&handle).await, cut_off, "the partition must have changed the leader");
    for other in MEMBERS.into_iter().chain(["front"]).filter(|other| *other != cut_off) {
        turmoil::repair(cut_off.as_str(), other);
    }

    set(&handle, "3").await;
    *power_loss.lock() = true;
    while *power_loss.lock() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = loop {
        if let Ok(state) = handle.read().await {
            break state;
        }
    };
    assert_eq!(state.options["x"], "3", "a power loss forgets nothing that was answered");
    set(&handle, "4").await;
    let state = handle.read().await?;
    assert_eq!((state.options["x"].as_str(), state.shards.len(), state.nodes.len()), ("4", 4, 4));
    Ok(())
}

fn simulate(seed: u64) {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(120))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .build();
    let logs: BTreeMap<&str, SimulatedLog> =
        MEMBERS.into_iter().map(|name| (name, SimulatedLog::new())).collect();
    let dirs: BTreeMap<&str, TempDir> =
        MEMBERS.into_iter().map(|name| (name, tempfile::tempdir().expect("a directory"))).collect();
    for (offset, name) in (1..).zip(MEMBERS) {
        let (log, dir) = (logs[name].clone(), dirs[name].path().to_owned());
        sim.host(name, move || {
            let (log, dir) = (log.clone(), dir.clone());
            async move { serve(name, seed * 10 + offset, &dir, log).await }
        });
    }
    let power_loss = PowerLoss::default();
    sim.client("front", scenario(tempfile::tempdir().expect("a directory"), power_loss.clone()));
    let random = Random::from_seed(seed);
    while !sim.step().expect("the scenario holds") {
        if !std::mem::take(&mut *power_loss.lock()) {
            continue;
        }
        for (name, log) in &logs {
            sim.crash(*name);
            log.crash(&random);
        }
        for name in MEMBERS {
            sim.bounce(name);
        }
    }
}

#[test]
fn a_simulated_group_survives_a_partition_of_its_leader_and_a_power_loss_of_all() {
    for seed in 1..=3 {
        simulate(seed);
    }
}
