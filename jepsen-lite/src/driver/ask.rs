//! One GET to a node, on a connection of its own: nodes end and start again between two of them.

use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use oteld_env::Env;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::clients::exchange::Pool;

/// Status and body of the answer. Must run on a runtime of one thread.
///
/// # Errors
/// When there is none within `wait`.
pub(crate) async fn get(address: &str, path: &str, wait: Duration) -> Result<(u16, Bytes), String> {
    let pool = Pool::new(Env::real());
    let exchange = pool.exchange(address, Request::get(path), Bytes::new(), wait);
    match timeout(wait, exchange).await {
        Ok(Ok(answer)) => Ok((answer.status, answer.body)),
        Ok(Err(error)) => Err(format!("{address}{path}: {}", error.reason())),
        Err(_) => Err(format!("{address}{path}: no answer within {} ms", wait.as_millis())),
    }
}

/// The JSON of a 200 answer.
///
/// # Errors
/// When there is no such answer within `wait`.
pub(crate) async fn get_json<T: DeserializeOwned>(
    address: &str,
    path: &str,
    wait: Duration,
) -> Result<T, String> {
    match get(address, path, wait).await? {
        (200, body) => serde_json::from_slice(&body).map_err(|error| format!("{address}{path}: {error}")),
        (status, body) => Err(format!("{address}{path}: {status} {}", String::from_utf8_lossy(&body))),
    }
}

/// Whether a node says that it does all that its roles promise.
///
/// # Errors
/// What it says instead, or why it says nothing.
pub(crate) async fn is_ready(query: &str) -> Result<(), String> {
    match get(query, "/readyz", Duration::from_secs(2)).await? {
        (200, _) => Ok(()),
        (_, body) => Err(String::from_utf8_lossy(&body).trim().to_owned()),
    }
}
