//! Jaeger's JSON: its UI model (jaeger `model/json`), with spans translated as the OpenTelemetry Collector's
//! `jaegertranslator` does.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oteld_query::text::value_text;
use oteld_query::traceql::ast::kind_name;
use oteld_query::traceql::trace::{SERVICE_NAME, duration_nanos, service_name};
use oteld_store::model::{AnyValue, Attributes, Resource, SpanEvent, SpanRow, StreamId};
use serde::Serialize;
use serde_json::Value as Json;

/// The service of resources that name none, as the Collector calls it.
pub(super) const NO_SERVICE_NAME: &str = "OTLPResourceNoServiceName";

/// Integers up to here are exact in JavaScript; larger ones are written as strings.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// What every endpoint answers.
#[derive(Debug, Serialize)]
pub(super) struct Response<T> {
    pub(super) data: T,
    pub(super) total: usize,
    pub(super) limit: usize,
    pub(super) offset: usize,
    /// `null` where there are none.
    pub(super) errors: Option<Vec<ResponseError>>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ResponseError {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    pub(super) msg: String,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Operation {
    pub(super) name: String,
    #[serde(rename = "spanKind")]
    pub(super) span_kind: &'static str,
}

/// Calls from one service to another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DependencyLink {
    pub(super) parent: String,
    pub(super) child: String,
    pub(super) call_count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<Span>,
    processes: BTreeMap<String, Process>,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    operation_name: String,
    references: Vec<Reference>,
    /// Microseconds since the Unix epoch.
    start_time: u64,
    /// Microseconds.
    duration: u64,
    tags: Vec<Tag>,
    logs: Vec<Log>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<Vec<String>>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Serialize)]
struct Reference {
    #[serde(rename = "refType")]
    kind: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Tag {
    key: String,
    #[serde(rename = "type")]
    kind: &'static str,
    value: Json,
}

#[derive(Debug, Serialize)]
struct Log {
    /// Microseconds since the Unix epoch.
    timestamp: u64,
    fields: Vec<Tag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    tags: Vec<Tag>,
}

/// A trace id as Jaeger writes it: 16 digits where the upper half is zero.
pub(super) fn trace_id_text(trace_id: &[u8; 16]) -> String {
    let start = if trace_id[..8] == [0; 8] { 8 } else { 0 };
    hex::encode(&trace_id[start..])
}

/// The service of a resource in Jaeger's words.
pub(super) fn jaeger_service(name: &str) -> &str {
    if name.is_empty() { NO_SERVICE_NAME } else { name }
}

/// The kind of a span in Jaeger's words: empty where it has none.
pub(super) fn jaeger_kind(kind: u8) -> &'static str {
    if (1..=5).contains(&kind) { kind_name(kind) } else { "" }
}

/// A trace of at least one span.
pub(super) fn trace(rows: &[SpanRow]) -> Trace {
    let mut processes: Vec<&Resource> = Vec::new();
    let mut process_of: BTreeMap<StreamId, usize> = BTreeMap::new();
    let mut spans = Vec::with_capacity(rows.len());
    for row in rows {
        let resource = &*row.stream.resource;
        let index = *process_of.entry(row.stream.id).or_insert_with(|| {
            processes.iter().position(|known| known.attributes == resource.attributes).unwrap_or_else(|| {
                processes.push(resource);
                processes.len() - 1
            })
        });
        spans.push(span(row, process_id(index)));
    }
    Trace {
        trace_id: rows.first().map(|row| trace_id_text(&row.span.trace_id)).unwrap_or_default(),
        spans,
        processes: processes.iter().enumerate().map(|(i, r)| (process_id(i), process(r))).collect(),
        warnings: None,
    }
}

fn process_id(index: usize) -> String {
    format!("p{}", index + 1)
}

fn process(resource: &Resource) -> Process {
    let others = resource.attributes.iter().filter(|(key, _)| *key != SERVICE_NAME);
    Process {
        service_name: jaeger_service(service_name(resource)).to_owned(),
        tags: others.map(|(key, value)| tag(key, value)).collect(),
    }
}

