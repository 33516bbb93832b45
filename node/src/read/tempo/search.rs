//! Tempo's trace search: its parameters, and its reply. Grafana reads the reply with strict protobuf JSON, so
//! that it has no other fields than `tempopb.SearchResponse`.

use std::collections::BTreeMap;
use std::ops::Range;

use oteld_query::traceql::ast::{AttributeScope, Expr, Field, Op, STATUS_NAMES, Spanset, Value};
use oteld_query::traceql::duration::parse_duration;
use oteld_query::traceql::search::SPANS_PER_TRACE_MAX;
use oteld_query::traceql::{self, SearchReply, SearchRequest, SpanSummary, TraceSummary};
use oteld_query::{Limits, QueryError};
use serde::Serialize;
use serde_json::Value as Json;

use super::{json, logfmt, otlp};
use crate::read::traces::{EVER, Found, Params};

/// Traces that are found when no limit is given.
const LIMIT: usize = 20;

/// Spans that each of them shows when the request does not say.
const SPANS_PER_SPAN_SET: usize = 3;

/// Tempo's word for a root that it does not have.
const NO_ROOT: &str = "<root span not yet received>";

/// Parameters that are no tags, where tags are given as parameters of their own.
const RESERVED: [&str; 8] = ["q", "tags", "minDuration", "maxDuration", "limit", "spss", "start", "end"];

