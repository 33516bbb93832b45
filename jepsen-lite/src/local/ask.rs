//! One GET to a node, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use oteld_env::Net;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Status and body of the answer.
///
/// # Errors
/// When there is none within `wait`.
pub(super) async fn get(address: &str, path: &str, wait: Duration) -> Result<(u16, Bytes), String> {
    let request = Request::get(path).header("host", address).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async {
        let connection = Net::Tcp.connect(address).await.map_err(|error| error.to_string())?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
        let (mut sender, driver) = shaken.map_err(|error| error.to_string())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((head.status.as_u16(), body))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // It ends first where the server closes after its answer.
            _ = driver => answer.await,
        }
    };
    match timeout(wait, exchange).await {
        Ok(answered) => answered.map_err(|error| format!("{address}{path}: {error}")),
        Err(_) => Err(format!("{address}{path}: no answer within {} ms", wait.as_millis())),
    }
}

/// The JSON of a 200 answer.
///
/// # Errors
/// When there is no such answer within `wait`.
pub(super) async fn get_json<T: DeserializeOwned>(
    address: &str,
    path: &str,
    wait: Duration,
) -> Result<T, String> {
    match get(address, path, wait).await? {
        (200, body) => serde_json::from_slice(&body).map_err(|error| format!("{address}{path}: {error}")),
        (status, body) => Err(format!("{address}{path}: {status} {}", String::from_utf8_lossy(&body))),
    }
}
