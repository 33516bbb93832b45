//! Asking the cluster about traces, for the APIs of Jaeger and Tempo.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use axum::extract::{Query, RawQuery};
use http::StatusCode;
use oteld_query::traceql::{
    self, DependenciesReply, DependenciesRequest, LeafReply, NamesReply, NamesRequest, SearchReply,
    SearchRequest, TracesRequest, by_id, dependencies, names, search,
};
use oteld_query::{LeafReply as AnyReply, LeafRequest, QueryError, QueryErrorKind};
use oteld_store::model::{SpanRow, Tenant};

use super::ask::{AskOptions, ReadState};
use crate::tenancy::TenantError;

/// All of time, in nanoseconds since the Unix epoch.
pub(super) const EVER: Range<u64> = 0..u64::MAX;

/// Why a request gets no answer. Each API writes it in its own way.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Failure { status: status_of(&error), message: error.message }
    }
}

impl From<TenantError> for Failure {
    fn from(error: TenantError) -> Self {
        Failure { status: StatusCode::BAD_REQUEST, message: error.to_string() }
    }
}

impl Failure {
    /// A trace was not found. Where the answer is incomplete it is not known whether it exists: "not found" would be
    /// a lie, and may be cached.
    pub(super) fn of_missing_trace(incomplete: &[String]) -> Self {
        match incomplete {
            [] => Failure { status: StatusCode::NOT_FOUND, message: NOT_FOUND.to_owned() },
            _ => Failure { status: StatusCode::SERVICE_UNAVAILABLE, message: incomplete.join("; ") },
        }
    }
}

pub(super) const NOT_FOUND: &str = "trace not found";

/// A merged answer, and what may be missing from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found<T> {
    pub(super) value: T,
    /// One sentence each; empty when the answer is complete.
    pub(super) incomplete: Vec<String>,
    pub(super) bytes_scanned: u64,
}

/// Traces by id, each with its spans by (start, span id).
pub(super) type Traces = BTreeMap<[u8; 16], Vec<SpanRow>>;

/// Searches all leaves.
pub(super) async fn search(
    state: &ReadState,
    tenant: &Tenant,
    request: SearchRequest,
) -> Result<Found<SearchReply>, QueryError> {
    let limit = request.limit;
    ask(state, tenant, traceql::LeafRequest::Search(request), move |replies| {
        let replies = replies.into_iter().map(LeafReply::into_search).collect::<Result<_, _>>()?;
        Ok(search::merge(replies, limit))
    })
    .await
}

/// Reads whole traces; those that nobody has are absent.
pub(super) async fn by_id(
    state: &ReadState,
    tenant: &Tenant,
    trace_ids: BTreeSet<[u8; 16]>,
    time_unix_nano: Range<u64>,
) -> Result<Found<Traces>, QueryError> {
    if trace_ids.is_empty() {
        return Ok(Found::default());
    }
    let request = traceql::LeafRequest::Traces(TracesRequest { trace_ids, time_unix_nano });
    ask(state, tenant, request, |replies| {
        by_id::merge(replies.into_iter().map(LeafReply::into_traces).collect::<Result<_, _>>()?)
    })
    .await
}

/// Collects names, at most `limit`.
pub(super) async fn names(
    state: &ReadState,
    tenant: &Tenant,
    request: NamesRequest,
    limit: usize,
) -> Result<Found<NamesReply>, QueryError> {
    let mut found = ask(state, tenant, traceql::LeafRequest::Names(request), move |replies| {
        let replies = replies.into_iter().map(LeafReply::into_names).collect::<Result<_, _>>()?;
        Ok(names::merge(replies, limit))
    })
    .await?;
    found.incomplete.extend(found.value.incomplete.take());
    Ok(found)
}

/// Counts the calls between services.
pub(super) async fn dependencies(
    state: &ReadState,
    tenant: &Tenant,
    time_unix_nano: Range<u64>,
) -> Result<Found<DependenciesReply>, QueryError> {
    let request = traceql::LeafRequest::Dependencies(DependenciesRequest { time_unix_nano });
    ask(state, tenant, request, |replies| {
        let replies = replies.into_iter().map(LeafReply::into_dependencies).collect::<Result<_, _>>()?;
        dependencies::merge(replies)
    })
    .await
}

async fn ask<T: Send + 'static>(
    state: &ReadState,
    tenant: &Tenant,
    request: traceql::LeafRequest,
    merge: impl FnOnce(Vec<LeafReply>) -> Result<T, QueryError> + Send + 'static,
) -> Result<Found<T>, QueryError> {
    let answer = state.ask.ask(tenant, LeafRequest::Trace(request), AskOptions::default()).await?;
    let replies = answer
        .replies
        .into_iter()
        .map(|reply| match reply {
            AnyReply::Trace(reply) => Ok(reply),
            _ => Err(QueryError::new(QueryErrorKind::Internal, "a leaf answered in another language")),
        })
        .collect::<Result<_, _>>()?;
    let value = state.env.tasks.blocking(move || merge(replies)).await?;
    Ok(Found { value, incomplete: answer.incomplete, bytes_scanned: answer.bytes_scanned })
}

/// The HTTP status of a query's failure. 499 is nginx's "client closed request", which Tempo uses too.
fn status_of(error: &QueryError) -> StatusCode {
    match error.kind {
        QueryErrorKind::BadQuery => StatusCode::BAD_REQUEST,
        QueryErrorKind::NotSupported => StatusCode::NOT_IMPLEMENTED,
        QueryErrorKind::Limit => StatusCode::UNPROCESSABLE_ENTITY,
        QueryErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        QueryErrorKind::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        QueryErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        QueryErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A trace id of up to 32 hexadecimal digits; shorter ones have leading zeros cut off.
pub(super) fn trace_id(text: &str) -> Result<[u8; 16], QueryError> {
    let bad = |why: &str| QueryError::bad(format!("invalid trace id {text:?}: {why}"));
    if text.is_empty() || text.len() > 32 {
        return Err(bad("it has 1 to 32 hexadecimal digits"));
    }
    // Digits only: the number parser would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad("it can only contain hexadecimal digits"));
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|error| bad(&error.to_string()))
}

/// The parameters of a query string. An empty value counts as absent, as it does in both APIs.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(pub(super) Vec<(String, String)>);

impl Params {
    /// Reads a query string.
    pub(super) fn parse(query: RawQuery) -> Result<Self, QueryError> {
        let text = query.0.unwrap_or_default();
        let uri = format!("/?{text}")
            .parse()
            .map_err(|error| QueryError::bad(format!("invalid query string: {error}")))?;
        let Query(pairs) = Query::try_from_uri(&uri).map_err(|error| QueryError::bad(error.body_text()))?;
        Ok(Params(pairs))
    }

    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| &**value)
    }

    /// The first value of `name`, as `read` reads it; an error names the parameter.
    pub(super) fn read<T, E: std::fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, QueryError> {
        self.get(name)
            .map(|text| {
                read(text)
                    .map_err(|error| QueryError::bad(format!("invalid parameter {name}={text:?}: {error}")))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_are_hexadecimal_and_may_be_short() {
        let mut short = [0; 16];
        short[15] = 0xab;
        assert_eq!(trace_id("ab"), Ok(short));
        assert_eq!(trace_id("000102030405060708090A0b0c0d0e0f"), Ok(std::array::from_fn(|i| i as u8)));
        for wrong in ["", "+1", "0x1", "g", "0000000000000000000000000000000000"] {
            assert_eq!(trace_id(wrong).map_err(|error| error.kind), Err(QueryErrorKind::BadQuery), "{wrong}");
        }
    }
}