/// `tempopb.SearchResponse`
#[derive(Debug, Serialize)]
pub(super) struct SearchResponse {
    traces: Vec<TraceSearchMetadata>,
    metrics: SearchMetrics,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceSearchMetadata {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_service_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_trace_name: String,
    start_time_unix_nano: String,
    #[serde(skip_serializing_if = "is_zero")]
    duration_ms: u32,
    /// The first of `span_sets`; deprecated, and still read.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_set: Option<SpanSet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    span_sets: Vec<SpanSet>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Clone, Debug, Serialize)]
struct SpanSet {
    spans: Vec<Span>,
    matched: u32,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    start_time_unix_nano: String,
    duration_nanos: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Json>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchMetrics {
    #[serde(skip_serializing_if = "is_zero")]
    inspected_traces: u32,
    inspected_bytes: String,
    /// Fewer than `total_jobs` when the result may miss traces.
    #[serde(skip_serializing_if = "is_zero")]
    completed_jobs: u32,
    total_jobs: u32,
}

/// Reads the parameters of a search.
pub(super) fn search_request(params: &Params, limits: &Limits) -> Result<SearchRequest, QueryError> {
    let query = match (params.get("q"), params.get("tags")) {
        (Some(_), Some(_)) => return Err(QueryError::bad("q and tags cannot both be given")),
        (Some(query), None) => Some(traceql::parse(query, limits.query_length_max)?),
        (None, Some(_)) | (None, None) => None,
    };
    let shown = match query {
        Some(_) => params.read("spss", str::parse::<usize>)?.unwrap_or(SPANS_PER_SPAN_SET),
        None => 0,
    };
    let query = match query {
        Some(query) => query,
        None => tagged(tags(params)?),
    };
    let shortest = params.read("minDuration", duration)?.unwrap_or(0);
    // Zero is "not set" in Tempo.
    let longest = params.read("maxDuration", duration)?.filter(|nanos| *nanos > 0).unwrap_or(u64::MAX);
    if longest < shortest {
        return Err(QueryError::bad("invalid maxDuration: must be greater than minDuration"));
    }
    let limit = params.read("limit", str::parse::<usize>)?.unwrap_or(LIMIT);
    if limit == 0 {
        return Err(QueryError::bad("invalid limit: must be a positive number"));
    }
    Ok(SearchRequest {
        query,
        time_unix_nano: time(params)?,
        trace_duration_nanos: (shortest, longest),
        limit,
        // Zero asks for all of them.
        spans_per_trace: if shown == 0 && params.get("q").is_some() { SPANS_PER_TRACE_MAX } else { shown },
    })
}

/// `start` and `end` in seconds, both included; all of time where they are not given.
pub(super) fn time(params: &Params) -> Result<Range<u64>, QueryError> {
    let seconds = |text: &str| text.parse::<u64>();
    let start = params.read("start", seconds)?.filter(|start| *start > 0);
    let end = params.read("end", seconds)?.filter(|end| *end > 0);
    if let (Some(start), Some(end)) = (start, end)
        && start >= end
    {
        return Err(QueryError::bad(format!(
            "http parameter start must be before end. received start={start} end={end}"
        )));
    }
    let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    Ok(start.map_or(EVER.start, nanos)..end.map_or(EVER.end, |end| nanos(end.saturating_add(1))))
}

/// Nanoseconds of a duration that is not negative.
fn duration(text: &str) -> Result<u64, QueryError> {
    u64::try_from(parse_duration(text)?).map_err(|_| QueryError::bad("a duration cannot be negative"))
}

/// The tags of `tags`, else of all parameters that have no other meaning: older Grafana sends them so.
fn tags(params: &Params) -> Result<BTreeMap<String, String>, QueryError> {
    match params.get("tags") {
        Some(text) => logfmt::tags(text),
        None => Ok(params
            .0
            .iter()
            .filter(|(key, value)| !RESERVED.contains(&key.as_str()) && !value.is_empty())
            .cloned()
            .collect()),
    }
}

/// Traces that have all tags, on whichever of their spans. Columns that Tempo knows by name match parts of their
/// values, other attributes whole values (tempo `tempodb/encoding/vparquet*/block_search.go`).
fn tagged(tags: BTreeMap<String, String>) -> Spanset {
    let mut filters: Vec<Spanset> =
        tags.into_iter().map(|(key, value)| Spanset::Filter(tag(key, value))).collect();
    match filters.len() {
        0 => Spanset::all(),
        1 => filters.remove(0),
        _ => Spanset::And(filters),
    }
}

fn tag(key: String, value: String) -> Expr {
    const PARTIAL: [&str; 10] = [
        "service.name",
        "cluster",
        "namespace",
        "pod",
        "container",
        "k8s.cluster.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.container.name",
        "http.url",
    ];
    let status =
        |code: usize| Expr::Compare { field: Field::Status, op: Op::Eq, value: Value::Status(code as u8) };
    match key.as_str() {
        "name" | "span.name" => Expr::contains(Field::Name, &value),
        "root.name" => Expr::contains(Field::RootName, &value),
        "root.service.name" => Expr::contains(Field::RootServiceName, &value),
        "status.code" => {
            STATUS_NAMES.iter().position(|name| *name == value).map_or(Expr::Const(false), status)
        }
        "error" if value == "true" => Expr::Or(vec![status(2), Expr::Text { key, value }]),
        "http.method" => Expr::contains(Field::Attribute { scope: AttributeScope::Any, key }, &value),
        _ if PARTIAL.contains(&key.as_str()) => {
            Expr::contains(Field::Attribute { scope: AttributeScope::Any, key }, &value)
        }
        _ => Expr::Text { key, value },
    }
}

/// The reply; `with_spans` where the search was by TraceQL.
pub(super) fn response(found: &Found<SearchReply>, with_spans: bool) -> SearchResponse {
    let mut traces: Vec<&TraceSummary> = found.value.traces.iter().collect();
    traces.sort_by_key(|trace| (std::cmp::Reverse(trace.start_unix_nano), trace.trace_id));
    SearchResponse {
        traces: traces.into_iter().map(|trace| metadata(trace, with_spans)).collect(),
        metrics: SearchMetrics {
            inspected_traces: saturated(found.value.inspected_traces),
            inspected_bytes: found.bytes_scanned.to_string(),
            completed_jobs: u32::from(found.incomplete.is_empty()),
            total_jobs: 1,
        },
    }
}

fn saturated(number: u64) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

fn metadata(trace: &TraceSummary, with_spans: bool) -> TraceSearchMetadata {
    let span_set = with_spans.then(|| SpanSet {
        spans: trace.spans.iter().map(span).collect(),
        matched: saturated(trace.matched),
    });
    let root = trace.root.as_ref();
    TraceSearchMetadata {
        // Tempo leaves out leading zeros.
        trace_id: hex::encode(trace.trace_id).trim_start_matches('0').to_owned(),
        root_service_name: root.map_or(NO_ROOT, |root| &root.service_name).to_owned(),
        root_trace_name: root.map(|root| root.name.clone()).unwrap_or_default(),
        start_time_unix_nano: trace.start_unix_nano.to_string(),
        duration_ms: saturated(trace.duration_nanos / 1_000_000),
        span_sets: span_set.clone().into_iter().collect(),
        span_set,
    }
}

fn span(span: &SpanSummary) -> Span {
    Span {
        span_id: hex::encode(span.span_id),
        name: span.name.clone(),
        start_time_unix_nano: span.start_unix_nano.to_string(),
        duration_nanos: span.duration_nanos.to_string(),
        attributes: span
            .attributes
            .iter()
            .map(|(key, value)| json::key_value(&otlp::key_value(key, value)))
            .collect(),
    }
}
