//! Attribute values as text, the same in all languages: as OpenTelemetry's Collector writes them
//! (`pcommon.Value.AsString`), with numbers as Go writes them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oteld_store::model::AnyValue;

use crate::promql::number::format_sample;

/// A value as text: strings as they are, arrays and maps as JSON with sorted keys, bytes as base64.
pub fn value_text(value: &AnyValue) -> Cow<'_, str> {
    match value {
        AnyValue::Empty => Cow::Borrowed(""),
        AnyValue::String(text) => Cow::Borrowed(text),
        AnyValue::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        AnyValue::Int(value) => Cow::Owned(value.to_string()),
        AnyValue::Double(value) => Cow::Owned(double_text(*value)),
        AnyValue::Bytes(bytes) => Cow::Owned(BASE64.encode(bytes)),
        AnyValue::Array(_) | AnyValue::KeyValues(_) => {
            let mut json = String::new();
            write_json(value, &mut json);
            Cow::Owned(json)
        }
    }
}

fn double_text(value: f64) -> String {
    let text = format_sample(value);
    // Go's JSON encoder writes e-9 where strconv writes e-09.
    if value.abs() < 1e-6 { text.replace("e-0", "e-") } else { text }
}

fn write_json(value: &AnyValue, json: &mut String) {
    match value {
        AnyValue::Empty => json.push_str("null"),
        AnyValue::Bool(_) | AnyValue::Int(_) => json.push_str(&value_text(value)),
        AnyValue::Double(double) if double.is_finite() => json.push_str(&value_text(value)),
        // JSON has no infinities; a string keeps what was sent.
        AnyValue::Double(_) | AnyValue::String(_) | AnyValue::Bytes(_) => {
            write_string(&value_text(value), json);
        }
        AnyValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                json.push(if index == 0 { '[' } else { ',' });
                write_json(value, json);
            }
            json.push_str(if values.is_empty() { "[]" } else { "]" });
        }
        AnyValue::KeyValues(attributes) => {
            let sorted: BTreeMap<&str, &AnyValue> = attributes.iter().collect();
            for (index, (key, value)) in sorted.iter().enumerate() {
                json.push(if index == 0 { '{' } else { ',' });
                write_string(key, json);
                json.push(':');
                write_json(value, json);
            }
            json.push_str(if sorted.is_empty() { "{}" } else { "}" });
        }
    }
}

fn write_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use oteld_store::model::Attributes;

    use super::*;

    #[test]
    fn values_become_text_as_in_the_collector() {
        let doubles = AnyValue::Array(
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, 2.5e22, 1e-9].map(AnyValue::Double).to_vec(),
        );
        let map = AnyValue::KeyValues(Attributes(vec![
            (
                "b".into(),
                AnyValue::Array(vec![AnyValue::Empty, true.into(), AnyValue::Bytes(b"hi"[..].into())]),
            ),
            ("a\"".into(), AnyValue::from("x\n")),
            ("c".into(), AnyValue::KeyValues(Attributes::default())),
            ("d".into(), AnyValue::Array(Vec::new())),
        ]));
        let cases = [
            (AnyValue::Empty, ""),
            (AnyValue::Bytes(b"hello"[..].into()), "aGVsbG8="),
            (AnyValue::Array(vec![1.into(), "a".into(), true.into()]), r#"[1,"a",true]"#),
            (AnyValue::Double(1e-9), "1e-9"),
            (AnyValue::Double(f64::NEG_INFINITY), "-Inf"),
            (AnyValue::Double(0.5), "0.5"),
            (doubles, r#"["NaN","+Inf","-Inf",1,2.5e+22,1e-9]"#),
            (map, r#"{"a\"":"x\n","b":[null,true,"aGk="],"c":{},"d":[]}"#),
        ];
        for (value, text) in cases {
            assert_eq!(value_text(&value), text);
            if let AnyValue::Array(_) | AnyValue::KeyValues(_) = value {
                serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
            }
        }
    }
}
