//! The unmodified OpenTelemetry SDK for Python against the receivers.

use std::process::Command;

use oteld_store::model::{PointValue, Rows, Tenant};
use serde_json::Value;

use crate::server::Server;

/// Runs `send_otlp.py` with the Python of `OTELD_TEST_PYTHON`, which has tests/python/requirements.txt installed.
async fn send(server: &Server) -> Value {
    let python = std::env::var("OTELD_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/send_otlp.py"));
    command.args(["--grpc", &server.url(), "--http", &server.url(), "--tenant", "team-a"]);
    let output = server.state.tasks.blocking(move || command.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs Python with tests/python/requirements.txt; name it in OTELD_TEST_PYTHON"]
async fn what_the_python_sdk_sends_arrives() {
    let server = Server::start().await;
    let sent = send(&server).await;
    for protocol in ["grpc", "http"] {
        let sent = &sent[protocol];
        let service = sent["service"].as_str().unwrap();
        let (mut values, mut histograms, mut spans, mut logs) = (0, 0, 0, 0);
        for request in server.ingest.requests.lock().iter() {
            assert_eq!(request.tenant, Tenant::new("team-a"));
            match &request.rows {
                Rows::Metrics(rows) => {
                    let ours = |name: Option<&str>| name == Some(service);
                    for row in
                        rows.iter().filter(|r| ours(r.series.resource.attributes.get_str("service.name")))
                    {
                        let name = &*row.series.metric.name;
                        let value = &sent["metrics"]["values"][name];
                        let histogram = &sent["metrics"]["histograms"][name];
                        let count_and_sum = (histogram["count"].as_u64(), histogram["sum"].as_f64());
                        match &row.point.value {
                            PointValue::Int(got) => assert_eq!(value.as_i64(), Some(*got), "{name}"),
                            PointValue::Double(got) => assert_eq!(value.as_f64(), Some(*got), "{name}"),
                            PointValue::Histogram(got) => {
                                assert_eq!(count_and_sum, (Some(got.count), got.sum))
                            }
                            PointValue::ExponentialHistogram(got) => {
                                assert_eq!(count_and_sum, (Some(got.count), got.sum));
                            }
                            other => panic!("{name}: {other:?}"),
                        }
                        assert_eq!(row.series.attributes.get_str("route"), Some("/cart"));
                        if value.is_null() { histograms += 1 } else { values += 1 }
                    }
                }
                Rows::Traces(rows) => {
                    for row in rows {
                        let span_id = hex::encode(row.span.span_id);
                        let all = sent["traces"]["spans"].as_array().unwrap();
                        let Some(span) = all.iter().find(|span| span["span_id"] == *span_id) else {
                            continue;
                        };
                        assert_eq!(sent["traces"]["trace_id"], *hex::encode(row.span.trace_id));
                        assert_eq!(span["name"], *row.span.name);
                        assert_eq!(span["parent_span_id"], *hex::encode(row.span.parent_span_id));
                        spans += 1;
                    }
                }
                Rows::Logs(rows) => {
                    let resource = |row: &oteld_store::model::LogRow| row.stream.resource.clone();
                    let ours = rows
                        .iter()
                        .filter(|row| resource(row).attributes.get_str("service.name") == Some(service));
                    for (row, record) in ours.zip(sent["logs"].as_array().unwrap()) {
                        assert_eq!(record["severity"], *row.record.severity_text);
                        logs += 1;
                    }
                }
            }
        }
        assert_eq!((values, histograms, spans, logs), (6, 2, 2, 2), "{protocol}");
    }
}
