//! The configuration of one node: YAML file, then `OTELD_*` environment, then flags.

mod load;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oteld_cluster::ids::Signal;
use oteld_cluster::retention::parse_retention;
use oteld_query::Limits;
use serde::{Deserialize, Serialize};

pub use load::{ConfigError, load};

/// What a node does; it can have any set of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Front,
    Storage,
    Meta,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub node: NodeConfig,
    pub listen: ListenConfig,
    /// `host:port` under which other nodes reach this node's `listen.node`; empty: the listening address itself.
    pub advertise: String,
    pub meta: MetaConfig,
    pub retention: RetentionConfig,
    pub ingest: IngestConfig,
    pub storage: StorageConfig,
    pub query: Limits,
    pub telemetry: TelemetryConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeConfig {
    /// Unique in the cluster.
    pub name: String,
    pub roles: Vec<Role>,
    pub data_dir: PathBuf,
    /// Failure domain: two replicas of a shard are not put in one zone while zones allow. Empty: the node alone.
    pub zone: String,
}

/// Addresses to listen on, `host:port`. An empty one is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenConfig {
    pub otlp_grpc: String,
    pub otlp_http: String,
    /// Queries and administration.
    pub query: String,
    /// Other nodes.
    pub node: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaConfig {
    /// The meta members of a new cluster, `name=host:port` each, the same list on every node.
    pub members: Vec<String>,
    /// Shards are placed when this many storage nodes have joined; 0: as many as `replication_factor`.
    pub expected_storage_nodes: u32,
    /// Replicas of each shard of a new cluster. 1, for a node by itself, keeps a single copy of everything.
    pub replication_factor: u32,
    /// Shards of a new cluster.
    pub shards: u32,
}

/// How long a new cluster keeps each signal: `36h`, `30d`, `2w` or `forever`. Whole windows of two hours go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionConfig {
    pub metrics: String,
    pub logs: String,
    pub traces: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngestConfig {
    /// Largest request, uncompressed, in bytes.
    pub request_bytes_max: usize,
    /// Requests in memory at once, uncompressed, in bytes; more are refused with a retry delay.
    pub memory_bytes_max: usize,
    /// How long a front tries to reach a majority before it answers that the outcome is unknown.
    pub timeout_ms: u64,
    /// Event times further behind the node's clock refuse the request. With `future_max_ms` this bounds how many
    /// windows of two hours, and so how many files, senders can make.
    pub past_max_ms: u64,
    /// Event times further ahead of the node's clock refuse the request.
    pub future_max_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageConfig {
    /// Rows in memory until they are flushed, in bytes.
    pub memtable_bytes_max: u64,
    /// Free space below which the node refuses writes, in bytes.
    pub min_free_bytes: u64,
    /// Flushed WAL that is kept so that a peer that was away can catch up from it, in bytes.
    pub wal_keep_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TelemetryConfig {
    /// OTLP/gRPC endpoint that the node's own metrics, logs and traces go to; empty: nowhere.
    pub endpoint: String,
    pub interval_ms: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            name: "node-1".into(),
            roles: vec![Role::Front, Role::Storage, Role::Meta],
            data_dir: "./oteld-data".into(),
            zone: String::new(),
        }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        ListenConfig {
            otlp_grpc: "127.0.0.1:4317".into(),
            otlp_http: "127.0.0.1:4318".into(),
            query: "127.0.0.1:8081".into(),
            node: "127.0.0.1:7070".into(),
        }
    }
}

impl Default for MetaConfig {
    fn default() -> Self {
        MetaConfig { members: Vec::new(), expected_storage_nodes: 0, replication_factor: 3, shards: 64 }
    }
}

impl RetentionConfig {
    /// The same for every signal.
    pub fn all(text: &str) -> Self {
        RetentionConfig { metrics: text.into(), logs: text.into(), traces: text.into() }
    }

    fn texts(&self) -> [(Signal, &str); 3] {
        [(Signal::Metrics, &self.metrics), (Signal::Logs, &self.logs), (Signal::Traces, &self.traces)]
    }

    /// Seconds by signal, 0 for ever; what does not parse is left out, and [`Config::check`] refuses it.
    pub fn seconds(&self) -> BTreeMap<Signal, u64> {
        let parsed = self.texts().map(|(signal, text)| Some((signal, parse_retention(text).ok()?)));
        parsed.into_iter().flatten().collect()
    }
}

