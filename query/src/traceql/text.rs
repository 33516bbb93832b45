//! Attribute values as text, the way OpenTelemetry's Collector writes them (`pcommon.Value.AsString`).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oteld_store::model::AnyValue;

/// A value as text: strings as they are, arrays and maps as JSON, bytes as base64.
pub fn value_text(value: &AnyValue) -> Cow<'_, str> {
    match value {
        AnyValue::Empty => Cow::Borrowed(""),
        AnyValue::String(text) => Cow::Borrowed(text),
        AnyValue::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        AnyValue::Int(value) => Cow::Owned(value.to_string()),
        AnyValue::Double(value) => Cow::Owned(value.to_string()),
        AnyValue::Bytes(bytes) => Cow::Owned(BASE64.encode(bytes)),
        AnyValue::Array(_) | AnyValue::KeyValues(_) => Cow::Owned(value_json(value).to_string()),
    }
}

fn value_json(value: &AnyValue) -> serde_json::Value {
    match value {
        AnyValue::Empty => serde_json::Value::Null,
        AnyValue::String(text) => serde_json::Value::from(&**text),
        AnyValue::Bool(value) => serde_json::Value::from(*value),
        AnyValue::Int(value) => serde_json::Value::from(*value),
        AnyValue::Double(value) => serde_json::Value::from(*value),
        AnyValue::Bytes(bytes) => serde_json::Value::from(BASE64.encode(bytes)),
        AnyValue::Array(values) => values.iter().map(value_json).collect(),
        AnyValue::KeyValues(pairs) => {
            pairs.iter().map(|(key, value)| (key.to_owned(), value_json(value))).collect()
        }
    }
}
