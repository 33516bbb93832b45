//! Whole groups over loopback sockets, each node in a runtime of its own: dropping the runtime ends the node
//! between two steps, as a crash does.

#![allow(clippy::disallowed_methods, reason = "tests make their own sockets and directories")]

use std::collections::BTreeSet;
use std::future::Future;
use std::net::TcpListener;
use std::time::Duration;

use oteld_proto::meta::ProbeRequest;
use oteld_proto::meta::meta_server::Meta;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::client::{Answer, MetaClient};
use super::*;
use crate::ids::{ClusterId, MetaId, ReplicaId};
use crate::state::{NodeState, Roles, Settings};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node's place in the world, which outlives its processes.
struct Place {
    name: String,
    address: String,
    roles: Roles,
    dir: TempDir,
}

struct Process {
    runtime: Option<Runtime>,
    handle: MetaHandle,
    name: String,
}

fn place(name: &str, meta: bool) -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address").to_string();
    let roles = Roles { front: !meta, storage: meta, meta };
    Place { name: name.to_owned(), address, roles, dir: tempfile::tempdir().expect("a directory") }
}

fn places() -> Vec<Place> {
    ["a", "b", "c"].map(|name| place(name, true)).into()
}

fn options(places: &[Place]) -> MetaOptions {
    let founder = |place: &Place| Founder { name: place.name.clone(), address: place.address.clone() };
    let members = places.iter().filter(|place| place.roles.meta).map(founder).collect();
    let settings = Settings {
        replication_factor: 3,
        shards: 8,
        expected_storage_nodes: 3,
        split_version: 1,
        ..Settings::default()
    };
    let mut options = MetaOptions::new(members, settings);
    options.timing = Timing {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(400),
        propose: Duration::from_secs(3),
    };
    options.snapshot_entries = 20;
    options.kept_entries = 5;
    options
}

