//! Receivers on a loopback socket, in front of a store that is a list.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oteld::write::admit::{Admission, AdmitOptions};
use oteld::write::receive::{ReceiveOptions, ReceiveState, grpc_routes, http_router};
use oteld::write::{Ingest, WriteError, WriteRequest};
use oteld_env::Tasks;
use oteld_store::model::{Signal, Tenant};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Keeps what is written, or answers with an error.
#[derive(Default)]
pub(crate) struct MemoryIngest {
    pub(crate) requests: Mutex<Vec<WriteRequest>>,
    pub(crate) error: Mutex<Option<WriteError>>,
    /// While set, writes wait until they are released.
    pub(crate) held: Mutex<Option<Arc<Notify>>>,
    pub(crate) arrived: Notify,
}

#[async_trait]
impl Ingest for MemoryIngest {
    fn floor(&self, _: &Tenant, _: Signal) -> u64 {
        0
    }

    async fn write(&self, request: WriteRequest) -> Result<(), WriteError> {
        let held = self.held.lock().clone();
        self.arrived.notify_one();
        if let Some(held) = held {
            held.notified().await;
        }
        if let Some(error) = self.error.lock().clone() {
            return Err(error);
        }
        self.requests.lock().push(request);
        Ok(())
    }
}

pub(crate) struct Server {
    pub(crate) ingest: Arc<MemoryIngest>,
    pub(crate) state: ReceiveState,
    addr: SocketAddr,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(AdmitOptions::default()).await
    }

    /// Serves HTTP and gRPC on one port, until the test's runtime ends.
    #[allow(clippy::disallowed_methods, reason = "tests use real sockets")]
    pub(crate) async fn with(options: AdmitOptions) -> Server {
        let ingest = Arc::new(MemoryIngest::default());
        let mut state = ReceiveState::new(Tasks::threads(), ingest.clone(), Admission::new(options));
        state.options = ReceiveOptions { body_timeout: Duration::from_secs(2) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = http_router(state.clone()).merge(grpc_routes(state.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Server { ingest, state, addr }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A request to `/v1/{signal}` with a protobuf body.
    pub(crate) fn post(&self, signal: Signal, body: Vec<u8>) -> reqwest::RequestBuilder {
        self.post_as(signal, "application/x-protobuf", body)
    }

    pub(crate) fn post_as(
        &self,
        signal: Signal,
        content_type: &str,
        body: Vec<u8>,
    ) -> reqwest::RequestBuilder {
        reqwest::Client::new()
            .post(format!("{}/v1/{}", self.url(), signal.name()))
            .header("content-type", content_type)
            .body(body)
    }

    /// The only request that was written.
    pub(crate) fn only(&self) -> WriteRequest {
        let mut requests = self.ingest.requests.lock();
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
