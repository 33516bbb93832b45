//! Jaeger's query API (its UI's `/api`), under `/jaeger/api`.
//!
//! Source: jaeger `cmd/query/app/http_handler.go` and its documentation of the HTTP JSON API. A result that may
//! miss rows says so in `errors`, beside its data.

mod params;
mod shape;

use std::collections::BTreeSet;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, header};
use oteld_query::QueryError;
use oteld_query::traceql::ast::KIND_NAMES;
use oteld_query::traceql::{Name, NamesOf, NamesRequest};
use serde::Serialize;

use self::params::{TracesQuery, dependencies_time, time_of_trace, traces_query};
use self::shape::{
    DependencyLink, NO_SERVICE_NAME, Operation, ResponseError, Trace, jaeger_kind, jaeger_service,
    trace_id_text,
};
use super::ask::ReadState;
use super::traces::{self, EVER, Failure, NOT_FOUND, Params};
use crate::tenancy::tenant_of;

/// The routes, with their prefix.
pub fn router() -> Router<ReadState> {
    Router::new()
        .route("/jaeger/api/services", get(services))
        .route("/jaeger/api/services/{service}/operations", get(operation_names))
        .route("/jaeger/api/operations", get(operations))
        .route("/jaeger/api/traces", get(find_traces))
        .route("/jaeger/api/traces/{trace_id}", get(get_trace))
        .route("/jaeger/api/dependencies", get(dependencies))
        .route("/jaeger/api/metrics/{name}", get(metrics))
        .route("/jaeger/api/v3/{*path}", get(v3))
}

/// A failure, as Jaeger writes it.
#[derive(Debug)]
struct Failed(Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Failed(Failure { status, message }) = self;
        let error = ResponseError { code: Some(status.as_u16()), msg: message, trace_id: None };
        let body = shape::Response { data: (), total: 0, limit: 0, offset: 0, errors: Some(vec![error]) };
        (status, Json(body)).into_response()
    }
}

/// Data with its count, and what may be missing.
fn success<T: Serialize>(
    data: T,
    total: usize,
    mut errors: Vec<ResponseError>,
    incomplete: Vec<String>,
) -> Response {
    let partial = !incomplete.is_empty();
    errors.extend(incomplete.into_iter().map(|msg| ResponseError { code: None, msg, trace_id: None }));
    let errors = (!errors.is_empty()).then_some(errors);
    let body = Json(shape::Response { data, total, limit: 0, offset: 0, errors });
    if partial { ([(header::CACHE_CONTROL, "no-store")], body).into_response() } else { body.into_response() }
}

async fn services(State(state): State<ReadState>, headers: HeaderMap) -> Result<Response, Failed> {
    let request = NamesRequest { of: NamesOf::Services, time_unix_nano: EVER };
    let found = traces::names(&state, &tenant_of(&headers)?, request, usize::MAX).await?;
    let names: BTreeSet<String> = found
        .value
        .names
        .into_iter()
        .filter_map(|name| match name {
            Name::Service(name) => Some(jaeger_service(&name).to_owned()),
            _ => None,
        })
        .collect();
    let total = names.len();
    Ok(success(names, total, Vec::new(), found.incomplete))
}

/// Span names and kinds of a service in Jaeger's words.
async fn operations_of(
    state: &ReadState,
    headers: &HeaderMap,
    service: &str,
) -> Result<(Vec<(String, u8)>, Vec<String>), Failed> {
    let service = if service == NO_SERVICE_NAME { String::new() } else { service.to_owned() };
    let request = NamesRequest { of: NamesOf::Operations { service }, time_unix_nano: EVER };
    let found = traces::names(state, &tenant_of(headers)?, request, usize::MAX).await?;
    let pair = |name| match name {
        Name::Operation { name, kind } => Some((name, kind)),
        _ => None,
    };
    Ok((found.value.names.into_iter().filter_map(pair).collect(), found.incomplete))
}