impl Process {
    fn start(place: &Place, options: &MetaOptions) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let my = MyNode {
            name: place.name.clone(),
            address: place.address.clone(),
            roles: place.roles,
            zone: None,
            replica: place.roles.storage.then(|| ReplicaId(place.name.as_bytes()[0].into())),
        };
        let handle = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(&place.address).await.expect("binds");
            let env = Env::real();
            let opened = MetaHandle::open(env, place.dir.path(), my, options.clone()).await;
            let handle = opened.expect("opens");
            let server = Server::builder().add_service(handle.service());
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            handle
        });
        Process { runtime: Some(runtime), handle, name: place.name.clone() }
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        let runtime = self.runtime.as_ref().expect("runs until it is killed");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("is done in time") })
    }

    /// Waits until the watched copy satisfies `condition`.
    fn wait(&self, condition: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut states = self.handle.watch();
        self.run(async { states.wait_for(|state| condition(state)).await.expect("is open").clone() })
    }

    /// Polls the group's status until `condition` holds.
    fn wait_status(&self, condition: impl Fn(&Status) -> bool) -> Status {
        self.run(async {
            loop {
                if let Some(status) = self.handle.status().await.filter(|status| condition(status)) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn set(&self, name: &str, value: &str) -> Result<Applied, ProposeError> {
        self.run(async {
            loop {
                let Ok(state) = self.handle.read().await else { continue };
                let expect = state.options.get(name).cloned();
                let (name, to) = (name.to_owned(), Some(value.to_owned()));
                match self.handle.propose(Command::SetSetting { name, expect, to }).await {
                    Err(ProposeError::Unknown(_) | ProposeError::NoLeader(_)) => {}
                    answer => return answer,
                }
            }
        })
    }

    fn leader(&self) -> String {
        let status = self.wait_status(|status| status.leader.is_some());
        let leader = status.members.iter().find(|member| Some(member.id) == status.leader);
        leader.expect("is a member").name.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn setting<'a>(state: &'a ClusterState, name: &str) -> Option<&'a str> {
    state.options.get(name).map(String::as_str)
}

fn start_all(places: &[Place]) -> Vec<Process> {
    let options = options(places);
    let processes: Vec<Process> = places.iter().map(|place| Process::start(place, &options)).collect();
    for process in &processes {
        process.wait(|state| !state.shards.is_empty());
    }
    processes
}

fn take_leader(processes: &mut Vec<Process>) -> Process {
    let leader = processes[0].leader();
    let at = processes.iter().position(|process| process.name == leader).expect("runs here");
    processes.remove(at)
}

#[test]
fn a_first_start_forms_one_group_places_the_shards_and_is_watched_everywhere() {
    let mut places = places();
    places.push(place("front", false));
    let processes = start_all(&places);
    let clusters: BTreeSet<Option<ClusterId>> =
        processes.iter().map(|process| process.handle.state().cluster).collect();
    assert_eq!(clusters.len(), 1);
    let ids: BTreeSet<NodeId> =
        processes.iter().map(|process| process.run(process.handle.node_id())).collect();
    assert_eq!(ids.len(), 4);
    let state = processes[3].wait(|state| state.nodes.len() == 4);
    assert!(state.shards.len() == 8 && state.shards.iter().all(|shard| shard.entry.old.len() == 3));
    assert_eq!(processes[3].set("x", "1").expect("is applied"), Applied::Done);
    for process in &processes {
        process.wait(|state| setting(state, "x") == Some("1"));
    }
    let status = processes[3].wait_status(|status| status.heartbeats.len() == 4);
    assert_eq!(status.members.len(), 3);
    let role = |role: &str| status.members.iter().filter(|member| member.role == role).count();
    assert_eq!((role("leader"), role("follower")), (1, 2));
}

#[test]
fn the_group_goes_on_without_its_leader_and_takes_it_back() {
    let places = places();
    let mut rest = start_all(&places);
    let cluster = rest[0].handle.state().cluster;
    assert_eq!(rest[0].set("x", "1").expect("is applied"), Applied::Done);
    let leader = take_leader(&mut rest);
    let lost = leader.name.clone();
    drop(leader);
    assert_eq!(rest[0].set("x", "2").expect("is applied"), Applied::Done);
    let state = rest[1].run(rest[1].handle.read()).expect("reads after the change of leader");
    assert_eq!(setting(&state, "x"), Some("2"), "a read is not older than an answered command");
    let place = places.iter().find(|place| place.name == lost).expect("has a place");
    let back = Process::start(place, &options(&places));
    back.wait(|state| setting(state, "x") == Some("2"));
    drop((rest, back));

    let again = start_all(&places);
    let state = again[0].run(again[0].handle.read()).expect("reads after a restart of all");
    assert_eq!((state.cluster, setting(&state, "x")), (cluster, Some("2")));
}

/// It goes on in its term, without an entry of its own to commit.
#[test]
fn a_leader_that_restarts_reads_nothing_older_than_it_acknowledged() {
    let places = places();
    let mut rest = start_all(&places);
    for round in 0..5 {
        let leader = take_leader(&mut rest);
        let value = round.to_string();
        assert_eq!(leader.set("x", &value).expect("is applied"), Applied::Done);
        let name = leader.name.clone();
        drop((leader, rest));
        let (first, others): (Vec<&Place>, Vec<&Place>) = places.iter().partition(|place| place.name == name);
        let ordered = first.into_iter().chain(others);
        rest = ordered.map(|place| Process::start(place, &options(&places))).collect();
        let state = loop {
            if let Ok(state) = rest[0].run(rest[0].handle.read()) {
                break state;
            }
        };
        assert_eq!(setting(&state, "x"), Some(&*value), "round {round}");
    }
}

#[test]
fn members_that_all_moved_at_once_find_each_other() {
    let mut places = places();
    let processes = start_all(&places);
    assert_eq!(processes[0].set("x", "1").expect("is applied"), Applied::Done);
    drop(processes);
    for place in &mut places {
        place.address = self::place(&place.name, true).address;
    }
    let processes = start_all(&places);
    assert_eq!(processes[0].set("x", "2").expect("is applied"), Applied::Done);
    for process in &processes {
        process.wait(|state| {
            setting(state, "x") == Some("2")
                && places.iter().all(|place| state.nodes.values().any(|node| node.address == place.address))
        });
    }
    let recorded = processes[0].wait_status(|status| {
        let at = |place: &Place| status.members.iter().any(|member| member.address == place.address);
        status.members.len() == 3 && places.iter().all(at)
    });
    assert!(recorded.leader.is_some());
}

#[test]
fn a_member_that_lags_behind_the_log_catches_up_by_a_snapshot() {
    let places = places();
    let mut rest = start_all(&places);
    let leader = take_leader(&mut rest);
    let lagging = rest.remove(0).name.clone();
    for value in 0..60 {
        assert_eq!(leader.set("x", &value.to_string()).expect("is applied"), Applied::Done);
    }
    let purged = leader.wait_status(|status| status.purged_index > 30).purged_index;
    let place = places.iter().find(|place| place.name == lagging).expect("has a place");
    let back = Process::start(place, &options(&places));
    back.wait(|state| setting(state, "x") == Some("59"));
    let own: Status = status::message(&back.handle.inner).into();
    assert!(own.snapshot_index >= purged, "{own:?} holds a snapshot of entries beyond {purged}");
}

#[test]
fn a_member_that_lost_its_disk_comes_back_under_a_new_id() {
    let mut places = places();
    let mut rest = start_all(&places);
    let leader = take_leader(&mut rest);
    let lost = rest.remove(0).name.clone();
    let before = leader.wait_status(|status| status.members.len() == 3);
    let old = before.members.iter().find(|member| member.name == lost).expect("was a member").id;
    let at = places.iter().position(|place| place.name == lost).expect("has a place");
    places[at].dir = tempfile::tempdir().expect("an empty directory");
    let _back = Process::start(&places[at], &options(&places));
    let voter = |status: &Status| {
        status.members.len() == 3
            && status
                .members
                .iter()
                .any(|member| member.name == lost && member.role == "follower" && member.id != old)
    };
    let after = leader.wait_status(voter);
    let new = after.members.iter().find(|member| member.name == lost).expect("is a member").id;
    assert!(new > MetaId(3), "id {new} was given before");
}

#[test]
fn a_newcomer_becomes_a_voter_and_leaves_the_group_with_its_node() {
    let mut places = places();
    let processes = start_all(&places);
    places.push(place("d", true));
    places[3].roles.storage = false;
    let newcomer = Process::start(&places[3], &options(&places[..3]));
    let id = newcomer.run(newcomer.handle.node_id());
    let voter =
        |status: &Status| status.members.iter().any(|member| member.name == "d" && member.role == "follower");
    processes[0].wait_status(voter);
    let (expect, to) = (NodeState::Active, NodeState::Removed);
    let remove = Command::SetNodeState { node: id, expect, to };
    assert_eq!(processes[0].run(processes[0].handle.propose(remove)).expect("is applied"), Applied::Done);
    processes[0].wait_status(|status| status.members.iter().all(|member| member.name != "d"));
    drop(newcomer);
    let back = Process::start(&places[3], &options(&places[..3]));
    assert!(back.run(back.handle.node_id()) > id, "a removed id is not used again");
    processes[0].wait_status(voter);
}

#[test]
fn a_node_starts_from_its_saved_copy_while_the_group_is_away() {
    let mut places = places();
    places.push(place("front", false));
    let mut processes = start_all(&places);
    let front = processes.pop().expect("runs");
    let known = front.wait(|state| state.nodes.len() == 4);
    let saved = || {
        let env = Env::real();
        follow::load(&env, places[3].dir.path()).is_some_and(|state| state.changed_at >= known.changed_at)
    };
    front.run(async {
        while !saved() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    drop((processes, front));
    let mut options = options(&places);
    options.timing.propose = Duration::from_millis(300);
    let front = Process::start(&places[3], &options);
    assert_eq!(front.handle.state().shards, known.shards);
    assert!(front.run(front.handle.read()).is_err(), "a linearizable read needs the group");
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let (here, there) = (vec![place("a", true)], vec![place("a", true), place("x", false)]);
    let single = |places: &[Place]| {
        let mut options = options(places);
        options.settings.expected_storage_nodes = 1;
        options
    };
    let first = Process::start(&here[0], &single(&here));
    first.wait(|state| !state.shards.is_empty());
    let second = Process::start(&there[0], &single(&there));
    let stranger = Process::start(&there[1], &single(&there));
    stranger.wait(|state| !state.shards.is_empty());
    drop((second, stranger));
    let stranger = Process::start(&there[1], &single(&here));
    let command = Command::SetSetting { name: "x".into(), expect: None, to: Some("1".into()) };
    let answer = stranger.run(stranger.handle.propose(command));
    assert!(
        matches!(&answer, Err(ProposeError::Unknown(why)) if why.contains("another cluster")),
        "{answer:?}"
    );
    assert!(stranger.run(stranger.handle.read()).is_err());
    assert_eq!(first.run(first.handle.read()).expect("reads").nodes.len(), 1);
}

#[test]
fn a_minority_answers_neither_reads_nor_commands() {
    let places = places();
    let mut processes = start_all(&places);
    let leader = take_leader(&mut processes);
    drop(processes);
    let command = Command::SetSetting { name: "x".into(), expect: None, to: Some("1".into()) };
    let answer = leader.run(leader.handle.propose(command));
    assert!(matches!(answer, Err(ProposeError::Unknown(_) | ProposeError::NoLeader(_))), "{answer:?}");
    assert!(leader.run(leader.handle.read()).is_err());
    assert!(!leader.handle.state().shards.is_empty(), "the watched copy stays");
}

/// Asks every member in turn until one answers.
async fn until_done<T>(places: &[Place], ask: impl AsyncFn(&str) -> Answer<T>) -> T {
    loop {
        for place in places {
            if let Answer::Done(done) = ask(&place.address).await {
                return done;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn log_indexes_grow_with_every_command_and_reads_are_not_below_them() {
    let places = places();
    let mut processes = start_all(&places);
    let mut last = 0;
    for round in 0..2 {
        let value = |n: u32| Some(format!("{round}-{n}"));
        processes[0].run(async {
            let client = MetaClient::new(Env::real().net);
            for n in 0..5 {
                let expect = if n == 0 { (round > 0).then(|| "0-4".to_owned()) } else { value(n - 1) };
                let set = Command::SetSetting { name: "x".into(), expect, to: value(n) };
                let proposed = until_done(&places, async |at| client.propose(at, &set).await).await;
                assert_eq!(proposed.answer, Ok(Applied::Done));
                assert!(proposed.log_index > last, "{} after {last}", proposed.log_index);
                last = proposed.log_index;
                let stale = Command::SetSetting { name: "x".into(), expect: None, to: Some("y".into()) };
                let refused = until_done(&places, async |at| client.propose(at, &stale).await).await;
                let (what, actual) = ("x".to_owned(), value(n));
                assert_eq!(refused.answer, Err(Rejected::Differs { what, actual: actual.clone() }));
                assert!(refused.log_index > last, "refused at {} after {last}", refused.log_index);
                last = refused.log_index;
                let read = until_done(&places, async |at| client.read(at).await).await;
                assert_eq!(read.state.options.get("x"), actual.as_ref());
                assert!(read.log_index >= last, "read at {} after {last}", read.log_index);
            }
        });
        if round == 0 {
            drop(take_leader(&mut processes));
        }
    }
}

#[test]
fn a_request_to_nobody_was_not_sent_and_one_to_a_follower_names_the_leader() {
    let places = places();
    let processes = start_all(&places);
    let leader = processes[0].leader();
    let address = |leads: bool| {
        let place = places.iter().find(|place| (place.name == leader) == leads);
        place.expect("there are both").address.as_str()
    };
    let nobody = place("nobody", true).address;
    let set = Command::SetSetting { name: "x".into(), expect: None, to: Some("1".into()) };
    processes[0].run(async {
        let client = MetaClient::new(Env::real().net);
        let sent = client.propose(&nobody, &set).await;
        assert!(matches!(sent, Answer::NotSent(_)), "{sent:?}");
        let hint = Answer::NotLeader(address(true).to_owned());
        assert_eq!(client.propose(address(false), &set).await, hint);
        assert!(matches!(client.read(address(false)).await, Answer::NotLeader(_)));
    });
}

#[test]
fn a_member_that_was_given_an_id_says_so_before_it_runs() {
    let (fresh, given) = (places(), places());
    Directory::open(&Env::real(), given[1].dir.path(), &MetaLog::Sled)
        .and_then(|directory| {
            Ok(Directory::remember(&Env::real(), given[1].dir.path(), directory.incarnation, MetaId(2))?)
        })
        .expect("remembers");
    for (places, used) in [(fresh, false), (given, true)] {
        let process = Process::start(&places[1], &options(&places));
        let service = MetaService { inner: process.handle.inner.clone() };
        let probe = process.run(service.probe(tonic::Request::new(ProbeRequest {})));
        let probe = probe.expect("answers").into_inner();
        assert!(probe.members.is_empty());
        assert_eq!(probe.used, used);
    }
}

#[test]
fn a_member_whose_log_came_back_older_joins_under_a_new_id() {
    let places = places();
    let mut processes = start_all(&places);
    let lost =
        processes.iter().position(|process| process.name != processes[0].leader()).expect("one follows");
    let follower = processes.remove(lost);
    let place = places.iter().find(|place| place.name == follower.name).expect("has a place");
    let old = follower.handle.inner.member().expect("runs").id;
    drop(follower);
    {
        let runtime = Runtime::new().expect("a runtime");
        let opened = runtime.block_on(open_directory(&Env::real(), place.dir.path(), Some(MetaLog::Sled)));
        let log = opened.expect("opens").1.expect("has a log").log;
        let db = log.get("incarnation").expect("reads").expect("is there");
        drop(log);
        std::fs::remove_dir_all(place.dir.path().join("log")).expect("removes");
        std::fs::create_dir(place.dir.path().join("log")).expect("creates");
        let log =
            crate::raft::SledLog::open(&*Env::real().disk, &place.dir.path().join("log")).expect("opens");
        use crate::raft::LogBackend;
        log.write(vec![crate::raft::Change::Set("incarnation", db)]).expect("writes");
        log.sync().expect("syncs");
    }
    let again = Process::start(place, &options(&places));
    let renamed = |status: &Status| {
        status
            .members
            .iter()
            .any(|member| member.name == place.name && member.id > old && member.role == "follower")
    };
    let status = processes[0].wait_status(renamed);
    assert!(status.members.iter().all(|member| member.id != old) || status.members.len() == 4);
    drop(again);
}

#[test]
fn a_directory_without_its_log_is_set_aside() {
    let (env, dir) = (Env::real(), tempfile::tempdir().expect("a directory"));
    let open = || Directory::open(&env, dir.path(), &MetaLog::Sled);
    let reopen = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let opened = runtime.block_on(open_directory(&env, dir.path(), Some(MetaLog::Sled)));
        opened.expect("opens again").1.expect("is a member's")
    };
    let first = open().expect("opens");
    let (incarnation, id) = (first.incarnation, MetaId(7));
    assert!(matches!(open(), Err(DirectoryError::InUse(_))));
    Directory::remember(&env, dir.path(), incarnation, id).expect("writes");
    first.log.write(vec![crate::raft::Change::Put(0, vec![1])]).expect("writes");
    first.log.sync().expect("syncs");
    drop(first);
    let again = reopen();
    assert_eq!((again.incarnation, again.id), (incarnation, Some(id)));
    drop(again);
    std::fs::remove_dir_all(dir.path().join("log")).expect("removes");
    let lost = reopen();
    assert!(lost.incarnation != incarnation && lost.id.is_none());

    let incarnation = lost.incarnation;
    drop(lost);
    std::fs::write(dir.path().join("snapshot"), b"not what was written").expect("writes");
    let lost = reopen();
    assert!(lost.incarnation != incarnation && lost.id.is_none(), "nor is one without its snapshot");
}
