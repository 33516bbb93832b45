//! Three nodes in this process, on real sockets and disks, of which the leader stops and comes back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jepsen_lite::clients::meta::session;
use jepsen_lite::history::event::{Event, MetaOutcome};
use jepsen_lite::timeline::Timeline;
use oteld::config::{Config, ListenConfig, MetaConfig, NodeConfig, Role};
use oteld::server::Node;
use oteld_cluster::handle::client::{Answer, MetaClient};
use oteld_env::Env;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::{NODES, SESSIONS, check, count, is_applied, name_of};

/// Compare-and-sets that are applied in each part of the test.
const APPLIED_PER_PART: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    dir: tempfile::TempDir,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
}

impl World {
    fn new() -> World {
        let bind = |_| std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let listeners: Vec<_> = (0..NODES).map(bind).collect();
        let address = |listener: &std::net::TcpListener| listener.local_addr().expect("is bound").to_string();
        let addresses = listeners.iter().map(address).collect();
        let dir = tempfile::tempdir().expect("a directory");
        World { dir, addresses, nodes: vec![None, None, None] }
    }

    async fn start(&mut self, index: usize) {
        let member = |(index, address)| format!("{}={address}", name_of(index));
        let config = Config {
            node: NodeConfig {
                data_dir: self.dir.path().join(name_of(index)),
                name: name_of(index),
                roles: vec![Role::Storage, Role::Meta],
                zone: String::new(),
            },
            listen: ListenConfig {
                otlp_grpc: String::new(),
                otlp_http: String::new(),
                query: "127.0.0.1:0".to_owned(),
                node: self.addresses[index].clone(),
            },
            meta: MetaConfig {
                members: self.addresses.iter().enumerate().map(member).collect(),
                expected_storage_nodes: NODES as u32,
                replication_factor: NODES as u32,
                shards: 4,
            },
            ..Config::default()
        };
        let node = Node::start(Env::real(), config).await;
        self.nodes[index] = Some(node.unwrap_or_else(|error| panic!("node {index} starts: {error}")));
    }

    async fn stop(&mut self, index: usize) {
        self.nodes[index].take().expect("it runs").stop().await;
    }

    /// The member that answers reads.
    async fn leader(&self) -> usize {
        let client = MetaClient::new(Env::real().net);
        loop {
            for (index, address) in self.addresses.iter().enumerate() {
                let asked = tokio::time::timeout(Duration::from_secs(2), client.read(address)).await;
                if let Ok(Answer::Done(_)) = asked {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where all sessions record.
#[derive(Clone)]
struct Sink {
    history: Rc<RefCell<Vec<Event>>>,
    applied: watch::Sender<usize>,
}

impl Sink {
    fn record(&self, event: Event) {
        if let Event::Meta(operation) = &event
            && is_applied(&operation.outcome)
        {
            self.applied.send_modify(|applied| *applied += 1);
        }
        self.history.borrow_mut().push(event);
    }

    async fn wait_for_more(&self) {
        let mut applied = self.applied.subscribe();
        let enough = *applied.borrow() + APPLIED_PER_PART;
        let waited = tokio::time::timeout(PATIENCE, applied.wait_for(|applied| *applied >= enough)).await;
        waited.expect("commands are applied in time").expect("the sink is there");
    }
}

#[test]
fn the_history_of_a_group_is_linear_across_a_change_of_the_leader() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sink = Sink { history: Rc::default(), applied: watch::Sender::new(0) };
    runtime.block_on(LocalSet::new().run_until(async {
        let mut world = World::new();
        for index in 0..NODES {
            world.start(index).await;
        }
        let (timeline, stop) = (Timeline::begin(), Rc::new(RefCell::new(false)));
        let start = |number| {
            let (sink, stop) = (sink.clone(), stop.clone());
            let record = move |event| sink.record(event);
            let stop = move || *stop.borrow();
            let members = world.addresses.clone();
            tokio::task::spawn_local(session(number, Env::real(), timeline, members, record, stop))
        };
        let sessions: Vec<_> = (0..SESSIONS).map(start).collect();
        sink.wait_for_more().await;
        let lost = world.leader().await;
        world.stop(lost).await;
        sink.wait_for_more().await;
        assert_ne!(world.leader().await, lost);
        world.start(lost).await;
        sink.wait_for_more().await;
        *stop.borrow_mut() = true;
        for session in sessions {
            session.await.expect("a session ends");
        }
        for index in 0..NODES {
            world.stop(index).await;
        }
    }));
    let history = sink.history.borrow();
    let result = check(&history);
    assert_eq!((result.findings, result.undecided), (Vec::new(), Vec::new()));
    assert!(count(&history, |outcome| matches!(outcome, MetaOutcome::Value { value: Some(_), .. })) > 10);
    assert!(count(&history, |outcome| matches!(outcome, MetaOutcome::Differs { .. })) > 10);
    assert!(result.operations as usize >= 3 * APPLIED_PER_PART);
}
