//! The query engines: parse, plan, evaluate over the scan of the store; without network.
//!
//! Each language splits its work in the same three places. The front parses and plans, which gives a
//! [`LeafRequest`]; every node that holds shards answers it over its own rows with [`leaf`]; the front merges the
//! replies into the answer. Requests and replies are plain data, so that the node can carry them.

pub mod error;
pub mod limits;
pub mod logql;
pub mod promql;
pub mod text;
pub mod traceql;

use std::collections::BTreeSet;
use std::sync::Arc;

use oteld_store::model::{Shard, Tenant};
use oteld_store::scan::{Scan, ScanBudget};
use serde::{Deserialize, Serialize};

pub use error::{QueryError, QueryErrorKind};
pub use limits::Limits;

/// What a leaf is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafRequest {
    Prom(promql::LeafRequest),
    Log(logql::LeafRequest),
    Trace(traceql::LeafRequest),
}

/// What a leaf found; of the same variant as its request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafReply {
    Prom(promql::LeafReply),
    Log(logql::LeafReply),
    Trace(traceql::LeafReply),
}

/// Where a leaf looks, and what it may use.
pub struct LeafContext<'a> {
    pub scan: &'a dyn Scan,
    pub tenant: Tenant,
    pub shards: Arc<BTreeSet<Shard>>,
    pub budget: &'a ScanBudget,
    pub limits: &'a Limits,
}

/// Answers one request from one node's rows. Blocks and computes: not for the reactor.
pub fn leaf(context: &LeafContext<'_>, request: &LeafRequest) -> Result<LeafReply, QueryError> {
    Ok(match request {
        LeafRequest::Prom(request) => LeafReply::Prom(promql::leaf(context, request)?),
        LeafRequest::Log(request) => LeafReply::Log(logql::leaf(context, request)?),
        LeafRequest::Trace(request) => LeafReply::Trace(traceql::leaf(context, request)?),
    })
}
