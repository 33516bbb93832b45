//! A whole cluster in one process, over the same code, sockets and RPC that separate machines use.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use oteld_cluster::state::{ClusterState, NodeState, Roles};
use oteld_env::Env;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::config::{
    Config, ConfigError, ListenConfig, MetaConfig, NodeConfig, RetentionConfig, Role, TelemetryConfig,
    check_address,
};
use crate::server::{Node, StartError};
use crate::telemetry;

/// How long the cluster may take to form before the wait is reported as a failure.
const FORM_WAIT: Duration = Duration::from_secs(60);
const NODES_MAX: u32 = 9;
const NODES_DEFAULT: u32 = 3;

const EXAMPLES: &str = "Examples:
  oteld dev
  oteld dev --nodes 5 --data-dir /tmp/five
  oteld dev --otlp-grpc 127.0.0.1:14317 --otlp-http 127.0.0.1:14318 --query 127.0.0.1:18081 --node-port 17070";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DevOptions {
    /// Storage nodes; each is a meta member too [default: those that the data directory has, or 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u32>,
    /// Where everything is kept; a restart finds it
    #[arg(long, default_value = "./oteld-data")]
    pub data_dir: PathBuf,
    /// Where the front listens for OTLP over gRPC
    #[arg(long, default_value = "127.0.0.1:4317", value_parser = address)]
    pub otlp_grpc: String,
    /// Where the front listens for OTLP over HTTP
    #[arg(long, default_value = "127.0.0.1:4318", value_parser = address)]
    pub otlp_http: String,
    /// Where the front listens for queries
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = address)]
    pub query: String,
    /// First of the ports on 127.0.0.1 that the nodes use among themselves, one each
    #[arg(long, default_value_t = 7070)]
    pub node_port: u16,
    /// How long a new cluster keeps data: such as 36h, 30d or 2w
    #[arg(long, default_value = "forever")]
    pub retention: String,
    /// Do not send the cluster's own telemetry into itself
    #[arg(long)]
    pub no_self_telemetry: bool,
}

fn address(text: &str) -> Result<String, String> {
    check_address(text).map(|()| text.to_owned())
}

#[derive(Debug, Error)]
pub enum DevError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address} for {what}: {error}; {flag} sets the address")]
    Listen { what: &'static str, address: String, error: std::io::Error, flag: &'static str },
    #[error(
        "{data_dir} holds {found} storage nodes, and {asked} of them are too few to start: give --nodes {found}, or \
         an empty directory"
    )]
    TooFewNodes { data_dir: String, found: u32, asked: u32 },
    #[error("cannot look into {data_dir}: {error}")]
    DataDir { data_dir: String, error: std::io::Error },
    #[error("{name}: {error}")]
    Node { name: String, error: StartError },
    #[error("cannot set up logging: {0}")]
    Telemetry(String),
    #[error(
        "the cluster did not form within {} s ({reasons}); {data_dir} may hold another cluster's data, or that of \
         more nodes (--nodes): start as before, or with an empty directory",
        FORM_WAIT.as_secs()
    )]
    NotFormed { data_dir: String, reasons: String },
}

/// Starts the nodes, says how to use them, and stops them at SIGINT or SIGTERM.
pub async fn run(env: Env, options: DevOptions) -> Result<(), DevError> {
    let configs = configs(&options, node_count(&env, &options)?);
    let front = configs.last().expect("there is always a front").clone();
    let telemetry = telemetry::start(&front.telemetry, "oteld-dev", "warn").map_err(DevError::Telemetry)?;
    let mut nodes = Vec::new();
    for config in configs {
        config.check()?;
        let name = config.node.name.clone();
        let node = Node::start(env.clone(), config).await;
        nodes.push(node.map_err(|error| not_started(name, error))?);
    }
    nodes.iter().for_each(|node| telemetry.observe(node));
    let deadline = Instant::now() + FORM_WAIT;
    for node in &nodes {
        tokio::select! {
            ready = timeout_at(deadline, node.ready()) => ready.map_err(|_| not_formed(&options, &nodes))?,
            () = until_signal() => return Ok(()),
        }
    }
    say(&welcome(&options, &nodes[0].cluster(), &nodes[0].retention()));
    until_signal().await;
    say("Stopping: finishing what is under way and closing the stores.\n");
    telemetry.stop();
    // The front first, so that nothing new arrives while the stores close; then all at once, so that none waits for
    // peers that are gone.
    if let Some(front) = nodes.pop() {
        front.stop().await;
    }
    futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
    Ok(())
}

