//! Three storage nodes with the meta role and a front, in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oteld::config::{Config, ListenConfig, MetaConfig, NodeConfig, Role, StorageConfig};
use oteld::server::Node;
use oteld_client::admin::{
    CLUSTER_STATUS_PATH, ClusterStatus, NODES_PATH, NodeStatus, SHARDS_PATH, ShardStatus, Verdict,
};
use oteld_cluster::command::{Applied, Command, Rejected};
use oteld_cluster::ids::{NodeId, ReplicaId};
use oteld_env::Env;
use oteld_proto::meta::ProposeRequest;
use oteld_proto::meta::meta_client::MetaClient;
use oteld_proto::meta::propose_reply::Outcome;
use oteld_store::model::{Shard, Tenant};
use oteld_store::scan::{Order, Scan, ScanBudget, ScanScope};
use oteld_store::{Store, StoreOptions};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::ports::free_ports;

const SHARDS: u32 = 4;
const ROWS_PER_REQUEST: u64 = 10;
/// Event time of the first row: 2026-01-01T00:00:00Z.
const T0: u64 = 1_767_225_600_000_000_000;
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    ports: [u16; 4],
    storage: Vec<Option<Node>>,
    front: Option<Node>,
    client: reqwest::Client,
    replicas: u32,
    requests: u64,
    /// What each storage node keeps free on its disk from its next start on.
    pub(crate) min_free_bytes: [u64; 3],
    /// Rows that were acknowledged.
    pub(crate) written: u64,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        Cluster::with_replicas(3).await
    }

    /// With so many replicas of each shard on the three nodes.
    pub(crate) async fn with_replicas(replicas: u32) -> Cluster {
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            ports: free_ports(),
            storage: vec![None, None, None],
            front: None,
            client: reqwest::Client::new(),
            replicas,
            requests: 0,
            min_free_bytes: [0; 3],
            written: 0,
        };
        for index in 0..3 {
            cluster.start_storage_unready(index).await;
        }
        let front = Node::start(Env::real(), cluster.config(3)).await.unwrap();
        for node in cluster.storage.iter().flatten().chain([&front]) {
            timeout(PATIENCE, node.ready()).await.unwrap();
        }
        cluster.front = Some(front);
        cluster
    }

    fn config(&self, index: usize) -> Config {
        let address = |index: usize| format!("127.0.0.1:{}", self.ports[index]);
        let is_front = index == 3;
        let name = if is_front { "front-1".to_owned() } else { format!("node-{}", index + 1) };
        let any = || "127.0.0.1:0".to_owned();
        Config {
            node: NodeConfig {
                data_dir: self.dir.path().join(&name),
                name,
                roles: if is_front { vec![Role::Front] } else { vec![Role::Storage, Role::Meta] },
                zone: String::new(),
            },
            listen: ListenConfig {
                otlp_grpc: String::new(),
                otlp_http: if is_front { any() } else { String::new() },
                query: any(),
                node: address(index),
            },
            meta: MetaConfig {
                members: (0..3).map(|index| format!("node-{}={}", index + 1, address(index))).collect(),
                expected_storage_nodes: 3,
                replication_factor: self.replicas,
                shards: SHARDS,
            },
            storage: StorageConfig {
                memtable_bytes_max: 64 << 10,
                min_free_bytes: self.min_free_bytes.get(index).copied().unwrap_or_default(),
                wal_keep_bytes: 0,
            },
            ..Config::default()
        }
    }

    /// Stops a storage node; gives where its store is.
    pub(crate) async fn stop_storage(&mut self, index: usize) -> PathBuf {
        self.storage[index].take().unwrap().stop().await;
        self.config(index).node.data_dir.join("store")
    }

    pub(crate) async fn start_storage(&mut self, index: usize) {
        self.start_storage_unready(index).await;
        timeout(PATIENCE, self.storage[index].as_ref().unwrap().ready()).await.unwrap();
    }

    pub(crate) async fn start_storage_unready(&mut self, index: usize) {
        let node = Node::start(Env::real(), self.config(index)).await.unwrap();
        self.storage[index] = Some(node);
    }

    pub(crate) async fn stop_front(&mut self) {
        self.front.take().unwrap().stop().await;
    }

    pub(crate) async fn stop(mut self) {
        self.stop_front().await;
        for node in self.storage.iter_mut().filter_map(Option::take) {
            node.stop().await;
        }
    }

    /// Sends requests of log records until each is acknowledged; the same request again where it was not.
    pub(crate) async fn write(&mut self, requests: u64) {
        let address = self.front.as_ref().unwrap().addresses().otlp_http.unwrap();
        for _ in 0..requests {
            let record = |row: u64| {
                let time = T0 + (self.requests * ROWS_PER_REQUEST + row) * 1_000_000;
                let body = format!("request {} row {row} {}", self.requests, "x".repeat(400));
                json!({ "timeUnixNano": time.to_string(), "body": { "stringValue": body } })
            };
            let records: Vec<_> = (0..ROWS_PER_REQUEST).map(record).collect();
            let host = format!("host-{}", self.requests % 7);
            let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
            let request = json!({ "resourceLogs": [{
                "resource": { "attributes": [attribute("service.name", "shop"), attribute("host.name", &host)] },
                "scopeLogs": [{ "logRecords": records }],
            }] });
            let deadline = Instant::now() + PATIENCE;
            loop {
                let sent = self.client.post(format!("http://{address}/v1/logs")).json(&request).send().await;
                let said = match sent {
                    Ok(answer) if answer.status().is_success() => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                assert!(Instant::now() < deadline, "a request was not acknowledged: {said}");
                sleep(Duration::from_millis(50)).await;
            }
            self.requests += 1;
            self.written += ROWS_PER_REQUEST;
        }
    }

    /// Rows that a complete query counts.
    pub(crate) async fn counted(&self) -> Option<u64> {
        let address = self.front.as_ref().unwrap().addresses().query.unwrap();
        let time = (T0 / 1_000_000_000 + 3600).to_string();
        let query = [("query", r#"sum(count_over_time({service_name="shop"}[2h]))"#), ("time", &time)];
        let answer =
            self.client.get(format!("http://{address}/loki/api/v1/query")).query(&query).send().await;
        let answer: serde_json::Value = answer.ok()?.json().await.ok()?;
        if answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()) {
            return None;
        }
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Every shard, as the admin API shows it.
    pub(crate) async fn shards(&self) -> Vec<ShardStatus> {
        self.ask(self.front.as_ref().unwrap(), SHARDS_PATH).await
    }

    /// Whether the admin API calls the cluster healthy.
    pub(crate) async fn is_healthy(&self) -> bool {
        self.status().await.verdict == Verdict::Healthy
    }

    /// The store that each storage node has now, by name.
    pub(crate) async fn stores(&self) -> BTreeMap<String, (NodeId, ReplicaId)> {
        let nodes: Vec<NodeStatus> = self.ask(self.front.as_ref().unwrap(), NODES_PATH).await;
        let store = |node: NodeStatus| {
            let replica = u128::from_str_radix(&node.replica?, 16).unwrap();
            Some((node.name, (NodeId(node.id), ReplicaId(replica))))
        };
        nodes.into_iter().filter_map(store).collect()
    }

    /// Commits a command, through whichever storage node leads the meta group.
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, Rejected> {
        let packed = rmp_serde::to_vec_named(&command).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            for port in &self.ports[..3] {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
                let Ok(channel) = endpoint.unwrap().connect().await else { continue };
                let mut client = MetaClient::new(channel);
                let request = ProposeRequest { packed: packed.clone().into(), ..ProposeRequest::default() };
                let Ok(reply) = client.propose(request).await else { continue };
                match reply.into_inner().outcome {
                    Some(Outcome::Applied(bytes)) => return Ok(rmp_serde::from_slice(&bytes).unwrap()),
                    Some(Outcome::Rejected(bytes)) => return Err(rmp_serde::from_slice(&bytes).unwrap()),
                    _ => {}
                }
            }
            assert!(Instant::now() < deadline, "nobody takes a command");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, node: &Node, path: &str) -> T {
        let address = node.addresses().query.unwrap();
        self.client.get(format!("http://{address}{path}")).send().await.unwrap().json().await.unwrap()
    }

    /// What the front says of the cluster.
    pub(crate) async fn status(&self) -> ClusterStatus {
        self.ask(self.front.as_ref().unwrap(), CLUSTER_STATUS_PATH).await
    }

    /// What a storage node says of the cluster.
    pub(crate) async fn status_at(&self, index: usize) -> ClusterStatus {
        self.ask(self.storage[index].as_ref().unwrap(), CLUSTER_STATUS_PATH).await
    }

    /// The node that a front asks first for the first shard.
    pub(crate) async fn first_asked(&self) -> usize {
        let shards: Vec<ShardStatus> = self.ask(self.front.as_ref().unwrap(), SHARDS_PATH).await;
        let name = &shards[0].replicas[0].node;
        (0..3).find(|index| self.config(*index).node.name == *name).unwrap()
    }

    /// What `/readyz` of a storage node says.
    pub(crate) async fn readiness(&self, index: usize) -> String {
        let address = self.storage[index].as_ref().unwrap().addresses().query.unwrap();
        let answer = self.client.get(format!("http://{address}/readyz")).send().await;
        match answer {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// The sum of what a storage node measures under a name.
    pub(crate) fn reading(&self, index: usize, name: &str) -> u64 {
        let readings = self.storage[index].as_ref().unwrap().readings().read();
        readings.iter().filter(|reading| reading.name == name).map(|reading| reading.value as u64).sum()
    }
}

/// Rows of a store that nobody has open, each counted once.
pub(crate) async fn stored_rows(dir: &Path) -> u64 {
    stored_rows_of(dir, 0..SHARDS).await
}

/// Rows of some shards of a store that nobody has open, each counted once.
pub(crate) async fn stored_rows_of(dir: &Path, shards: std::ops::Range<u32>) -> u64 {
    let options =
        StoreOptions { dir: dir.to_owned(), background: false, min_free_bytes: 0, ..StoreOptions::default() };
    let store = Store::open(Env::real(), options).await.unwrap();
    let scope = ScanScope {
        tenant: Tenant::default(),
        shards: Arc::new(shards.map(Shard).collect::<BTreeSet<_>>()),
        time_unix_nano: 0..u64::MAX,
    };
    let mut rows = 0;
    let mut count = |_| {
        rows += 1;
        ControlFlow::Continue(())
    };
    store
        .pin()
        .logs(&scope, &ScanBudget::unlimited(), Order::OldestFirst, &mut |_| true, &mut count)
        .unwrap();
    store.close().await;
    rows
}

/// Overwrites four bytes in the first page of the largest segment of a store that nobody has open.
pub(crate) fn damage_a_page(store: &Path) {
    let segments = std::fs::read_dir(store.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let largest = segments.max_by_key(size).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[100..104].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(largest, bytes).unwrap();
}

/// Copies a directory and those in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits until `is_so`; panics with `what` when it takes too long.
pub(crate) async fn wait_until(what: &str, is_so: impl AsyncFn() -> bool) {
    wait(what, Duration::from_millis(100), is_so).await;
}

/// The same, looking so often that what is so for a moment is seen.
pub(crate) async fn wait_until_at_once(what: &str, is_so: impl AsyncFn() -> bool) {
    wait(what, Duration::from_millis(1), is_so).await;
}

async fn wait(what: &str, pause: Duration, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(pause).await;
    }
}
