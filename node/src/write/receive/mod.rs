//! OTLP receivers: gRPC and HTTP, protobuf and JSON.
//!
//! A request is charged to the memory budget as it arrives, decompressed, decoded, and handed to [`Ingest`] as
//! one [`WriteRequest`]. The routers bind no sockets; the server does.

mod grpc;
mod http;

mod body;
mod times;

mod failure;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use bytes::Bytes;
use oteld_env::Tasks;
use oteld_store::model::identity::{request_id_of, request_id_of_key};
use oteld_store::model::{RequestId, Rows, Signal, Tenant};
use xxhash_rust::xxh3::xxh3_64;

use self::body::Encoding;
use self::failure::Failure;
pub use self::grpc::grpc_routes;
pub use self::http::http_router;
pub use self::metrics::{Protocol, ReceiveCount, ReceiveMetrics};
pub use self::times::EventTimes;
use crate::tenancy;
use crate::write::admit::{Admission, Ticket};
use crate::write::decode;
use crate::write::request::{Ingest, Ingested, WriteRequest};

/// The header and metadata key with which a client names a request: two byte-identical requests under two keys are
/// two requests, and other contents under a used key are a conflict.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";

/// Longest idempotency key, in characters.
pub const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 128;

/// Bodies longer than this (as received) are decompressed and decoded away from the reactor.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// How receivers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        ReceiveOptions { body_timeout: Duration::from_secs(30) }
    }
}

/// What the receivers need. Cheap to clone.
#[derive(Clone)]
pub struct ReceiveState {
    pub tasks: Tasks,
    pub ingest: Arc<dyn Ingest>,
    /// One for all receivers of the node.
    pub admission: Arc<Admission>,
    pub metrics: Arc<ReceiveMetrics>,
    pub options: ReceiveOptions,
    /// `None` takes any event time.
    pub times: Option<EventTimes>,
}

impl ReceiveState {
    pub fn new(tasks: Tasks, ingest: Arc<dyn Ingest>, admission: Arc<Admission>) -> Self {
        ReceiveState {
            tasks,
            ingest,
            admission,
            metrics: Arc::new(ReceiveMetrics::default()),
            options: ReceiveOptions::default(),
            times: None,
        }
    }

    /// Decodes a body and hands it on. Returns once its rows are durable.
    async fn export(&self, export: Export, body: Bytes, ticket: Ticket) -> Result<Ingested, Failure> {
        let count = self.metrics.of(export.signal, export.protocol);
        count.received(body.len());
        let prepared = if body.len() > INLINE_BYTES_MAX {
            let times = self.times.clone();
            self.tasks.blocking(move || export.prepare(&body, ticket, times.as_ref())).await
        } else {
            export.prepare(&body, ticket, self.times.as_ref())
        };
        let Prepared { request, bytes, mut ingested, ticket } = prepared?;
        count.decoded(bytes);
        if !request.rows.is_empty() {
            let floor = self.ingest.floor(&request.tenant, request.rows.signal());
            ingested.reject_expired(expired(&request.rows, floor));
            self.ingest.write(request).await?;
        }
        // The rows are in flight until they are acknowledged, so their memory is held until here.
        drop(ticket);
        count.acknowledged(&ingested);
        Ok(ingested)
    }
}

/// What the headers of a request say.
struct Export {
    signal: Signal,
    protocol: Protocol,
    encoding: Encoding,
    tenant: Tenant,
    idempotency_key: Option<String>,
}

/// A request that is ready to be written.
struct Prepared {
    request: WriteRequest,
    /// Length of the uncompressed body.
    bytes: usize,
    ingested: Ingested,
    ticket: Ticket,
}

impl Export {
    fn new(
        signal: Signal,
        protocol: Protocol,
        encoding: Encoding,
        headers: &HeaderMap,
    ) -> Result<Self, Failure> {
        let tenant = tenancy::tenant_of(headers).map_err(|error| Failure::invalid(error.to_string()))?;
        let idempotency_key = idempotency_key(headers)?;
        Ok(Export { signal, protocol, encoding, tenant, idempotency_key })
    }

    fn prepare(
        self,
        body: &[u8],
        mut ticket: Ticket,
        times: Option<&EventTimes>,
    ) -> Result<Prepared, Failure> {
        let Export { signal, protocol, encoding, tenant, idempotency_key } = self;
        let message = body::decompress(encoding, body, &mut ticket)?;
        let id = match idempotency_key {
            Some(key) => request_id_of_key(&tenant, signal, &key),
            None => request_id_of(&tenant, signal, &message),
        };
        let id = match times {
            Some(times) if oteld_env::mutant("retry-given-a-new-id") => {
                RequestId(id.0 ^ u128::from(times.clock.now_unix_nanos()))
            }
            _ => id,
        };
        let decoded = match protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => {
                decode::decode_protobuf(signal, &tenant, id, &message, &mut ticket)?
            }
            Protocol::HttpJson => decode::decode_json(signal, &tenant, id, &message, &mut ticket)?,
        };
        times::check(&decoded.rows, times)?;
        let ingested = Ingested { accepted: decoded.rows.len() as u64, rejection: decoded.rejection };
        let (digest, bytes) = (xxh3_64(&message), message.len());
        let request = WriteRequest { tenant, id, digest, bytes, rows: decoded.rows };
        Ok(Prepared { request, bytes: message.len(), ingested, ticket })
    }
}

/// How many rows are below the floor.
fn expired(rows: &Rows, floor_unix_nano: u64) -> u64 {
    let is_expired = |index: &usize| rows.event_time_unix_nano(*index) < floor_unix_nano;
    if floor_unix_nano == 0 { 0 } else { (0..rows.len()).filter(is_expired).count() as u64 }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY_HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok("") => Ok(None),
        Ok(key) if key.len() <= IDEMPOTENCY_KEY_LENGTH_MAX => Ok(Some(key.to_owned())),
        Ok(_) => Err(Failure::invalid(format!(
            "the idempotency key is longer than {IDEMPOTENCY_KEY_LENGTH_MAX} characters"
        ))),
        Err(_) => Err(Failure::invalid("the idempotency key is not printable ASCII")),
    }
}
