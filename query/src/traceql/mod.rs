//! Traces: TraceQL, traces by id, and the names that there are. The Jaeger and Tempo APIs both ask here.
//!
//! A whole trace lives in one shard and therefore on one leaf, so that filters over all of its spans run there.

pub mod ast;
pub mod duration;
mod lexer;
pub mod parser;

mod filter;
pub mod trace;

pub mod by_id;
pub mod dependencies;
pub mod names;
pub mod search;

use std::ops::Range;

use oteld_store::scan::ScanScope;
use serde::{Deserialize, Serialize};

use crate::{LeafContext, QueryError, QueryErrorKind};

pub use by_id::{TracesReply, TracesRequest};
pub use dependencies::{DependenciesReply, DependenciesRequest};
pub use names::{Name, NamesOf, NamesReply, NamesRequest, ValueKind};
pub use parser::parse;
pub use search::{SearchReply, SearchRequest, SpanSummary, TraceSummary};

/// What a leaf is asked about traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafRequest {
    Search(SearchRequest),
    Traces(TracesRequest),
    Names(NamesRequest),
    Dependencies(DependenciesRequest),
}

/// What a leaf found; of the same variant as its request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafReply {
    Search(SearchReply),
    Traces(TracesReply),
    Names(NamesReply),
    Dependencies(DependenciesReply),
}

impl LeafReply {
    /// The reply to a search.
    pub fn into_search(self) -> Result<SearchReply, QueryError> {
        match self {
            LeafReply::Search(reply) => Ok(reply),
            _ => Err(wrong_variant("a search")),
        }
    }

    /// The reply to a request for traces.
    pub fn into_traces(self) -> Result<TracesReply, QueryError> {
        match self {
            LeafReply::Traces(reply) => Ok(reply),
            _ => Err(wrong_variant("traces")),
        }
    }

    /// The reply to a request for names.
    pub fn into_names(self) -> Result<NamesReply, QueryError> {
        match self {
            LeafReply::Names(reply) => Ok(reply),
            _ => Err(wrong_variant("names")),
        }
    }

    /// The reply to a request for dependencies.
    pub fn into_dependencies(self) -> Result<DependenciesReply, QueryError> {
        match self {
            LeafReply::Dependencies(reply) => Ok(reply),
            _ => Err(wrong_variant("dependencies")),
        }
    }
}

fn wrong_variant(wanted: &str) -> QueryError {
    QueryError::new(
        QueryErrorKind::Internal,
        format!("a leaf was asked for {wanted} and sent something else"),
    )
}

/// Answers from one node's rows. Blocks and computes: not for the reactor.
pub fn leaf(context: &LeafContext<'_>, request: &LeafRequest) -> Result<LeafReply, QueryError> {
    Ok(match request {
        LeafRequest::Search(request) => LeafReply::Search(search::leaf(context, request)?),
        LeafRequest::Traces(request) => LeafReply::Traces(by_id::leaf(context, request)?),
        LeafRequest::Names(request) => LeafReply::Names(names::leaf(context, request)?),
        LeafRequest::Dependencies(request) => LeafReply::Dependencies(dependencies::leaf(context, request)?),
    })
}

fn scope_of(context: &LeafContext<'_>, time_unix_nano: &Range<u64>) -> ScanScope {
    ScanScope {
        tenant: context.tenant.clone(),
        shards: context.shards.clone(),
        time_unix_nano: time_unix_nano.clone(),
    }
}
