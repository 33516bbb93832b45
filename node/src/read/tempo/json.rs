//! OTLP messages in the protobuf JSON mapping, as Tempo writes it: zero values are left out, 64-bit integers are
//! strings, enums are names, and ids are base64 like all bytes (unlike OTLP/JSON, where they are hexadecimal).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use serde_json::{Map, Value as Json, json};

/// A JSON object that keeps protobuf's rule: what is zero is not there.
#[derive(Default)]
struct Object(Map<String, Json>);

impl Object {
    fn with(mut self, key: &str, value: Json) -> Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    fn text(self, key: &str, text: &str) -> Self {
        if text.is_empty() { self } else { self.with(key, text.into()) }
    }

    fn bytes(self, key: &str, bytes: &[u8]) -> Self {
        self.text(key, &BASE64.encode(bytes))
    }

    fn u32(self, key: &str, number: u32) -> Self {
        if number == 0 { self } else { self.with(key, number.into()) }
    }

    fn u64(self, key: &str, number: u64) -> Self {
        if number == 0 { self } else { self.with(key, number.to_string().into()) }
    }

    fn list<T>(self, key: &str, items: &[T], json: impl Fn(&T) -> Json) -> Self {
        if items.is_empty() { self } else { self.with(key, items.iter().map(json).collect()) }
    }

    fn done(self) -> Json {
        Json::Object(self.0)
    }
}

/// One `ResourceSpans`.
pub(super) fn resource_spans(spans: &ResourceSpans) -> Json {
    Object::default()
        .with("resource", resource(spans.resource.as_ref().unwrap_or(&Resource::default())))
        .list("scopeSpans", &spans.scope_spans, scope_spans)
        .text("schemaUrl", &spans.schema_url)
        .done()
}

fn resource(resource: &Resource) -> Json {
    Object::default()
        .list("attributes", &resource.attributes, key_value)
        .u32("droppedAttributesCount", resource.dropped_attributes_count)
        .done()
}

fn scope_spans(spans: &ScopeSpans) -> Json {
    Object::default()
        .with("scope", scope(spans.scope.as_ref().unwrap_or(&InstrumentationScope::default())))
        .list("spans", &spans.spans, span)
        .text("schemaUrl", &spans.schema_url)
        .done()
}

fn scope(scope: &InstrumentationScope) -> Json {
    Object::default()
        .text("name", &scope.name)
        .text("version", &scope.version)
        .list("attributes", &scope.attributes, key_value)
        .u32("droppedAttributesCount", scope.dropped_attributes_count)
        .done()
}

fn span(span: &Span) -> Json {
    let object = Object::default()
        .bytes("traceId", &span.trace_id)
        .bytes("spanId", &span.span_id)
        .text("traceState", &span.trace_state)
        .bytes("parentSpanId", &span.parent_span_id)
        .u32("flags", span.flags)
        .text("name", &span.name);
    let object = match span::SpanKind::try_from(span.kind) {
        Ok(span::SpanKind::Unspecified) => object,
        Ok(kind) => object.with("kind", kind.as_str_name().into()),
        Err(_) => object.with("kind", span.kind.into()),
    };
    object
        .u64("startTimeUnixNano", span.start_time_unix_nano)
        .u64("endTimeUnixNano", span.end_time_unix_nano)
        .list("attributes", &span.attributes, key_value)
        .u32("droppedAttributesCount", span.dropped_attributes_count)
        .list("events", &span.events, event)
        .u32("droppedEventsCount", span.dropped_events_count)
        .list("links", &span.links, link)
        .u32("droppedLinksCount", span.dropped_links_count)
        .with("status", status(span.status.as_ref().unwrap_or(&Status::default())))
        .done()
}

fn status(status: &Status) -> Json {
    let object = Object::default().text("message", &status.message);
    match status.code {
        0 => object,
        1 => object.with("code", "STATUS_CODE_OK".into()),
        2 => object.with("code", "STATUS_CODE_ERROR".into()),
        code => object.with("code", code.into()),
    }
    .done()
}

fn event(event: &span::Event) -> Json {
    Object::default()
        .u64("timeUnixNano", event.time_unix_nano)
        .text("name", &event.name)
        .list("attributes", &event.attributes, key_value)
        .u32("droppedAttributesCount", event.dropped_attributes_count)
        .done()
}

fn link(link: &span::Link) -> Json {
    Object::default()
        .bytes("traceId", &link.trace_id)
        .bytes("spanId", &link.span_id)
        .text("traceState", &link.trace_state)
        .list("attributes", &link.attributes, key_value)
        .u32("droppedAttributesCount", link.dropped_attributes_count)
        .u32("flags", link.flags)
        .done()
}

/// One attribute.
pub(super) fn key_value(pair: &KeyValue) -> Json {
    let value = pair.value.as_ref().map_or_else(|| json!({}), any_value);
    Object::default().text("key", &pair.key).with("value", value).done()
}

fn any_value(value: &AnyValue) -> Json {
    match &value.value {
        None | Some(Value::StringValueStrindex(_)) => json!({}),
        Some(Value::StringValue(text)) => json!({ "stringValue": text }),
        Some(Value::BoolValue(value)) => json!({ "boolValue": value }),
        Some(Value::IntValue(value)) => json!({ "intValue": value.to_string() }),
        Some(Value::DoubleValue(value)) => json!({ "doubleValue": double(*value) }),
        Some(Value::BytesValue(bytes)) => json!({ "bytesValue": BASE64.encode(bytes) }),
        Some(Value::ArrayValue(array)) => {
            json!({ "arrayValue": Object::default().list("values", &array.values, any_value).done() })
        }
        Some(Value::KvlistValue(list)) => {
            json!({ "kvlistValue": Object::default().list("values", &list.values, key_value).done() })
        }
    }
}

/// JSON has no number for these three.
fn double(value: f64) -> Json {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        value.into()
    }
}
