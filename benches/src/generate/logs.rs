//! Requests of logs: access-log-like records of about 470 encoded bytes, most of them with a trace context.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;

use super::{METHODS, RESOURCES_PER_REQUEST, ROUTES, STATUSES, int, resource, scope, text};
use crate::pool::{Field, TEXT_MARK, Template, mix};

/// `batch` records of the streams from `first` on (modulo `streams`).
pub(super) fn template(first: usize, streams: usize, batch: usize) -> Template {
    let resources = RESOURCES_PER_REQUEST.min(streams).min(batch);
    let mut request = ExportLogsServiceRequest::default();
    let mut index = 0;
    for group in 0..resources {
        let end = batch * (group + 1) / resources;
        let log_records = (index..end).map(|index| record(first, index)).collect();
        index = end;
        request.resource_logs.push(ResourceLogs {
            resource: Some(resource((first + group) % streams)),
            scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records, ..Default::default() }],
            ..Default::default()
        });
    }
    Template::new(request.encode_to_vec(), batch as u64)
}

fn record(first: usize, index: usize) -> LogRecord {
    let random = mix((first * 1_000_003 + index) as u64) as usize;
    let (method, route) = (METHODS[random % METHODS.len()], ROUTES[random % ROUTES.len()]);
    let status = STATUSES[random / 7 % STATUSES.len()];
    let (severity_number, severity_text) = match status {
        500 => (17, "ERROR"),
        404 => (13, "WARN"),
        _ => (9, "INFO"),
    };
    let millis = random / 11 % 900;
    let bytes = random / 13 % 65_536;
    let body = format!(
        "{method} {route} answered {status} in {millis} ms with {bytes} bytes for session {TEXT_MARK} \
         via backend-{}.shop.svc",
        random % 16
    );
    let mut trace_id = Field::TraceId.mark(index / 4).to_vec();
    trace_id.extend([0; 8]);
    let in_trace = !index.is_multiple_of(5);
    LogRecord {
        time_unix_nano: Field::Time.mark_u64(index),
        observed_time_unix_nano: Field::Time.mark_u64(index + 50),
        severity_number,
        severity_text: severity_text.into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: vec![
            text("http.request.method", method),
            text("http.route", route),
            int("http.response.status_code", status),
            int("http.response.body.size", bytes as i64),
            text("client.address", format!("10.{}.{}.{}", random % 8, random / 8 % 256, random / 2048 % 256)),
            text("user_agent.original", USER_AGENTS[random / 17 % USER_AGENTS.len()]),
            text("session.id", TEXT_MARK),
            text("thread.name", format!("worker-{}", random % 32)),
        ],
        trace_id: if in_trace { trace_id } else { Vec::new() },
        span_id: if in_trace { Field::SpanId.mark(index).to_vec() } else { Vec::new() },
        flags: u32::from(in_trace),
        ..Default::default()
    }
}

const USER_AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15",
    "curl/8.14.1",
];
