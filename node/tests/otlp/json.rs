//! OTLP/JSON makes the rows that protobuf makes, and says precisely what is wrong with what is not OTLP/JSON.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use oteld::write::admit::{Admission, AdmitOptions};
use oteld::write::decode::{DecodeError, Decoded, decode_json, decode_protobuf};
use oteld::write::receive::Protocol;
use oteld_store::model::{AnyValue, PointValue, Rows, Signal, Tenant};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

use crate::generate::Choices;
use crate::oracle::REQUEST;
use crate::server::{Server, gzip};

fn decode(signal: Signal, text: &str) -> Result<Decoded, DecodeError> {
    let admission = Admission::new(AdmitOptions::default());
    decode_json(signal, &Tenant::default(), REQUEST, text.as_bytes(), &mut admission.ticket())
}

fn decode_wire(signal: Signal, message: &[u8]) -> Decoded {
    let admission = Admission::new(AdmitOptions::default());
    decode_protobuf(signal, &Tenant::default(), REQUEST, message, &mut admission.ticket()).unwrap()
}

/// The only log record of a request whose record is written as `record`.
fn log_record(record: &str) -> oteld_store::model::LogRecord {
    let text = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#);
    let Rows::Logs(mut rows) = decode(Signal::Logs, &text).unwrap().rows else { panic!("not logs") };
    assert_eq!(rows.len(), 1, "{text}");
    rows.remove(0).record
}

