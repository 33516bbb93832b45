//! Traces as Tempo's protobuf messages, which hold OTLP's (tempo `pkg/tempopb/tempo.proto`).

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use oteld_store::model::{self, SpanRow, StreamId};
use prost::Message;

/// `tempopb.Trace`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Trace {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// `tempopb.TraceByIDResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) trace: Option<Trace>,
    #[prost(message, optional, tag = "2")]
    pub(super) metrics: Option<TraceByIdMetrics>,
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub(super) status: i32,
    #[prost(string, tag = "4")]
    pub(super) message: String,
}

/// `tempopb.TraceByIDMetrics`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TraceByIdMetrics {}

/// `tempopb.PartialStatus`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum PartialStatus {
    Complete = 0,
    Partial = 1,
}

/// Groups spans by resource and scope, each in order of its first span.
pub(super) fn trace(rows: &[SpanRow]) -> Trace {
    let mut groups: Vec<(&model::Resource, ResourceSpans)> = Vec::new();
    let mut places: BTreeMap<StreamId, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let (group, scope) = *places.entry(row.stream.id).or_insert_with(|| {
            let resource = &*row.stream.resource;
            let group = groups.iter().position(|(known, _)| *known == resource).unwrap_or_else(|| {
                groups.push((resource, resource_spans(resource)));
                groups.len() - 1
            });
            let scopes = &mut groups[group].1.scope_spans;
            scopes.push(scope_spans(&row.stream.scope));
            (group, scopes.len() - 1)
        });
        groups[group].1.scope_spans[scope].spans.push(otlp_span(&row.span));
    }
    Trace { resource_spans: groups.into_iter().map(|(_, spans)| spans).collect() }
}

fn resource_spans(resource: &model::Resource) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: key_values(&resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            ..Resource::default()
        }),
        scope_spans: Vec::new(),
        schema_url: resource.schema_url.to_string(),
    }
}

fn scope_spans(scope: &model::Scope) -> ScopeSpans {
    ScopeSpans {
        scope: Some(InstrumentationScope {
            name: scope.name.to_string(),
            version: scope.version.to_string(),
            attributes: key_values(&scope.attributes),
            dropped_attributes_count: scope.dropped_attributes_count,
        }),
        spans: Vec::new(),
        schema_url: scope.schema_url.to_string(),
    }
}

fn otlp_span(row: &model::Span) -> Span {
    let parent = row.parent_span_id;
    Span {
        trace_id: row.trace_id.to_vec(),
        span_id: row.span_id.to_vec(),
        trace_state: row.trace_state.to_string(),
        parent_span_id: if parent == [0; 8] { Vec::new() } else { parent.to_vec() },
        flags: row.flags,
        name: row.name.to_string(),
        kind: i32::from(row.kind),
        start_time_unix_nano: row.start_time_unix_nano,
        end_time_unix_nano: row.end_time_unix_nano,
        attributes: key_values(&row.attributes),
        dropped_attributes_count: row.dropped_attributes_count,
        events: row.events.iter().map(event).collect(),
        dropped_events_count: row.dropped_events_count,
        links: row.links.iter().map(link).collect(),
        dropped_links_count: row.dropped_links_count,
        status: Some(Status { message: row.status_message.to_string(), code: i32::from(row.status_code) }),
    }
}

fn event(event: &model::SpanEvent) -> span::Event {
    span::Event {
        time_unix_nano: event.time_unix_nano,
        name: event.name.to_string(),
        attributes: key_values(&event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link(link: &model::SpanLink) -> span::Link {
    span::Link {
        trace_id: link.trace_id.to_vec(),
        span_id: link.span_id.to_vec(),
        trace_state: link.trace_state.to_string(),
        attributes: key_values(&link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    }
}

fn key_values(attributes: &model::Attributes) -> Vec<KeyValue> {
    attributes.iter().map(|(key, value)| key_value(key, value)).collect()
}

/// One attribute.
pub(super) fn key_value(key: &str, value: &model::AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any_value(value)), ..KeyValue::default() }
}

fn any_value(value: &model::AnyValue) -> AnyValue {
    let value = match value {
        model::AnyValue::Empty => None,
        model::AnyValue::String(text) => Some(Value::StringValue(text.to_string())),
        model::AnyValue::Bool(value) => Some(Value::BoolValue(*value)),
        model::AnyValue::Int(value) => Some(Value::IntValue(*value)),
        model::AnyValue::Double(value) => Some(Value::DoubleValue(*value)),
        model::AnyValue::Bytes(bytes) => Some(Value::BytesValue(bytes.to_vec())),
        model::AnyValue::Array(values) => {
            Some(Value::ArrayValue(ArrayValue { values: values.iter().map(any_value).collect() }))
        }
        model::AnyValue::KeyValues(pairs) => {
            Some(Value::KvlistValue(KeyValueList { values: key_values(pairs) }))
        }
    };
    AnyValue { value }
}