fn span(row: &SpanRow, process_id: String) -> Span {
    let span = &row.span;
    Span {
        trace_id: trace_id_text(&span.trace_id),
        span_id: hex::encode(span.span_id),
        // The lower byte is W3C's trace flags; Jaeger knows no others.
        flags: span.flags & 0xff,
        operation_name: span.name.to_string(),
        references: references(row),
        start_time: span.start_time_unix_nano / 1000,
        duration: duration_nanos(row) / 1000,
        tags: span_tags(row),
        logs: span.events.iter().map(log).collect(),
        process_id,
        warnings: None,
    }
}

fn references(row: &SpanRow) -> Vec<Reference> {
    let reference = |kind, trace_id: &[u8; 16], span_id: &[u8; 8]| Reference {
        kind,
        trace_id: trace_id_text(trace_id),
        span_id: hex::encode(span_id),
    };
    let span = &row.span;
    let parent =
        (span.parent_span_id != [0; 8]).then(|| reference("CHILD_OF", &span.trace_id, &span.parent_span_id));
    let links = span.links.iter().map(|link| {
        let child_of = link.attributes.get_str("opentracing.ref_type") == Some("child_of");
        reference(if child_of { "CHILD_OF" } else { "FOLLOWS_FROM" }, &link.trace_id, &link.span_id)
    });
    parent.into_iter().chain(links).collect()
}

/// Scope first, then attributes, then what OTLP has fields for: the Collector's order.
fn span_tags(row: &SpanRow) -> Vec<Tag> {
    let span = &row.span;
    let mut tags = Vec::with_capacity(span.attributes.len() + 6);
    let text = |tags: &mut Vec<Tag>, key: &str, value: &str| {
        if !value.is_empty() {
            tags.push(tag(key, &AnyValue::from(value)));
        }
    };
    text(&mut tags, "otel.scope.name", &row.stream.scope.name);
    text(&mut tags, "otel.scope.version", &row.stream.scope.version);
    tags.extend(attribute_tags(&span.attributes));
    text(&mut tags, "span.kind", jaeger_kind(span.kind));
    match span.status_code {
        1 => text(&mut tags, "otel.status_code", "OK"),
        2 => {
            text(&mut tags, "otel.status_code", "ERROR");
            tags.push(tag("error", &AnyValue::Bool(true)));
        }
        _ => {}
    }
    text(&mut tags, "otel.status_description", &span.status_message);
    text(&mut tags, "w3c.tracestate", &span.trace_state);
    tags
}

fn attribute_tags(attributes: &Attributes) -> impl Iterator<Item = Tag> {
    attributes.iter().map(|(key, value)| tag(key, value))
}

fn log(event: &SpanEvent) -> Log {
    let named = event.attributes.get("event").is_some();
    let name =
        (!named && !event.name.is_empty()).then(|| tag("event", &AnyValue::String(event.name.clone())));
    Log {
        timestamp: event.time_unix_nano / 1000,
        fields: name.into_iter().chain(attribute_tags(&event.attributes)).collect(),
    }
}

fn tag(key: &str, value: &AnyValue) -> Tag {
    let (kind, value) = match value {
        AnyValue::Bool(value) => ("bool", Json::from(*value)),
        AnyValue::Int(value) if value.unsigned_abs() > SAFE_INTEGER_MAX => {
            ("int64", value.to_string().into())
        }
        AnyValue::Int(value) => ("int64", Json::from(*value)),
        AnyValue::Double(value) if !value.is_finite() => ("float64", value.to_string().into()),
        AnyValue::Double(value) => ("float64", Json::from(*value)),
        AnyValue::Bytes(bytes) => ("binary", BASE64.encode(bytes).into()),
        value => ("string", value_text(value).into_owned().into()),
    };
    Tag { key: key.to_owned(), kind, value }
}
