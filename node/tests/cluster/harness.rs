//! A cluster of processes: three storage nodes with the meta role and two fronts, each with its configuration,
//! ports and directory.

use std::path::PathBuf;
use std::time::Duration;

use oteld_client::admin::{CLUSTER_STATUS_PATH, ClusterStatus, Verdict};
use tempfile::TempDir;

use crate::ports::free_ports;
use crate::process::{Process, until};
use crate::send::Front;

pub(crate) const STORAGE_NODES: usize = 3;
/// How long a front tries to write.
pub(crate) const INGEST_TIMEOUT_MS: u64 = 10_000;
const FRONTS: usize = 2;

pub(crate) struct Cluster {
    pub(crate) storage: Vec<Node>,
    fronts: Vec<Node>,
    http: reqwest::Client,
    // Last, so that the processes are gone when the directory is removed.
    _dir: TempDir,
}

/// A place in the cluster; its process may run or not.
pub(crate) struct Node {
    name: String,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    address: Front,
    process: Option<Process>,
}

impl Node {
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(Process::start(&["run", "--config", self.config.to_str().unwrap()], &self.log));
    }

    /// SIGKILL; its directory stays.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name)).kill();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes all that it has on disk.
    pub(crate) fn wipe(&self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        std::fs::remove_dir_all(&self.data).unwrap();
    }

    /// What it printed since it was started last.
    pub(crate) fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// The file of all that it ever printed.
    pub(crate) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// Waits until it does all that its roles promise.
    pub(crate) async fn ready(&mut self, http: &reqwest::Client) {
        let url = format!("{}/readyz", self.address.query);
        let process = self.process.as_mut().unwrap();
        until(&format!("{} is ready", self.name), async || {
            if let Some(status) = process.ended() {
                panic!("{} ended with {status}:\n{}", self.name, process.output());
            }
            let response = http.get(&url).send().await.map_err(|error| error.to_string())?;
            match response.status().as_u16() {
                200 => Ok(()),
                _ => Err(response.text().await.unwrap_or_default()),
            }
        })
        .await;
    }
}

impl Cluster {
    /// Starts all nodes and waits until all are ready.
    pub(crate) async fn start() -> Cluster {
        let mut cluster = Cluster::prepare();
        cluster.storage.iter_mut().chain(&mut cluster.fronts).for_each(Node::start);
        cluster.all_ready().await;
        cluster
    }

    /// All nodes, none of them started.
    pub(crate) fn prepare() -> Cluster {
        let dir = TempDir::new().unwrap();
        let node_ports: [u16; STORAGE_NODES + FRONTS] = free_ports();
        let members: Vec<String> =
            (0..STORAGE_NODES).map(|i| format!("storage-{}=127.0.0.1:{}", i + 1, node_ports[i])).collect();
        let node = |name: String, roles: &str, zone: &str, node_port: u16| {
            let [query, grpc, http] = free_ports();
            let data = dir.path().join(&name);
            let config = dir.path().join(format!("{name}.yaml"));
            let text = format!(
                "node: {{ name: {name}, roles: [{roles}], data_dir: {data:?}, zone: {zone:?} }}\n\
                 listen:\n  node: 127.0.0.1:{node_port}\n  query: 127.0.0.1:{query}\n  \
                 otlp_grpc: 127.0.0.1:{grpc}\n  otlp_http: 127.0.0.1:{http}\n\
                 meta: {{ members: {members:?}, expected_storage_nodes: {STORAGE_NODES}, replication_factor: 3 }}\n\
                 ingest: {{ timeout_ms: {INGEST_TIMEOUT_MS} }}\n"
            );
            std::fs::write(&config, text).unwrap();
            let log = dir.path().join(format!("{name}.log"));
            Node { name, config, data, log, address: Front::at(query, grpc, http), process: None }
        };
        let storage = ["a", "b", "c"].iter().enumerate();
        let storage =
            storage.map(|(i, zone)| node(format!("storage-{}", i + 1), "storage, meta", zone, node_ports[i]));
        let fronts =
            (0..FRONTS).map(|i| node(format!("front-{}", i + 1), "front", "", node_ports[STORAGE_NODES + i]));
        let (storage, fronts) = (storage.collect(), fronts.collect());
        Cluster { storage, fronts, http: client(), _dir: dir }
    }

    /// Where to send to and ask; `number` counts from 1.
    pub(crate) fn front(&self, number: usize) -> &Front {
        &self.fronts[number - 1].address
    }

    pub(crate) fn start_fronts(&mut self) {
        self.fronts.iter_mut().for_each(Node::start);
    }

    pub(crate) fn kill_fronts(&mut self) {
        self.fronts.iter_mut().for_each(Node::kill);
    }

    /// Waits until the fronts answer, ready or not.
    pub(crate) async fn fronts_answer(&self) {
        for front in &self.fronts {
            let url = format!("{}/healthz", front.address.query);
            until("the front answers", async || {
                let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
                if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
            })
            .await;
        }
    }

    /// Waits until a front is not ready for a reason that contains `text`; `number` counts from 1.
    pub(crate) async fn front_says(&self, number: usize, text: &str) {
        let url = format!("{}/readyz", self.front(number).query);
        until("the front says why it is not ready", async || {
            let answer = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let said = answer.text().await.map_err(|error| error.to_string())?;
            if status == 503 && said.contains(text) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    pub(crate) async fn all_ready(&mut self) {
        for node in self.storage.iter_mut().chain(&mut self.fronts) {
            node.ready(&self.http).await;
        }
    }

    pub(crate) async fn storage_ready(&mut self, index: usize) {
        self.storage[index].ready(&self.http).await;
    }

    /// Waits until front 1 gives this verdict on the cluster.
    pub(crate) async fn verdict(&self, wanted: Verdict) -> ClusterStatus {
        self.status_until(&format!("the cluster is {wanted:?}"), |status| status.verdict == wanted).await
    }

    /// Waits until front 1 shows a status that `is_so`.
    pub(crate) async fn status_until(
        &self,
        what: &str,
        is_so: impl Fn(&ClusterStatus) -> bool,
    ) -> ClusterStatus {
        let url = format!("{}{CLUSTER_STATUS_PATH}", self.front(1).query);
        until(what, async || {
            let response = self.http.get(&url).send().await.map_err(|error| error.to_string())?;
            let status: ClusterStatus = response.json().await.map_err(|error| error.to_string())?;
            if is_so(&status) {
                Ok(status)
            } else {
                Err(format!("{:?} {:?} {:?}", status.verdict, status.reasons, status.shards))
            }
        })
        .await
    }

    /// Lines of all logs that speak of a warning, an error or a panic.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let nodes = self.storage.iter().chain(&self.fronts);
        nodes
            .flat_map(|node| {
                complaints(&node.output()).into_iter().map(|line| format!("{}: {line}", node.name))
            })
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.storage.iter().chain(&self.fronts) {
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!(
                    "--- end of the log of {}\n{}",
                    node.name,
                    lines[lines.len().saturating_sub(25)..].join("\n")
                );
            }
        }
    }
}

/// Lines of a log that speak of a warning, an error or a panic.
pub(crate) fn complaints(log: &str) -> Vec<String> {
    let complains = |line: &&str| ["ERROR", "WARN", "panicked"].iter().any(|word| line.contains(word));
    log.lines().filter(complains).map(str::to_owned).collect()
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().unwrap()
}