fn body(value: &str) -> AnyValue {
    log_record(&format!(r#"{{"timeUnixNano":1,"body":{value}}}"#)).body
}

fn example(name: &str) -> (Signal, &'static str, Vec<u8>) {
    match name {
        "metrics" => {
            let text = include_str!("examples/metrics.json");
            let request: ExportMetricsServiceRequest = serde_json::from_str(text).unwrap();
            (Signal::Metrics, text, request.encode_to_vec())
        }
        "trace" => {
            let text = include_str!("examples/trace.json");
            let request: ExportTraceServiceRequest = serde_json::from_str(text).unwrap();
            (Signal::Traces, text, request.encode_to_vec())
        }
        name => {
            let logs = include_str!("examples/logs.json");
            let text = if name == "logs" { logs } else { include_str!("examples/events.json") };
            let request: ExportLogsServiceRequest = serde_json::from_str(text).unwrap();
            (Signal::Logs, text, request.encode_to_vec())
        }
    }
}

#[test]
fn the_examples_of_opentelemetry_proto_make_the_rows_of_their_protobuf_form() {
    for (name, rows) in [("metrics", 4), ("logs", 1), ("events", 1), ("trace", 1)] {
        let (signal, text, message) = example(name);
        let decoded = decode(signal, text).unwrap();
        assert_eq!(decoded, decode_wire(signal, &message), "{name}");
        assert_eq!((decoded.rows.len(), decoded.rejection), (rows, None), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn json_makes_the_rows_that_protobuf_makes(seed: u64) {
        let mut choices = Choices { seed, finite: true };
        let metrics = choices.metrics();
        let logs = choices.logs();
        let traces = choices.traces();
        for (signal, text, message) in [
            (Signal::Metrics, serde_json::to_string(&metrics).unwrap(), metrics.encode_to_vec()),
            (Signal::Logs, serde_json::to_string(&logs).unwrap(), logs.encode_to_vec()),
            (Signal::Traces, serde_json::to_string(&traces).unwrap(), traces.encode_to_vec()),
        ] {
            let decoded = decode(signal, &text).map_err(|error| format!("{error}: {text}")).unwrap();
            prop_assert_eq!(decoded, decode_wire(signal, &message));
        }
    }

    #[test]
    fn broken_json_is_refused_and_never_more(seed: u64, cut: usize, byte: u8) {
        let mut choices = Choices { seed, finite: true };
        let mut text = serde_json::to_vec(&choices.traces()).unwrap();
        let position = cut % text.len();
        text[position] = byte;
        let admission = Admission::new(AdmitOptions::default());
        let whole = decode_json(Signal::Traces, &Tenant::default(), REQUEST, &text, &mut admission.ticket());
        if serde_json::from_slice::<serde_json::Value>(&text).is_err() {
            prop_assert!(whole.is_err());
        }
        let cut = &text[..position];
        let cut = decode_json(Signal::Traces, &Tenant::default(), REQUEST, cut, &mut admission.ticket());
        prop_assert!(cut.is_err());
    }
}

#[test]
fn integers_come_as_numbers_or_strings() {
    for number in ["1544712660300000000", "\"1544712660300000000\""] {
        let record = log_record(&format!(r#"{{"timeUnixNano":{number}}}"#));
        assert_eq!(record.time_unix_nano, 1_544_712_660_300_000_000);
    }
    assert_eq!(body(r#"{"intValue":"-9223372036854775808"}"#), AnyValue::Int(i64::MIN));
    assert_eq!(body(r#"{"intValue":9223372036854775807}"#), AnyValue::Int(i64::MAX));
    assert_eq!(body(r#"{"intValue":1.5e1}"#), AnyValue::Int(15));
    assert_eq!(log_record(r#"{"timeUnixNano":1,"flags":"7"}"#).flags, 7);
}

#[test]
fn doubles_come_as_numbers_or_as_the_three_names() {
    assert_eq!(body(r#"{"doubleValue":3}"#), AnyValue::Double(3.0));
    assert_eq!(body(r#"{"doubleValue":"-1.5e3"}"#), AnyValue::Double(-1500.0));
    assert_eq!(body(r#"{"doubleValue":"-Infinity"}"#), AnyValue::Double(f64::NEG_INFINITY));
    let AnyValue::Double(nan) = body(r#"{"doubleValue":"NaN"}"#) else { panic!("not a double") };
    assert!(nan.is_nan());
}

#[test]
fn bytes_are_base64_of_either_alphabet_and_ids_are_hex_of_any_case() {
    for text in ["+/8=", "-_8", "+/8"] {
        let value = body(&format!(r#"{{"bytesValue":"{text}"}}"#));
        assert_eq!(value, AnyValue::Bytes(vec![0xfb, 0xff].into()));
    }
    for id in ["5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c"] {
        let record = log_record(&format!(r#"{{"timeUnixNano":1,"traceId":"{id}"}}"#));
        assert_eq!(hex::encode(record.trace_id), "5b8efff798038103d269b633813fc60c");
    }
}

#[test]
fn names_may_be_snake_case_unknown_names_are_ignored_and_null_is_the_default() {
    let record = r#"{"time_unix_nano":"5","severity_text":"WARN","new":{"a":[1,{"b":null}]},"body":null,"flags":null}"#;
    let record = log_record(record);
    assert_eq!((record.time_unix_nano, &*record.severity_text), (5, "WARN"));
    assert_eq!((record.body, record.flags), (AnyValue::Empty, 0));
    let values = body(r#"{"arrayValue":{"values":[null,{"boolValue":false}]}}"#);
    assert_eq!(values, AnyValue::Array(vec![AnyValue::Empty, AnyValue::Bool(false)]));
}

#[test]
fn of_members_that_exclude_each_other_the_last_one_counts() {
    assert_eq!(body(r#"{"stringValue":"a","intValue":2}"#), AnyValue::Int(2));
    assert_eq!(body(r#"{"stringValue":"a","stringValue":"b"}"#), AnyValue::from("b"));
    let arrays = r#"{"arrayValue":{"values":[{"intValue":1},{"intValue":2}]},"arrayValue":{"values":[{"intValue":3}]}}"#;
    assert_eq!(body(arrays), AnyValue::Array(vec![AnyValue::Int(3)]));
    assert_eq!(body(r#"{"stringValue":"a","stringValue":null}"#), AnyValue::Empty);
    let record = r#"{"timeUnixNano":1,"attributes":[{"key":"a"}],"severityText":"x","attributes":[],"severityText":"y"}"#;
    let record = log_record(record);
    assert_eq!((record.attributes.len(), &*record.severity_text), (0, "y"));
}

#[test]
fn a_point_that_is_not_a_number_is_kept() {
    let text = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[
        {"timeUnixNano":"1","asDouble":"NaN"}]}}]}]}]}"#;
    let Rows::Metrics(rows) = decode(Signal::Metrics, text).unwrap().rows else { panic!("not metrics") };
    assert!(matches!(rows[0].point.value, PointValue::Double(value) if value.is_nan()));
}

#[test]
fn an_error_says_where_it_is() {
    let spans =
        |span: &str| format!(r#"{{"resourceSpans":[{{}},{{"scopeSpans":[{{"spans":[{{}},{span}]}}]}}]}}"#);
    let at = "resourceSpans[1].scopeSpans[0].spans[1]";
    for (span, message) in [
        (r#"{"traceId":"xyz"}"#, ".traceId: expected hex digits: Odd number of digits"),
        (r#"{"traceId":"zz"}"#, ".traceId: expected hex digits: Invalid character 'z' at position 0"),
        (r#"{"trace_id":7}"#, ".traceId: expected a string of hex digits"),
        (r#"{"name":7}"#, ".name: expected a string"),
        (r#"{"kind":"SPAN_KIND_SERVER"}"#, ".kind: enum names are not allowed in OTLP/JSON, send the number"),
        (r#"{"startTimeUnixNano":-1}"#, ".startTimeUnixNano: expected an unsigned 64-bit integer"),
        (r#"{"startTimeUnixNano":"1.5"}"#, ".startTimeUnixNano: expected an unsigned 64-bit integer"),
        (r#"{"startTimeUnixNano":" 1"}"#, ".startTimeUnixNano: expected an unsigned 64-bit integer"),
        (r#"{"droppedLinksCount":4294967296}"#, ".droppedLinksCount: expected an unsigned 32-bit integer"),
        (r#"{"events":{}}"#, ".events: expected an array"),
        (r#"{"events":[[]]}"#, ".events[0]: expected an object"),
        (r#"{"status":[]}"#, ".status: expected an object"),
        (
            r#"{"attributes":[{"key":"k","value":{"doubleValue":"inf"}}]}"#,
            ".attributes[0].value.doubleValue: expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
        ),
        (
            r#"{"attributes":[{"value":{"boolValue":1}}]}"#,
            ".attributes[0].value.boolValue: expected true or false",
        ),
        (
            r#"{"attributes":[{"value":{"bytesValue":"*"}}]}"#,
            ".attributes[0].value.bytesValue: expected base64",
        ),
        (r#"{"name":"a",}"#, ": there is a comma before the end"),
        (r#"NaN"#, ": this is not a JSON value"),
    ] {
        let error = decode(Signal::Traces, &spans(span)).unwrap_err().to_string();
        let expected = format!("the request is not valid OTLP/JSON: {at}{message} (at byte ");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
    for (text, message) in [
        ("", "the text ends where a value should be (at byte 0)"),
        ("[]", "the request is not an object (at byte 1)"),
        ("{} {}", "there is text after the request (at byte 3)"),
    ] {
        let error = decode(Signal::Traces, text).unwrap_err().to_string();
        assert_eq!(error, format!("the request is not valid OTLP/JSON: {message}"));
    }
}

#[test]
fn nesting_has_the_limit_that_protobuf_has() {
    let nested = |levels: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(levels);
        let text = format!("{open}{}", "]}}".repeat(levels));
        format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":1,"body":{text}}}]}}]}}]}}"#
        )
    };
    let deep = |levels| decode(Signal::Logs, &nested(levels).replace("[]", "[null]"));
    assert_eq!(deep(47).unwrap().rows.len(), 1);
    assert!(deep(60).unwrap_err().to_string().contains("nested too deep"));
    let hostile = format!(r#"{{"x":{}"#, "[".repeat(1_000_000));
    assert!(decode(Signal::Logs, &hostile).unwrap_err().to_string().contains("nested too deep"));
}

#[tokio::test]
async fn json_over_http_is_answered_in_json() {
    let server = Server::start().await;
    for name in ["metrics", "logs", "events", "trace"] {
        let (signal, text, _) = example(name);
        let content_type = "application/json; charset=utf-8";
        let body = gzip(text.as_bytes());
        let request = server.post_as(signal, content_type, body).header("content-encoding", "gzip");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.json::<serde_json::Value>().await.unwrap(), json!({}));
        assert_eq!(server.only().rows.signal(), signal);
    }
    let counts = server.state.metrics.snapshot();
    let logs = counts.iter().find(|c| (c.signal, c.protocol) == (Signal::Logs, Protocol::HttpJson)).unwrap();
    assert_eq!((logs.requests, logs.items_accepted, logs.items_rejected), (2, 2, 0));
}

#[tokio::test]
async fn rejections_and_errors_over_http_are_json_too() {
    let server = Server::start().await;
    let send = |signal, text: &'static str| server.post_as(signal, "application/json", text.into()).send();
    for (signal, text, rejected, message) in [
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]}]}]}"#,
            "rejectedSpans",
            "1 span rejected: trace_id must be 16 bytes and not all zero (first: span \"a\")",
        ),
        (
            Signal::Logs,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#,
            "rejectedLogRecords",
            "1 log record rejected: time_unix_nano and observed_time_unix_nano are both 0",
        ),
        (
            Signal::Metrics,
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":{"dataPoints":[{}]}}]}]}]}"#,
            "rejectedDataPoints",
            "1 data point rejected: time_unix_nano is 0 (first: metric \"m\")",
        ),
    ] {
        let response = send(signal, text).await.unwrap();
        assert_eq!(response.status(), 200);
        let answer = response.json::<serde_json::Value>().await.unwrap();
        assert_eq!(answer, json!({ "partialSuccess": { rejected: "1", "errorMessage": message } }));
    }
    let response = send(Signal::Traces, r#"{"resourceSpans":7}"#).await.unwrap();
    assert_eq!(response.status(), 400);
    let answer = response.json::<serde_json::Value>().await.unwrap();
    let message = "the request is not valid OTLP/JSON: resourceSpans: expected an array (at byte 18)";
    assert_eq!(answer, json!({ "code": 3, "message": message }));

    *server.ingest.error.lock() = Some(oteld::write::WriteError::Overloaded {
        reason: "why".to_owned(),
        retry_after: std::time::Duration::from_millis(1500),
    });
    let (_, text, _) = example("trace");
    let response = send(Signal::Traces, text).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "2"));
    let answer = response.json::<serde_json::Value>().await.unwrap();
    let retry = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s" });
    assert_eq!(answer, json!({ "code": 8, "message": "overloaded: why", "details": [retry] }));
}

#[test]
fn the_message_about_a_body_that_is_too_deep_is_short() {
    let deep = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1","body":{}1{}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(300),
        "]}}".repeat(300)
    );
    let error = decode(Signal::Logs, &deep).unwrap_err().to_string();
    assert!(error.contains("nested too deep") && error.len() < 400, "{error}");
}
