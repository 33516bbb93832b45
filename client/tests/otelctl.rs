//! otelctl against a server that answers as the admin and query APIs do.
#![allow(clippy::disallowed_methods, reason = "a real process talks to a real socket")]

use std::collections::BTreeMap;
use std::process::{Command, Output};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use oteld_client::admin::{
    CLUSTER_STATUS_PATH, ClusterStatus, ErrorBody, MetaMember, MetaRole, MetaStatus, MoveStep, NODES_PATH,
    NodeState, NodeStatus, ReplicaState, ReplicaStatus, Role, SHARDS_PATH, ShardStatus, ShardTotals, Verdict,
};
use serde_json::{Value, json};

fn node(name: &str, state: NodeState) -> NodeStatus {
    NodeStatus {
        id: 1,
        name: name.into(),
        address: format!("{name}:7070"),
        roles: vec![Role::Storage, Role::Meta],
        zone: Some("a".into()),
        state,
        replica: Some("0123456789abcdef0123456789abcdef".into()),
        shards: 64,
        disk_bytes: Some(5 << 30),
        disk_free_bytes: None,
        ingest_items_per_second: Some(1234.5),
        last_heartbeat_ms: Some(350),
    }
}

fn status(verdict: Verdict) -> ClusterStatus {
    let healthy = verdict == Verdict::Healthy;
    ClusterStatus {
        cluster_id: Some("feedfacefeedfacefeedfacefeedface".into()),
        verdict,
        reasons: if healthy { vec![] } else { vec!["storage-3 does not answer".into()] },
        meta: MetaStatus {
            seen_by: Some("storage-1".into()),
            term: 7,
            leader: Some("storage-1".into()),
            members: vec![MetaMember {
                node: "storage-1".into(),
                address: "storage-1:7070".into(),
                last_log_index: Some(42),
                role: MetaRole::Leader,
            }],
        },
        nodes: vec![node("storage-1", NodeState::Active), node("storage-3", NodeState::Unreachable)],
        shards: ShardTotals { total: 64, under_replicated: if healthy { 0 } else { 64 }, moving: 0 },
        retention: vec![],
    }
}

fn shards() -> Vec<ShardStatus> {
    let replica = |node: &str, state| ReplicaStatus { node: node.into(), state };
    vec![ShardStatus {
        shard: 0,
        epoch: 3,
        replicas: vec![
            replica("storage-1", ReplicaState::Active),
            replica("storage-3", ReplicaState::CatchingUp),
        ],
        new: Some(vec![replica("storage-4", ReplicaState::Active)]),
        step: Some(MoveStep::Copying),
    }]
}

async fn instant(
    State(_): State<Verdict>,
    Query(parameters): Query<BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    if parameters["query"] == "(" {
        let error = json!({ "status": "error", "errorType": "bad_data", "error": "unexpected end of input" });
        return (StatusCode::BAD_REQUEST, Json(error));
    }
    let result = json!([{ "metric": { "__name__": "up", "job": "cart" }, "value": [1.7e9, "1"] }]);
    let data = json!({ "resultType": "vector", "result": result });
    (
        StatusCode::OK,
        Json(json!({ "status": "success", "data": data, "warnings": ["partial: 1 of 3 nodes"] })),
    )
}

/// Says which range it was asked for, as the only line.
async fn lines(Query(parameters): Query<BTreeMap<String, String>>) -> Json<Value> {
    let nanos = |name: &str| parameters[name].parse::<u64>().expect("unix nanoseconds");
    let hours = (nanos("end") - nanos("start")) as f64 / 3.6e12;
    let line = json!([parameters["start"], format!("{hours} hours")]);
    let result = json!([{ "stream": { "service_name": "cart" }, "values": [line] }]);
    Json(json!({ "status": "success", "data": { "resultType": "streams", "result": result } }))
}

/// Starts a server that gives `verdict` and returns its endpoint.
async fn serve(verdict: Verdict) -> String {
    let router = Router::new()
        .route(
            CLUSTER_STATUS_PATH,
            get(|State(verdict): State<Verdict>| async move { Json(status(verdict)) }),
        )
        .route(NODES_PATH, get(|| async { Json(status(Verdict::Healthy).nodes) }))
        .route(SHARDS_PATH, get(|| async { Json(shards()) }))
        .route("/prometheus/api/v1/query", get(instant))
        .route("/loki/api/v1/query_range", get(lines))
        .route(
            "/broken/api/v1/admin/nodes",
            get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(ErrorBody { error: "starting".into() })) }),
        )
        .route("/other/api/v1/admin/cluster/status", get(|| async { "<html>" }))
        .with_state(verdict);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    endpoint
}

