//! A decoded write request, and the door through which it goes on to routing and replication.

use std::time::Duration;

use async_trait::async_trait;
use oteld_store::model::{RequestId, Rows, Signal, Tenant};
use thiserror::Error;

/// Everything that one export request said, ready to be routed.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteRequest {
    pub tenant: Tenant,
    pub id: RequestId,
    /// xxh3_64 of the uncompressed body: the same id with another digest is a conflict.
    pub digest: u64,
    /// Of the uncompressed body.
    pub bytes: usize,
    pub rows: Rows,
}

/// Takes write requests. The real one routes and replicates; tests keep them in memory.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Returns once every row is durable on a majority of its replicas (P1). An error says nothing about what
    /// was stored: the caller sends the same request again, with the same id.
    async fn write(&self, request: WriteRequest) -> Result<(), WriteError>;

    /// Event time below which rows of the tenant do not exist: they are acknowledged and not kept. Only for telling
    /// the client; how a request is cut never depends on it.
    fn floor(&self, tenant: &Tenant, signal: Signal) -> u64;
}

/// Why a request was not acknowledged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// A bound was reached; the sender slows down and tries again (P9).
    #[error("overloaded: {reason}")]
    Overloaded { reason: String, retry_after: Duration },
    /// Too few replicas answered, or the shard map is not known yet.
    #[error("unavailable: {reason}")]
    Unavailable { reason: String, retry_after: Duration },
    /// The same request id was used for another body; sending it again cannot help.
    #[error("conflict: {reason}")]
    Conflict { reason: String },
    /// Storage takes no writes for now, as when its disk is full.
    #[error("read-only: {reason}")]
    ReadOnly { reason: String, retry_after: Duration },
    /// A fault of oteld.
    #[error("internal error: {reason}")]
    Internal { reason: String },
}

/// What an acknowledged request came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Items kept: points, log records or spans.
    pub accepted: u64,
    pub rejection: Option<Rejection>,
}

/// Items of an acknowledged request that cannot be kept; OTLP's `partial_success`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Points, log records or spans. 0 with a message is a warning.
    pub rejected: u64,
    /// How many for which reason, with an example of each.
    pub message: String,
}

impl Ingested {
    /// Counts `items` of those accepted as rejected, since they are older than what is kept.
    pub fn reject_expired(&mut self, items: u64) {
        if items == 0 {
            return;
        }
        self.accepted -= items;
        let message = format!("{items} rejected: older than the tenant's data is kept");
        let rejection = match self.rejection.take() {
            None => Rejection { rejected: items, message },
            Some(known) => Rejection {
                rejected: known.rejected + items,
                message: format!("{}; {message}", known.message),
            },
        };
        self.rejection = Some(rejection);
    }
}
