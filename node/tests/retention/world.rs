//! Three storage nodes with the meta role and a front in this process, each with a clock of its own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use oteld::config::{Config, ListenConfig, MetaConfig, NodeConfig, RetentionConfig, Role};
use oteld::server::Node;
use oteld_env::{Clock, Env};
use oteld_store::model::{Shard, Tenant};
use oteld_store::scan::{Order, Scan, ScanBudget, ScanScope};
use oteld_store::{Store, StoreOptions};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const HOUR_NANOS: u64 = 3600 * 1_000_000_000;
const SHARDS: u32 = 4;
const STORAGE_NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    retention: String,
    /// Of the storage nodes; a restart sets them right.
    pub(crate) clocks: Vec<Clock>,
    storage: Vec<Node>,
    front: Option<Node>,
    client: reqwest::Client,
}

/// What the clock of this machine shows.
pub(crate) fn now() -> u64 {
    Clock::real().now_unix_nanos()
}

impl Cluster {
    pub(crate) async fn start(retention: &str) -> Cluster {
        let listeners: Vec<_> =
            (0..=STORAGE_NODES).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            ports: listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect(),
            retention: retention.to_owned(),
            clocks: Vec::new(),
            storage: Vec::new(),
            front: None,
            client: reqwest::Client::new(),
        };
        drop(listeners);
        cluster.start_all().await;
        cluster
    }

    async fn start_all(&mut self) {
        self.clocks.clear();
        for index in 0..STORAGE_NODES {
            let env = Env::real();
            self.clocks.push(env.clock.clone());
            self.storage.push(Node::start(env, self.config(index)).await.unwrap());
        }
        self.front = Some(Node::start(Env::real(), self.config(STORAGE_NODES)).await.unwrap());
        for node in self.storage.iter().chain(&self.front) {
            timeout(PATIENCE, node.ready()).await.unwrap();
        }
    }

    async fn stop(&mut self) {
        for node in self.front.take().into_iter().chain(self.storage.drain(..)) {
            node.stop().await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_all().await;
    }

    fn config(&self, index: usize) -> Config {
        let address = |index: usize| format!("127.0.0.1:{}", self.ports[index]);
        let is_front = index == STORAGE_NODES;
        let name = if is_front { "front-1".to_owned() } else { format!("node-{}", index + 1) };
        let any = || if is_front { "127.0.0.1:0".to_owned() } else { String::new() };
        Config {
            node: NodeConfig {
                data_dir: self.dir.path().join(&name),
                name,
                roles: if is_front { vec![Role::Front] } else { vec![Role::Storage, Role::Meta] },
                zone: String::new(),
            },
            listen: ListenConfig {
                otlp_grpc: String::new(),
                otlp_http: any(),
                query: any(),
                node: address(index),
            },
            meta: MetaConfig {
                members: (0..STORAGE_NODES)
                    .map(|index| format!("node-{}={}", index + 1, address(index)))
                    .collect(),
                expected_storage_nodes: STORAGE_NODES as u32,
                replication_factor: 3,
                shards: SHARDS,
            },
            retention: RetentionConfig::all(&self.retention),
            ..Config::default()
        }
    }

    /// Writes a log record; gives what the answer says of what was not kept.
    pub(crate) async fn write(&self, time_unix_nano: u64, text: &str) -> Option<String> {
        let address = self.front.as_ref().unwrap().addresses().otlp_http.unwrap();
        let attribute = json!({ "key": "service.name", "value": { "stringValue": "shop" } });
        let record = json!({ "timeUnixNano": time_unix_nano.to_string(), "body": { "stringValue": text } });
        let request = json!({ "resourceLogs": [{
            "resource": { "attributes": [attribute] },
            "scopeLogs": [{ "logRecords": [record] }],
        }] });
        let answer = self.client.post(format!("http://{address}/v1/logs")).json(&request).send().await;
        let answer: serde_json::Value = answer.unwrap().error_for_status().unwrap().json().await.unwrap();
        answer["partialSuccess"]["errorMessage"].as_str().map(str::to_owned)
    }

    /// The lines that a query over all time shows, once it is complete.
    pub(crate) async fn lines(&self) -> BTreeSet<String> {
        let address = self.front.as_ref().unwrap().addresses().query.unwrap();
        let (start, end) = (now() - 20 * HOUR_NANOS, now() + 20 * HOUR_NANOS);
        let query = [
            ("query", r#"{service_name="shop"}"#.to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
        ];
        until("a complete answer", async || {
            let url = format!("http://{address}/loki/api/v1/query_range");
            let answer = self.client.get(url).query(&query).send().await.ok()?;
            let answer: serde_json::Value = answer.error_for_status().ok()?.json().await.ok()?;
            if answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()) {
                return None;
            }
            let streams = answer["data"]["result"].as_array()?;
            let values = streams.iter().flat_map(|stream| stream["values"].as_array().unwrap());
            Some(values.map(|value| value[1].as_str().unwrap().to_owned()).collect())
        })
        .await
    }

    /// The floor of logs on each storage node, in nanoseconds of event time.
    pub(crate) fn floors(&self) -> Vec<u64> {
        let floor = |node: &Node| {
            let readings = node.readings().read();
            let reading = readings.into_iter().find(|reading| {
                reading.name == "oteld.store.retention_floor"
                    && reading.labels.contains(&("signal", "logs".to_owned()))
            });
            reading.unwrap().value as u64 * 1_000_000_000
        };
        self.storage.iter().map(floor).collect()
    }

    /// Waits until every storage node has a floor that high.
    pub(crate) async fn floors_reach(&self, unix_nano: u64) {
        until("the floors are raised", async || {
            self.floors().iter().all(|floor| *floor >= unix_nano).then_some(())
        })
        .await;
    }

    /// Ends the cluster; gives the bodies that each store holds, as they print.
    pub(crate) async fn stop_and_read(mut self) -> Vec<Vec<String>> {
        self.stop().await;
        let mut read = Vec::new();
        for index in 0..STORAGE_NODES {
            read.push(stored_lines(&self.config(index)).await);
        }
        read
    }
}

async fn stored_lines(config: &Config) -> Vec<String> {
    let dir = config.node.data_dir.join("store");
    let options = StoreOptions { dir, background: false, ..StoreOptions::default() };
    let store = Store::open(Env::real(), options).await.unwrap();
    let scope = ScanScope {
        tenant: Tenant::default(),
        shards: Arc::new((0..SHARDS).map(Shard).collect::<BTreeSet<_>>()),
        time_unix_nano: 0..u64::MAX,
    };
    let mut lines = Vec::new();
    let mut take = |row: oteld_store::model::LogRow| {
        lines.push(format!("{:?}", row.record.body));
        ControlFlow::Continue(())
    };
    let pin = store.pin();
    pin.logs(&scope, &ScanBudget::unlimited(), Order::OldestFirst, &mut |_| true, &mut take).unwrap();
    store.close().await;
    lines
}

/// Asks again and again until there is an answer; panics with `what` when that takes too long.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