async fn otelctl(endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otelctl"));
    command.args(arguments).env("OTELCTL_ENDPOINT", endpoint);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("otelctl starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn the_exit_status_of_cluster_status_is_the_verdict() {
    for (verdict, code) in [(Verdict::Healthy, 0), (Verdict::Degraded, 1), (Verdict::Unavailable, 2)] {
        let output = otelctl(&serve(verdict).await, &["cluster", "status"]).await;
        assert_eq!(output.status.code(), Some(code), "{verdict}");
        let screen = text(&output.stdout);
        assert!(screen.starts_with(&verdict.to_string().to_uppercase()), "{screen}");
    }
}

#[tokio::test]
async fn cluster_status_shows_why_and_where_on_one_screen() {
    let output = otelctl(&serve(Verdict::Degraded).await, &["cluster", "status"]).await;
    let screen = text(&output.stdout);
    for part in [
        "feedfacefeedfacefeedfacefeedface",
        "- storage-3 does not answer",
        "term 7, leader storage-1",
        "storage-1:7070",
        "unreachable",
        "5.0 GiB",
        "1234",
        "350 ms ago",
        "64 in total, 64 under-replicated, 0 moving",
    ] {
        assert!(screen.contains(part), "no {part:?} in\n{screen}");
    }
    assert!(screen.lines().count() <= 24, "more than a screen:\n{screen}");
}

#[tokio::test]
async fn json_output_is_what_the_server_said() {
    let output = otelctl(&serve(Verdict::Degraded).await, &["cluster", "status", "-o", "json"]).await;
    let parsed: ClusterStatus = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(parsed, status(Verdict::Degraded));
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn shards_list_shows_states_and_where_a_move_leads() {
    let output = otelctl(&serve(Verdict::Healthy).await, &["shards", "list"]).await;
    let screen = text(&output.stdout);
    assert!(screen.contains("storage-1, storage-3 (catching_up)"), "{screen}");
    assert!(screen.contains("storage-4"), "{screen}");
}

#[tokio::test]
async fn when_nothing_answers_the_url_and_what_to_check_are_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let output = otelctl(&endpoint, &["cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    for part in [endpoint.as_str(), "--endpoint", "OTELCTL_ENDPOINT", "8081"] {
        assert!(message.contains(part), "no {part:?} in\n{message}");
    }
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_oteld_is_named_as_such() {
    let endpoint = format!("{}/other", serve(Verdict::Healthy).await);
    let output = otelctl(&endpoint, &["cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("something else than this API"));
}

#[tokio::test]
async fn a_refusal_shows_the_servers_own_message() {
    let endpoint = format!("{}/broken", serve(Verdict::Healthy).await);
    let output = otelctl(&endpoint, &["node", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("503: starting"));
}

#[tokio::test]
async fn a_query_prints_a_table_and_its_warnings() {
    let output = otelctl(&serve(Verdict::Healthy).await, &["query", "promql", "up"]).await;
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("up{job=\"cart\"}"));
    assert!(text(&output.stderr).contains("warning: partial: 1 of 3 nodes"));
}

#[tokio::test]
async fn a_query_that_does_not_parse_shows_the_servers_reason() {
    let output = otelctl(&serve(Verdict::Healthy).await, &["query", "promql", "("]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("unexpected end of input"));
}

#[tokio::test]
async fn log_lines_are_looked_for_in_the_last_hour_when_nothing_is_said() {
    let endpoint = serve(Verdict::Healthy).await;
    let without_scheme = endpoint.trim_start_matches("http://");
    let output = otelctl(without_scheme, &["query", "logql", "{service_name=\"cart\"}"]).await;
    assert!(text(&output.stdout).contains("1 hours"), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test]
async fn the_help_of_a_query_says_how_times_are_written() {
    let output = otelctl("", &["query", "logql", "--help"]).await;
    let help = text(&output.stdout);
    for part in ["single quotes", "15m", "2026-01-31T12:00:00Z", "unix seconds", "last hour"] {
        assert!(help.contains(part), "no {part:?} in\n{help}");
    }
}
