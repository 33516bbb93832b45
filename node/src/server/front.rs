//! The front's parts: receivers with their budget, the replicator, and the query APIs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use oteld_env::Env;

use crate::config::Config;
use crate::read::ask::ReadState;
use crate::read::fan_out::FanOut;
use crate::read::http;
use crate::rpc::peers::Peers;
use crate::rpc::service::StorageParts;
use crate::telemetry::requests::traced;
use crate::view::ClusterView;
use crate::write::admit::{Admission, AdmitOptions};
use crate::write::receive::{EventTimes, ReceiveState, grpc_routes, http_router};
use crate::write::replicate::Replicator;

/// What a node with the front role has.
pub struct Front {
    pub receive: ReceiveState,
    read: ReadState,
}

impl Front {
    /// `local`: the store of this very node, once it is part of the cluster.
    pub fn new(
        env: &Env,
        config: &Config,
        view: &ClusterView,
        peers: &Peers,
        local: Arc<OnceLock<StorageParts>>,
    ) -> Self {
        let timeout = Duration::from_millis(config.ingest.timeout_ms);
        let replicator = Replicator::new(env.clone(), view.clone(), peers.clone(), local, timeout);
        let admission = Admission::new(AdmitOptions {
            message_bytes_max: config.ingest.request_bytes_max,
            memory_bytes_max: config.ingest.memory_bytes_max,
        });
        let mut receive = ReceiveState::new(env.tasks.clone(), Arc::new(replicator), admission);
        receive.times = Some(EventTimes {
            clock: env.clock.clone(),
            past_max: Duration::from_millis(config.ingest.past_max_ms),
            future_max: Duration::from_millis(config.ingest.future_max_ms),
        });
        let ask = FanOut::new(view.clone(), peers.clone(), config.query.clone());
        let read = ReadState { env: env.clone(), ask: Arc::new(ask), limits: Arc::new(config.query.clone()) };
        Front { receive, read }
    }

    /// OTLP/gRPC.
    pub fn grpc(&self) -> Router {
        grpc_routes(self.receive.clone())
    }

    /// OTLP/HTTP.
    pub fn http(&self) -> Router {
        http_router(self.receive.clone())
    }

    /// All query APIs, each request in a span.
    pub fn queries(&self) -> Router {
        http::router(self.read.clone()).layer(axum::middleware::from_fn(traced))
    }
}
