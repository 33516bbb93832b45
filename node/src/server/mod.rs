//! One node: its parts by role, put together, started and stopped in order.

pub mod listener;
pub mod health;
pub mod readings;
pub mod reach;
mod front;
mod set_aside;
mod missing;
mod storage;
pub mod retention;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use oteld_cluster::handle::{DirectoryError, MetaHandle, MetaLog, MetaOptions, MyNode, Status};
use oteld_cluster::ids::{self, ClusterId};
use oteld_cluster::membership::Founder;
use oteld_cluster::state::{self, ClusterState, Roles, Settings};
use oteld_env::Env;
use oteld_store::{OpenError, Store};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::front::Front;
use self::health::Readiness;
use self::reach::{Reach, Silent};
use self::readings::OwnReadings;
use crate::admin::gather::Gatherer;
use crate::config::{Config, Role};
use crate::repair::moves::ask::Asker;
use crate::repair::moves::driver::Driver;
use crate::rpc::peers::Peers;
use crate::rpc::service::{NodeService, StorageParts};
use crate::telemetry::readings::Source;
use crate::view::ClusterView;

/// How long connections may take to finish what is under way when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot listen on {address} for {what}: {error}; `{key}` sets the address")]
    Listen { what: &'static str, key: &'static str, address: String, error: io::Error },
    #[error("cannot open the store: {0}")]
    Store(#[from] OpenError),
    #[error("cannot open the metadata: {0}")]
    Meta(#[from] DirectoryError),
}

/// Addresses that a node really listens on; `None` where its roles or its configuration leave one out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub node: Option<SocketAddr>,
    pub otlp_grpc: Option<SocketAddr>,
    pub otlp_http: Option<SocketAddr>,
    pub query: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    config: Arc<Config>,
    addresses: Addresses,
    meta: MetaHandle,
    store: Option<Store>,
    readings: OwnReadings,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Opens what the roles need, listens, and takes its place in the cluster in the background:
    /// [`Node::ready`] waits for that.
    pub async fn start(env: Env, config: Config) -> Result<Node, StartError> {
        Node::start_on(env, config, MetaLog::Sled).await
    }

    /// The same, with the Raft log on `log`.
    pub async fn start_on(env: Env, config: Config, log: MetaLog) -> Result<Node, StartError> {
        let config = Arc::new(config);
        let store = match config.has(Role::Storage) {
            true => Some(storage::open(&env, &config.node.data_dir, &config.storage).await?),
            false => None,
        };
        let meta_dir = config.node.data_dir.join("meta");
        let my = my_node(&config, store.as_ref());
        let meta = MetaHandle::open(env.clone(), &meta_dir, my, meta_options(&config, log)).await?;
        let view = ClusterView::follow(&env, meta.watch());
        let peers = Peers::new(env.clone());
        let parts: Arc<OnceLock<StorageParts>> = Arc::default();
        let front = config
            .has(Role::Front)
            .then(|| Arc::new(Front::new(&env, &config, &view, &peers, parts.clone())));
        let readings = OwnReadings::new(&env, &config, store.clone(), parts.clone(), front.clone());
        let stop = CancellationToken::new();
        let (ready, readiness) = watch::channel(Err("starting".to_owned()));
        let mut node = Node {
            config: config.clone(),
            addresses: Addresses::default(),
            meta: meta.clone(),
            store: store.clone(),
            readings: readings.clone(),
            readiness: readiness.clone(),
            stop: stop.clone(),
            servers: Vec::new(),
        };
        let service = NodeService::new(env.clone(), parts.clone(), readings.own_status(), stop.clone());
        let reach = Reach::new(&config.node.name, founders(&config), view.clone(), peers.clone());
        let silent = reach.silent();
        let gatherer = Gatherer::new(
            &env,
            &config.node.name,
            meta.clone(),
            peers.clone(),
            readings.own_status(),
            silent.clone(),
        );
        node.listen(&env, service, front.as_deref(), gatherer).await?;
        let asking = stop.clone();
        env.tasks.spawn(async move {
            asking.run_until_cancelled(reach.run()).await;
        });
        let start =
            Startup { env: env.clone(), config, store, meta, view, peers, parts, silent, stop, ready };
        env.tasks.spawn(start.run());
        Ok(node)
    }

    /// Binds every socket that roles and configuration ask for.
    async fn listen(
        &mut self,
        env: &Env,
        service: NodeService,
        front: Option<&Front>,
        gatherer: Gatherer,
    ) -> Result<(), StartError> {
        let config = self.config.clone();
        let between_nodes = health::grpc(env, self.readiness.clone())
            .add_service(self.meta.service())
            .add_service(service.into_server())
            .into_axum_router();
        let listen = &config.listen;
        self.addresses.node =
            self.serve(env, "other nodes", "listen.node", &listen.node, between_nodes).await?;
        let mut queries = health::router(self.readiness.clone())
            .merge(self.readings.router())
            .merge(crate::admin::http::router(gatherer));
        if let Some(front) = front {
            // The health service's routes bring the fallback that tells unknown methods by gRPC's own status.
            let grpc = health::grpc(env, self.readiness.clone()).into_axum_router().merge(front.grpc());
            self.addresses.otlp_grpc =
                self.serve(env, "OTLP/gRPC", "listen.otlp_grpc", &listen.otlp_grpc, grpc).await?;
            let http = front.http().fallback(missing::of_otlp);
            self.addresses.otlp_http =
                self.serve(env, "OTLP/HTTP", "listen.otlp_http", &listen.otlp_http, http).await?;
            queries = queries.merge(front.queries());
        }
        let queries = queries.fallback(missing::of_queries);
        self.addresses.query = self.serve(env, "queries", "listen.query", &listen.query, queries).await?;
        Ok(())
    }

    async fn serve(
        &mut self,
        env: &Env,
        what: &'static str,
        key: &'static str,
        address: &str,
        router: Router,
    ) -> Result<Option<SocketAddr>, StartError> {
        if address.is_empty() {
            return Ok(None);
        }
        let served = listener::serve(env, address, router, self.stop.clone()).await;
        let (local, task) =
            served.map_err(|error| StartError::Listen { what, key, address: address.to_owned(), error })?;
        self.servers.push(task);
        Ok(Some(local))
    }

    pub fn name(&self) -> &str {
        &self.config.node.name
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// All values that the node measures about itself.
    pub fn readings(&self) -> Source {
        self.readings.source()
    }

    /// How long the cluster that the node is in keeps each signal, in words.
    pub fn retention(&self) -> String {
        retention_text(&self.meta.state())
    }

    /// The cluster as the node knows it.
    pub fn cluster(&self) -> Arc<ClusterState> {
        self.meta.state()
    }

    /// The meta group as the member of this process knows it; `None` without one.
    pub fn meta_member(&self) -> Option<Status> {
        self.meta.own_status()
    }

    /// Waits until the node does all that its roles promise.
    pub async fn ready(&self) {
        let mut readiness = self.readiness.clone();
        // An error means that the sender is gone: the node stops, and nobody is served any more.
        let _ = readiness.wait_for(Result::is_ok).await;
    }

    /// Whether the store has lost synced data.
    pub fn is_lost(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.lost().is_some())
    }

    /// Waits until the store has lost synced data; a restart of the node sets it aside and goes on with an empty one.
    pub async fn lost(&self) {
        match &self.store {
            Some(store) => {
                store.until_lost().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Why the node is not ready, if it is not.
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Says where the node listens.
    pub fn announce(&self) {
        let Addresses { node, otlp_grpc, otlp_http, query } = self.addresses;
        let show = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |a| a.to_string());
        info!(
            node = self.name(),
            between_nodes = show(node),
            otlp_grpc = show(otlp_grpc),
            otlp_http = show(otlp_http),
            query = show(query),
            "listening"
        );
    }

    /// Takes no new connections, lets those that are open finish for a while, and closes the store.
    pub async fn stop(self) {
        self.stop.cancel();
        let served = futures_util::future::join_all(self.servers);
        let _ = tokio::time::timeout(STOP_WAIT, served).await;
        self.meta.close().await;
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

/// What a node does once its sockets are open: it becomes part of its cluster.
struct Startup {
    env: Env,
    config: Arc<Config>,
    store: Option<Store>,
    meta: MetaHandle,
    view: ClusterView,
    peers: Peers,
    parts: Arc<OnceLock<StorageParts>>,
    silent: watch::Receiver<Silent>,
    stop: CancellationToken,
    ready: watch::Sender<Readiness>,
}

impl Startup {
    async fn run(self) {
        let stop = self.stop.clone();
        if self.config.has(Role::Meta) {
            let asker = Asker { view: self.view.clone(), connections: self.peers.clone() };
            let driver = Driver { env: self.env.clone(), meta: self.meta.clone(), asker };
            self.env.tasks.spawn(stop.clone().run_until_cancelled_owned(driver.run()));
        }
        stop.run_until_cancelled(self.join()).await;
    }

    async fn join(self) {
        let mut changes = self.view.changes();
        let Some(cluster) = self.formed().await else { return };
        if let Some(store) = &self.store {
            let dir = &self.config.node.data_dir;
            let joined =
                storage::join(&self.env, store, dir, cluster, &self.view, &self.peers, self.stop.clone());
            match joined.await {
                Ok(parts) => {
                    let _ = self.parts.set(parts);
                }
                Err(reason) => {
                    error!(%reason, "this node cannot serve storage");
                    self.say(Err(reason.to_string()));
                    return;
                }
            }
        }
        if self.placed().await.is_none() {
            return;
        }
        let my = my_node(&self.config, self.store.as_ref());
        // A node that moved is not found by others before they know where it is now.
        self.say(Err(format!("waiting until the cluster knows this node at {}", my.address)));
        if changes.wait_for(|state| knows(state, &my)).await.is_err() {
            return;
        }
        if self.store.as_ref().is_none_or(|store| store.lost().is_none()) {
            let retention = retention_text(&changes.borrow());
            info!(node = my.name, %cluster, retention, "joined its cluster");
        }
        self.compare_retention(&changes.borrow());
        let lost = async {
            match &self.store {
                Some(store) => store.until_lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            why = self.meta.failed() => {
                error!(%why, "the meta member of this node stopped");
                self.say(Err(format!("the meta member stopped: {why}")));
            }
            // The store has logged it.
            reason = lost => self.say(Err(reason)),
            () = self.follow_reach() => {}
        }
    }

    /// Waits until there is a cluster, and says who is missing as long as there is none.
    async fn formed(&self) -> Option<ClusterId> {
        let (mut changes, mut silent) = (self.view.changes(), self.silent.clone());
        loop {
            let missing = reach::names(&silent.borrow_and_update());
            let missing = if missing.is_empty() { missing } else { format!("; no answer from {missing}") };
            self.say(Err(format!("waiting for the meta group to form, or to answer{missing}")));
            tokio::select! {
                formed = changes.wait_for(|state| state.cluster.is_some()) => return formed.ok()?.cluster,
                changed = silent.changed() => changed.ok()?,
            }
        }
    }

    /// A node is ready once it has joined; a front as long as it reaches replicas that can take a write. Load
    /// balancers then send to fronts that do.
    async fn follow_reach(&self) {
        let mut silent = self.silent.clone();
        let mut said = None;
        loop {
            let can_serve = match self.config.has(Role::Front) {
                true => reach::can_serve(&self.view.state(), &silent.borrow_and_update()),
                false => Ok(()),
            };
            if said.as_ref() != Some(&can_serve) {
                match &can_serve {
                    Ok(()) => info!(node = self.config.node.name, "ready"),
                    Err(reason) => warn!(reason, "this front is not ready"),
                }
                said = Some(can_serve.clone());
                self.say(can_serve);
            }
            if silent.changed().await.is_err() {
                return;
            }
        }
    }

    /// The configuration counts when the cluster is founded, and somebody may have changed it since.
    fn compare_retention(&self, state: &ClusterState) {
        let configured = self.config.retention.seconds();
        let same = |(signal, seconds): (&ids::Signal, &u64)| state.retention_seconds(*signal) == *seconds;
        if self.config.has(Role::Meta) && !configured.iter().all(same) {
            warn!(
                kept = retention_text(state),
                "`retention` in the configuration is for founding a cluster, and this one keeps its data as it was told"
            );
        }
    }

    /// Waits until the shards are placed, and says what it waits for; `None` when the node ends before.
    async fn placed(&self) -> Option<()> {
        let mut changes = self.view.changes();
        let is_alone = self.config.meta.members.len() <= 1;
        let mut said = None;
        loop {
            let waits_for = awaited(&changes.borrow_and_update(), is_alone);
            let Some(reason) = waits_for else { return Some(()) };
            if said.as_ref() != Some(&reason) {
                info!(reason, "not ready yet");
                self.say(Err(reason.clone()));
                said = Some(reason);
            }
            changes.changed().await.ok()?;
        }
    }

    fn say(&self, readiness: Readiness) {
        // What was said before is of no more interest.
        let _ = self.ready.send_replace(readiness);
    }
}

fn my_node(config: &Config, store: Option<&Store>) -> MyNode {
    let address = match config.advertise.is_empty() {
        true => config.listen.node.clone(),
        false => config.advertise.clone(),
    };
    MyNode {
        name: config.node.name.clone(),
        address,
        roles: Roles {
            front: config.has(Role::Front),
            storage: config.has(Role::Storage),
            meta: config.has(Role::Meta),
        },
        zone: Some(config.node.zone.clone()).filter(|zone| !zone.is_empty()),
        replica: store.map(storage::replica_of),
    }
}

/// What the first placement of the shards waits for, with advice for a node that forms the meta group by itself;
/// `None` once they are placed.
fn awaited(state: &ClusterState, is_alone: bool) -> Option<String> {
    let Settings { expected_storage_nodes: expected, replication_factor, .. } = state.settings;
    let joined = state.placeable().len();
    let advice = match is_alone && replication_factor > 1 {
        true => ". A new cluster of one node that is to stay alone needs meta.replication_factor: 1",
        false => "",
    };
    state.shards.is_empty().then(|| {
        format!(
            "waiting to place the shards: {joined} of {expected} expected storage nodes have joined{advice}"
        )
    })
}

/// Whether the metadata has the node as it is now.
fn knows(state: &ClusterState, my: &MyNode) -> bool {
    let same = |node: &state::Node| node.address == my.address && node.replica == my.replica;
    state.nodes.values().any(|node| node.name == my.name && same(node))
}

/// How long the cluster keeps each signal.
pub fn retention_text(state: &ClusterState) -> String {
    let text = |signal: ids::Signal| {
        let seconds = state.retention_seconds(signal);
        format!("{} {}", signal.name(), oteld_cluster::retention::retention_text(seconds))
    };
    ids::Signal::ALL.map(text).join(", ")
}

/// The members that the meta group is formed of; this node alone where the configuration names none.
fn founders(config: &Config) -> Vec<Founder> {
    let mut founders: Vec<Founder> = (config.meta.members.iter())
        .filter_map(|member| member.split_once('='))
        .map(|(name, address)| Founder { name: name.into(), address: address.into() })
        .collect();
    if founders.is_empty() {
        let address = my_node(config, None).address;
        founders.push(Founder { name: config.node.name.clone(), address });
    }
    founders
}

fn meta_options(config: &Config, log: MetaLog) -> MetaOptions {
    let meta = &config.meta;
    let settings = Settings {
        replication_factor: meta.replication_factor,
        shards: meta.shards,
        expected_storage_nodes: meta.founding_storage_nodes(),
        split_version: 1,
        retention_seconds: config.retention.seconds(),
    };
    MetaOptions { log, ..MetaOptions::new(founders(config), settings) }
}
