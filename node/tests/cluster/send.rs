//! OTLP requests, and the ways to send them to a front.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::harness::client;

/// A front's ports.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) http: reqwest::Client,
    pub(crate) query: String,
    pub(crate) otlp_grpc: String,
    pub(crate) otlp_http: String,
}

/// One export request.
#[derive(Clone)]
pub(crate) enum Export {
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
}

impl Export {
    /// As protobuf.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Export::Metrics(message) => message.encode_to_vec(),
            Export::Logs(message) => message.encode_to_vec(),
            Export::Traces(message) => message.encode_to_vec(),
        }
    }
}

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    HttpProtobuf,
    HttpJson,
    Grpc,
}

pub(crate) const WAYS: [Way; 3] = [Way::HttpProtobuf, Way::HttpJson, Way::Grpc];

fn resource(service: &str) -> Option<Resource> {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let name = KeyValue { key: "service.name".to_owned(), value: text(service), ..KeyValue::default() };
    Some(Resource { attributes: vec![name], ..Resource::default() })
}

/// Log records of (nanoseconds, body).
pub(crate) fn logs(service: &str, records: impl IntoIterator<Item = (u64, String)>) -> Export {
    let record = |(time_unix_nano, body)| LogRecord {
        time_unix_nano,
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        ..LogRecord::default()
    };
    let log_records = records.into_iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() }];
    Export::Logs(ExportLogsServiceRequest { resource_logs })
}

/// Points of one series, of (nanoseconds, value): a gauge, or a cumulative sum where `sum`.
pub(crate) fn metrics(
    service: &str,
    name: &str,
    sum: bool,
    points: impl IntoIterator<Item = (u64, f64)>,
) -> Export {
    let point = |(time_unix_nano, value)| NumberDataPoint {
        time_unix_nano,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let data_points = points.into_iter().map(point).collect();
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let data = match sum {
        true => metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }),
        false => metric::Data::Gauge(Gauge { data_points }),
    };
    let metric = Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() }];
    Export::Metrics(ExportMetricsServiceRequest { resource_metrics })
}

/// Spans of one trace, of (span id, start in nanoseconds), each a millisecond long and called `span N`.
pub(crate) fn spans(service: &str, trace: u128, spans: impl IntoIterator<Item = (u64, u64)>) -> Export {
    let span = |(id, start): (u64, u64)| Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        name: format!("span {id}"),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000_000,
        ..Span::default()
    };
    let spans = spans.into_iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() }];
    Export::Traces(ExportTraceServiceRequest { resource_spans })
}

/// Nanoseconds since the Unix epoch, now.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

impl Front {
    pub(crate) fn at(query: u16, grpc: u16, http: u16) -> Front {
        let url = |port| format!("http://127.0.0.1:{port}");
        Front { http: client(), query: url(query), otlp_grpc: url(grpc), otlp_http: url(http) }
    }

    /// # Errors
    /// What the front answered when it was no acknowledgement of all items.
    pub(crate) async fn send(&self, export: &Export, way: Way) -> Result<(), String> {
        match way {
            Way::Grpc => self.send_grpc(export.clone()).await,
            Way::HttpProtobuf | Way::HttpJson => {
                let (path, json) = match export {
                    Export::Metrics(message) => ("metrics", serde_json::to_vec(message)),
                    Export::Logs(message) => ("logs", serde_json::to_vec(message)),
                    Export::Traces(message) => ("traces", serde_json::to_vec(message)),
                };
                let (content_type, body) = match way {
                    Way::HttpJson => ("application/json", json.unwrap()),
                    _ => ("application/x-protobuf", export.to_bytes()),
                };
                let request = self.http.post(format!("{}/v1/{path}", self.otlp_http)).body(body);
                let response = request.header("content-type", content_type).send().await;
                let response = response.map_err(|error| error.to_string())?;
                let status = response.status();
                let answer = response.bytes().await.map_err(|error| error.to_string())?;
                // A success that says nothing more: what is rejected would be told here.
                let is_bare = answer.is_empty() || &answer[..] == b"{}";
                if status == 200 && is_bare {
                    Ok(())
                } else {
                    Err(format!("{status}: {}", String::from_utf8_lossy(&answer)))
                }
            }
        }
    }

    async fn send_grpc(&self, export: Export) -> Result<(), String> {
        let to = self.otlp_grpc.clone();
        let refused = |error: tonic::transport::Error| error.to_string();
        let rejected = match export {
            Export::Metrics(message) => {
                let mut client = MetricsServiceClient::connect(to).await.map_err(refused)?;
                let answer = client.export(message).await.map_err(|status| status.to_string())?;
                answer.into_inner().partial_success.map(|partial| partial.error_message)
            }
            Export::Logs(message) => {
                let mut client = LogsServiceClient::connect(to).await.map_err(refused)?;
                let answer = client.export(message).await.map_err(|status| status.to_string())?;
                answer.into_inner().partial_success.map(|partial| partial.error_message)
            }
            Export::Traces(message) => {
                let mut client = TraceServiceClient::connect(to).await.map_err(refused)?;
                let answer = client.export(message).await.map_err(|status| status.to_string())?;
                answer.into_inner().partial_success.map(|partial| partial.error_message)
            }
        };
        rejected.map_or(Ok(()), Err)
    }
}