impl Default for RetentionConfig {
    /// Nothing is dropped that nobody asked to drop (docs/adr/0005).
    fn default() -> Self {
        RetentionConfig::all("forever")
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        const DAY_MS: u64 = 86_400_000;
        IngestConfig {
            request_bytes_max: 64 << 20,
            memory_bytes_max: 512 << 20,
            timeout_ms: 10_000,
            past_max_ms: 20 * 365 * DAY_MS,
            future_max_ms: DAY_MS,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig { memtable_bytes_max: 256 << 20, min_free_bytes: 256 << 20, wal_keep_bytes: 256 << 20 }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig { endpoint: String::new(), interval_ms: 10_000 }
    }
}

impl MetaConfig {
    /// How many storage nodes the first placement waits for.
    pub fn founding_storage_nodes(&self) -> u32 {
        match self.expected_storage_nodes {
            0 => self.replication_factor,
            expected => expected,
        }
    }
}

impl Config {
    pub fn has(&self, role: Role) -> bool {
        self.node.roles.contains(&role)
    }

    /// What cannot work, said before anything starts.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, reason: String| Err(ConfigError::Invalid { key: key.into(), reason });
        if self.node.name.is_empty() {
            return invalid("node.name", "a node needs a name that is unique in its cluster".into());
        }
        if self.node.roles.is_empty() {
            return invalid("node.roles", "give at least one of front, storage, meta".into());
        }
        if self.meta.shards == 0 || !self.meta.shards.is_power_of_two() || self.meta.shards > 65_536 {
            return invalid("meta.shards", format!("{} is not a power of two up to 65536", self.meta.shards));
        }
        if self.meta.replication_factor == 0 || self.meta.replication_factor > 7 {
            return invalid("meta.replication_factor", "it must be between 1 and 7".into());
        }
        for (signal, text) in self.retention.texts() {
            if let Err(error) = parse_retention(text) {
                return invalid(&format!("retention.{}", signal.name()), error.to_string());
            }
        }
        if self.meta.founding_storage_nodes() < self.meta.replication_factor {
            let MetaConfig { expected_storage_nodes: expected, replication_factor: wanted, .. } = self.meta;
            let reason = format!(
                "{expected} storage nodes cannot hold the {wanted} replicas of meta.replication_factor; leave it at 0 \
                 to wait for {wanted}, or ask for fewer replicas"
            );
            return invalid("meta.expected_storage_nodes", reason);
        }
        if self.listen.node.is_empty() {
            return invalid("listen.node", "every node needs an address for other nodes".into());
        }
        let mut names = Vec::new();
        for member in &self.meta.members {
            match member.split_once('=') {
                Some((name, address)) if !name.is_empty() && check_address(address).is_ok() => {
                    names.push(name);
                }
                _ => return invalid("meta.members", format!("`{member}` is not of the form name=host:port")),
            }
        }
        self.check_addresses()?;
        self.check_limits()?;
        if self.meta.members.is_empty() && !self.has(Role::Meta) {
            return invalid("meta.members", "a node without the meta role must know the meta members".into());
        }
        if self.has(Role::Meta) && !names.is_empty() && !names.contains(&self.node.name.as_str()) {
            return invalid(
                "meta.members",
                format!("this node has the meta role, but its name `{}` is not in the list", self.node.name),
            );
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let ListenConfig { otlp_grpc, otlp_http, query, node } = &self.listen;
        let endpoint = self.telemetry.endpoint.trim_start_matches("http://").trim_end_matches('/');
        for (key, address) in [
            ("listen.otlp_grpc", otlp_grpc.as_str()),
            ("listen.otlp_http", otlp_http),
            ("listen.query", query),
            ("listen.node", node),
            ("advertise", &self.advertise),
            ("telemetry.endpoint", endpoint),
        ] {
            if !address.is_empty() {
                check_address(address)
                    .map_err(|reason| ConfigError::Invalid { key: key.to_owned(), reason })?;
            }
        }
        Ok(())
    }

    /// Bounds of 0 would refuse everything, or make a loop of what is done now and then.
    fn check_limits(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("ingest.request_bytes_max", self.ingest.request_bytes_max as u64),
            ("ingest.memory_bytes_max", self.ingest.memory_bytes_max as u64),
            ("ingest.timeout_ms", self.ingest.timeout_ms),
            ("storage.memtable_bytes_max", self.storage.memtable_bytes_max),
            ("query.timeout_ms", self.query.timeout_ms),
            ("telemetry.interval_ms", self.telemetry.interval_ms),
        ] {
            if value == 0 {
                let reason = "it must be more than 0".to_owned();
                return Err(ConfigError::Invalid { key: key.to_owned(), reason });
            }
        }
        Ok(())
    }
}

/// Whether `address` is a `host:port` that can be listened on or connected to, without asking for the name.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &str) -> Result<(), String> {
    let bad = || format!("`{address}` is not of the form host:port, such as 127.0.0.1:4317");
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let is_ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some();
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    port.parse::<u16>().map_err(|_| bad())?;
    if is_ipv6 || is_name { Ok(()) } else { Err(bad()) }
}
