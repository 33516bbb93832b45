//! Whether a node is alive and ready: `/healthz`, `/readyz`, the gRPC health service, and the question that
//! containers ask.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use oteld_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;

/// `Ok` when the node does all that its roles promise, else why not.
pub type Readiness = Result<(), String>;

/// `/healthz` answers as long as the process runs; `/readyz` says 503 and why until the node is ready.
pub fn router(readiness: watch::Receiver<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, String) {
    match &*readiness.borrow() {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// The gRPC health service (grpc.health.v1), which follows the readiness.
pub fn grpc(env: &Env, mut readiness: watch::Receiver<Readiness>) -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    env.tasks.spawn(async move {
        loop {
            let status = match *readiness.borrow_and_update() {
                Ok(()) => ServingStatus::Serving,
                Err(_) => ServingStatus::NotServing,
            };
            reporter.set_service_status("", status).await;
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
    Routes::new(service)
}

/// Asks `/readyz` of the node at `endpoint` (`host:port`).
///
/// # Errors
/// What the node answered, or why it could not be asked.
pub async fn ask(env: &Env, endpoint: &str) -> Result<(), String> {
    let exchange = async {
        let mut connection = env.net.connect(endpoint).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(3), exchange).await;
    let answer = answer.map_err(|_| format!("{endpoint} did not answer within 3 s"))?;
    let answer = answer.map_err(|error| format!("cannot ask {endpoint}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or("an empty answer").trim();
    Err(format!("{endpoint}: {body}"))
}