/// How many storage nodes to start: as many as are asked for, and no fewer than the data directory has.
fn node_count(env: &Env, options: &DevOptions) -> Result<u32, DevError> {
    let data_dir = || options.data_dir.display().to_string();
    let mut found = 0;
    for number in 1..=NODES_MAX {
        let dir = options.data_dir.join(format!("node-{number}"));
        let exists = env.disk.exists(&dir);
        if exists.map_err(|error| DevError::DataDir { data_dir: data_dir(), error })? {
            found = number;
        }
    }
    match options.nodes {
        Some(asked) if asked < found => Err(DevError::TooFewNodes { data_dir: data_dir(), found, asked }),
        Some(asked) => Ok(asked),
        None if found > 0 => Ok(found),
        None => Ok(NODES_DEFAULT),
    }
}

/// Names the flag where a configuration key would be of no use.
fn not_started(name: String, error: StartError) -> DevError {
    match error {
        StartError::Listen { what, key, address, error } => {
            let flag = match key {
                "listen.otlp_grpc" => "--otlp-grpc",
                "listen.otlp_http" => "--otlp-http",
                "listen.query" => "--query",
                _ => "--node-port",
            };
            DevError::Listen { what, address, error, flag }
        }
        error => DevError::Node { name, error },
    }
}

fn not_formed(options: &DevOptions, nodes: &[Node]) -> DevError {
    let reason = |node: &Node| node.readiness().err().map(|reason| format!("{}: {reason}", node.name()));
    let reasons: Vec<String> = nodes.iter().filter_map(reason).collect();
    DevError::NotFormed { data_dir: options.data_dir.display().to_string(), reasons: reasons.join("; ") }
}

/// One configuration a node: the storage nodes with the meta role first, the front last.
fn configs(options: &DevOptions, nodes: u32) -> Vec<Config> {
    let address = |index: u32| format!("127.0.0.1:{}", options.node_port + index as u16);
    let members = (0..nodes).map(|index| format!("node-{}={}", index + 1, address(index))).collect();
    let meta = MetaConfig {
        members,
        expected_storage_nodes: nodes,
        replication_factor: nodes.min(3),
        ..MetaConfig::default()
    };
    let node = |name: String, roles: Vec<Role>, index: u32| Config {
        node: NodeConfig { data_dir: options.data_dir.join(&name), name, roles, zone: String::new() },
        listen: ListenConfig {
            otlp_grpc: String::new(),
            otlp_http: String::new(),
            query: String::new(),
            node: address(index),
        },
        meta: meta.clone(),
        retention: RetentionConfig::all(&options.retention),
        ..Config::default()
    };
    let mut configs: Vec<Config> = (0..nodes)
        .map(|index| node(format!("node-{}", index + 1), vec![Role::Storage, Role::Meta], index))
        .collect();
    let mut front = node("front-1".into(), vec![Role::Front], nodes);
    front.listen.otlp_grpc = options.otlp_grpc.clone();
    front.listen.otlp_http = options.otlp_http.clone();
    front.listen.query = options.query.clone();
    if !options.no_self_telemetry {
        front.telemetry =
            TelemetryConfig { endpoint: options.otlp_grpc.clone(), ..TelemetryConfig::default() };
    }
    configs.push(front);
    configs
}

/// How to use the cluster, and what it really consists of, which an earlier start may have decided.
fn welcome(options: &DevOptions, cluster: &ClusterState, retention: &str) -> String {
    let DevOptions { data_dir, otlp_grpc, otlp_http, query, .. } = options;
    let replicas = cluster.settings.replication_factor;
    let count = |has: fn(&Roles) -> bool| {
        let nodes = cluster.nodes.values().filter(|node| node.state != NodeState::Removed);
        nodes.filter(|node| has(&node.roles)).count()
    };
    let (nodes, members) = (count(|roles| roles.storage), count(|roles| roles.meta));
    format!(
        r#"oteld is ready: {nodes} storage nodes ({replicas} replicas a shard), a meta group of {members} and a front; data in {}, kept: {retention}

  send OTLP    gRPC http://{otlp_grpc}   HTTP http://{otlp_http}
  query        http://{query}/prometheus  /loki  /jaeger  /tempo

Send a log record:
  curl -sS http://{otlp_http}/v1/logs -H 'Content-Type: application/json' -d '{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"'$(date +%s%N)'","severityText":"INFO","body":{{"stringValue":"hello from curl"}}}}]}}]}}]}}'

Read it back:
  curl -sS -G http://{query}/loki/api/v1/query_range --data-urlencode 'query={{service_name="shop"}}'

Data stays until you remove the directory, and an idle cluster adds its own telemetry to it (--no-self-telemetry).
Press Ctrl-C to stop; the same command finds the data again.
"#,
        data_dir.display()
    )
}

/// Waits for SIGINT or SIGTERM.
pub async fn until_signal() {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => {
            let _ = interrupted.await;
        }
    }
}

/// To standard output, which may be gone.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
