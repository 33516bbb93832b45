//! The admin API's routes.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use oteld_client::admin::{
    CLUSTER_STATUS_PATH, ClusterStatus, NODES_PATH, NodeStatus, SHARDS_PATH, ShardStatus,
};

use super::gather::Gatherer;
use super::verdict;

/// Status of the cluster, its nodes and its shards.
pub fn router(gatherer: Gatherer) -> Router {
    Router::new()
        .route(CLUSTER_STATUS_PATH, get(cluster_status))
        .route(NODES_PATH, get(nodes))
        .route(SHARDS_PATH, get(shards))
        .with_state(gatherer)
}

async fn cluster_status(State(gatherer): State<Gatherer>) -> Json<ClusterStatus> {
    Json(verdict::cluster_status(&gatherer.gather().await))
}

async fn nodes(State(gatherer): State<Gatherer>) -> Json<Vec<NodeStatus>> {
    Json(verdict::node_statuses(&gatherer.gather().await))
}

async fn shards(State(gatherer): State<Gatherer>) -> Json<Vec<ShardStatus>> {
    Json(verdict::shard_statuses(&gatherer.gather().await))
}
