//! Tempo's query API, under `/tempo/api`.
//!
//! Source: Tempo's HTTP API documentation, `pkg/api/http.go` and `pkg/tempopb/tempo.proto`. A result that may miss
//! rows says so by `status` and `message` where the message has them (v2 traces), by 206 for v1 traces and
//! for searches that found some, by 503 where nothing was found, and always in a `Warning` header.

mod json;
mod logfmt;
mod otlp;
mod search;
mod tags;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oteld_query::QueryError;
use oteld_query::traceql::{NamesReply, NamesRequest};
use prost::Message;
use serde_json::json;

use self::otlp::{PartialStatus, TraceByIdMetrics, TraceByIdResponse};
use super::ask::ReadState;
use super::traces::{self, Failure, Found, Params};
use crate::tenancy::tenant_of;

const PROTOBUF: &str = "application/protobuf";

/// The routes, with their prefix.
pub fn router() -> Router<ReadState> {
    Router::new()
        .route("/tempo/api/echo", get(|| async { "echo" }))
        .route("/tempo/api/status/buildinfo", get(buildinfo))
        .route("/tempo/api/traces/{trace_id}", get(trace_v1))
        .route("/tempo/api/v2/traces/{trace_id}", get(trace_v2))
        .route("/tempo/api/search", get(search))
        .route("/tempo/api/search/tags", get(tags_v1))
        .route("/tempo/api/v2/search/tags", get(tags_v2))
        .route(
            "/tempo/api/search/tag/{tag}/values",
            get(async |state, tag, headers, query| values(state, tag, headers, query, tags::values_v1).await),
        )
        .route(
            "/tempo/api/v2/search/tag/{tag}/values",
            get(async |state, tag, headers, query| values(state, tag, headers, query, tags::values_v2).await),
        )
        .route("/tempo/api/metrics/{name}", get(metrics))
}

/// A failure: Tempo answers with plain text.
#[derive(Debug)]
struct Failed(Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0.status, self.0.message).into_response()
    }
}

/// Says what may be missing, and that such a reply is not to be kept.
fn marked(mut response: Response, incomplete: &[String]) -> Response {
    if incomplete.is_empty() {
        return response;
    }
    let text: String = incomplete.join("; ").chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    let warning = format!("199 oteld \"{}\"", text.replace(['"', '\\'], "'"));
    let headers = response.headers_mut();
    if let Ok(warning) = HeaderValue::from_str(&warning) {
        headers.insert(header::WARNING, warning);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn buildinfo() -> Response {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
    .into_response()
}

/// The spans of one trace that start in the range that the request gives, if any.
async fn found_trace(
    state: &ReadState,
    trace_id: &str,
    headers: &HeaderMap,
    query: RawQuery,
) -> Result<Found<otlp::Trace>, Failed> {
    let trace_id = traces::trace_id(trace_id)?;
    let time = search::time(&Params::parse(query)?)?;
    let mut found = traces::by_id(state, &tenant_of(headers)?, [trace_id].into(), time).await?;
    match found.value.remove(&trace_id) {
        Some(rows) => Ok(Found {
            value: otlp::trace(&rows),
            incomplete: found.incomplete,
            bytes_scanned: found.bytes_scanned,
        }),
        None => Err(Failure::of_missing_trace(&found.incomplete).into()),
    }
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains(PROTOBUF))
}

fn protobuf(message: &impl Message) -> Response {
    ([(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
}

/// `tempopb.Trace`, whose only field is called `batches` in JSON here, as it was when this version was current.
async fn trace_v1(
    State(state): State<ReadState>,
    Path(trace_id): Path<String>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let found = found_trace(&state, &trace_id, &headers, query).await?;
    let mut response = if wants_protobuf(&headers) {
        protobuf(&found.value)
    } else {
        let batches: Vec<_> = found.value.resource_spans.iter().map(json::resource_spans).collect();
        Json(json!({ "batches": batches })).into_response()
    };
    if !found.incomplete.is_empty() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(marked(response, &found.incomplete))
}

/// `tempopb.TraceByIDResponse`
async fn trace_v2(
    State(state): State<ReadState>,
    Path(trace_id): Path<String>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let found = found_trace(&state, &trace_id, &headers, query).await?;
    let partial = !found.incomplete.is_empty();
    let message = found.incomplete.join("; ");
    let response = if wants_protobuf(&headers) {
        let status = if partial { PartialStatus::Partial } else { PartialStatus::Complete };
        protobuf(&TraceByIdResponse {
            trace: Some(found.value),
            metrics: Some(TraceByIdMetrics {}),
            status: status.into(),
            message,
        })
    } else {
        let spans: Vec<_> = found.value.resource_spans.iter().map(json::resource_spans).collect();
        let mut body = json!({ "trace": { "resourceSpans": spans }, "metrics": {} });
        if partial {
            body["status"] = "PARTIAL".into();
            body["message"] = message.into();
        }
        Json(body).into_response()
    };
    Ok(marked(response, &found.incomplete))
}

async fn search(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let params = Params::parse(query)?;
    let request = search::search_request(&params, &state.limits)?;
    let found = traces::search(&state, &tenant_of(&headers)?, request).await?;
    // Tempo's reply has no word for a partial result, and Grafana shows no headers. "No traces" would be a lie, so it is
    // an error; traces that were found are not withheld, with the status that Tempo gives a partial trace.
    let is_partial = !found.incomplete.is_empty();
    if is_partial && found.value.traces.is_empty() {
        let message = found.incomplete.join("; ");
        return Err(Failure { status: StatusCode::SERVICE_UNAVAILABLE, message }.into());
    }
    let body = search::response(&found, params.get("q").is_some());
    let mut response = Json(body).into_response();
    if is_partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(marked(response, &found.incomplete))
}

async fn names(
    state: &ReadState,
    headers: &HeaderMap,
    params: &Params,
    request: Option<NamesRequest>,
) -> Result<Found<NamesReply>, Failed> {
    match request {
        Some(request) => Ok(traces::names(state, &tenant_of(headers)?, request, tags::limit(params)?).await?),
        None => Ok(Found::default()),
    }
}

async fn tags_v1(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let params = Params::parse(query)?;
    let query = tags::tags_query(&params)?;
    let only_intrinsics = query.request.is_none();
    let found = names(&state, &headers, &params, query.request).await?;
    Ok(marked(Json(tags::tags_v1(found.value, only_intrinsics)).into_response(), &found.incomplete))
}

async fn tags_v2(
    State(state): State<ReadState>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Failed> {
    let params = Params::parse(query)?;
    let query = tags::tags_query(&params)?;
    let found = names(&state, &headers, &params, query.request).await?;
    Ok(marked(Json(tags::tags_v2(found.value, query.with_intrinsics)).into_response(), &found.incomplete))
}

/// Values of a tag in the shape of one of the versions.
async fn values(
    State(state): State<ReadState>,
    Path(tag): Path<String>,
    headers: HeaderMap,
    query: RawQuery,
    shape: fn(NamesReply) -> serde_json::Value,
) -> Result<Response, Failed> {
    let params = Params::parse(query)?;
    let request = tags::values_request(&tag, &params, &state.limits)?;
    let found = names(&state, &headers, &params, Some(request)).await?;
    Ok(marked(Json(shape(found.value)).into_response(), &found.incomplete))
}

async fn metrics(Path(name): Path<String>) -> Failed {
    QueryError::not_supported(format!("TraceQL metrics (/api/metrics/{name})")).into()
}