async fn operation_names(
    State(state): State<ReadState>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let (operations, incomplete) = operations_of(&state, &headers, &service).await?;
    let names: BTreeSet<String> = operations.into_iter().map(|(name, _)| name).collect();
    let total = names.len();
    Ok(success(names, total, Vec::new(), incomplete))
}

async fn operations(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let params = Params::parse(query)?;
    let Some(service) = params.get("service") else {
        return Err(QueryError::bad("parameter 'service' is required").into());
    };
    let kind = params.read("spanKind", |text| {
        KIND_NAMES.iter().position(|name| *name == text).ok_or("it is not the name of a span kind")
    })?;
    let (operations, incomplete) = operations_of(&state, &headers, service).await?;
    let operations: Vec<Operation> = operations
        .into_iter()
        .filter(|(_, of)| kind.is_none_or(|kind| usize::from(*of) == kind))
        .map(|(name, kind)| Operation { name, span_kind: jaeger_kind(kind) })
        .collect();
    let total = operations.len();
    Ok(success(operations, total, Vec::new(), incomplete))
}

async fn find_traces(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let tenant = tenant_of(&headers)?;
    match traces_query(&Params::parse(query)?, state.env.clock.now_unix_nanos())? {
        TracesQuery::Find(request) => {
            let found = traces::search(&state, &tenant, request).await?;
            let ids = found.value.traces.iter().map(|trace| trace.trace_id).collect();
            let whole = traces::by_id(&state, &tenant, ids, EVER).await?;
            let order = found.value.traces.iter().filter_map(|trace| whole.value.get(&trace.trace_id));
            let data: Vec<Trace> = order.map(|rows| shape::trace(rows)).collect();
            let incomplete: BTreeSet<String> = found.incomplete.into_iter().chain(whole.incomplete).collect();
            Ok(success(data, 0, Vec::new(), incomplete.into_iter().collect()))
        }
        TracesQuery::Get { trace_ids, time_unix_nano } => {
            let found = traces::by_id(&state, &tenant, trace_ids.clone(), time_unix_nano).await?;
            let missing = trace_ids.iter().filter(|id| !found.value.contains_key(*id));
            let errors = missing.map(|id| ResponseError {
                code: None,
                msg: NOT_FOUND.to_owned(),
                trace_id: Some(trace_id_text(id)),
            });
            let errors = errors.collect();
            let data: Vec<Trace> = found.value.values().map(|rows| shape::trace(rows)).collect();
            Ok(success(data, 0, errors, found.incomplete))
        }
    }
}

async fn get_trace(
    State(state): State<ReadState>,
    Path(trace_id): Path<String>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let trace_id = traces::trace_id(&trace_id)?;
    let time = time_of_trace(&Params::parse(query)?)?;
    let found = traces::by_id(&state, &tenant_of(&headers)?, [trace_id].into(), time).await?;
    match found.value.get(&trace_id) {
        Some(rows) => Ok(success(vec![shape::trace(rows)], 0, Vec::new(), found.incomplete)),
        None => Err(Failure::of_missing_trace(&found.incomplete).into()),
    }
}

async fn dependencies(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let time = dependencies_time(&Params::parse(query)?, state.env.clock.now_unix_nanos())?;
    let found = traces::dependencies(&state, &tenant_of(&headers)?, time).await?;
    let links: Vec<DependencyLink> = found
        .value
        .calls
        .into_iter()
        .map(|((parent, child), call_count)| DependencyLink {
            parent: jaeger_service(&parent).to_owned(),
            child: jaeger_service(&child).to_owned(),
            call_count,
        })
        .collect();
    Ok(success(links, 0, Vec::new(), found.incomplete))
}

async fn metrics(Path(name): Path<String>) -> Failed {
    QueryError::not_supported(format!("Jaeger's service performance monitoring (/api/metrics/{name})")).into()
}

async fn v3(Path(path): Path<String>) -> Failed {
    QueryError::not_supported(format!("version 3 of Jaeger's API (/api/v3/{path})")).into()
}
