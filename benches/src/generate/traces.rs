//! Requests of traces: eight spans a trace in a small tree, about 420 encoded bytes a span, an event in one of four.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::Event, span::SpanKind, status::StatusCode,
};
use prost::Message;

use super::{METHODS, RESOURCES_PER_REQUEST, ROUTES, STATUSES, int, resource, scope, text};
use crate::pool::{Field, TEXT_MARK, Template, mix};

const SPANS_PER_TRACE: usize = 8;
/// Ids of traces and of spans come from one sequence: traces begin where no request's spans reach.
const TRACE_INDEX_FIRST: usize = 1 << 23;

/// `batch` spans of the streams from `first` on (modulo `streams`).
pub(super) fn template(first: usize, streams: usize, batch: usize) -> Template {
    let resources = RESOURCES_PER_REQUEST.min(streams).min(batch);
    let mut request = ExportTraceServiceRequest::default();
    for group in 0..resources {
        // The spans of a trace are spread over the resources, as those of a real request through services are.
        let spans = (group..batch).step_by(resources).map(|index| span(first, index)).collect();
        request.resource_spans.push(ResourceSpans {
            resource: Some(resource((first + group) % streams)),
            scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..Default::default() }],
            ..Default::default()
        });
    }
    Template::new(request.encode_to_vec(), batch as u64)
}

fn span(first: usize, index: usize) -> Span {
    let random = mix((first * 1_000_003 + index) as u64) as usize;
    let (method, route) = (METHODS[random % METHODS.len()], ROUTES[random % ROUTES.len()]);
    let status = STATUSES[random / 7 % STATUSES.len()];
    let within = index % SPANS_PER_TRACE;
    let mut trace_id = Field::TraceId.mark(TRACE_INDEX_FIRST + index / SPANS_PER_TRACE).to_vec();
    trace_id.extend([0; 8]);
    let parent = match within {
        0 => Vec::new(),
        _ => Field::SpanId.mark(index - within + (within - 1) / 2).to_vec(),
    };
    let events = if index.is_multiple_of(4) { vec![event(index)] } else { Vec::new() };
    Span {
        trace_id,
        span_id: Field::SpanId.mark(index).to_vec(),
        parent_span_id: parent,
        name: format!("{method} {route}"),
        kind: if within.is_multiple_of(2) { SpanKind::Server } else { SpanKind::Client } as i32,
        start_time_unix_nano: Field::SpanStart.mark_u64(index),
        end_time_unix_nano: Field::Time.mark_u64(0),
        attributes: vec![
            text("http.request.method", method),
            text("http.route", route),
            text("url.path", format!("{route}?session={TEXT_MARK}")),
            text("url.scheme", "https"),
            int("http.response.status_code", status),
            text("server.address", format!("backend-{}.shop.svc", random % 16)),
            int("server.port", 8080),
            text("network.protocol.version", "1.1"),
            text("client.address", format!("10.{}.{}.{}", random % 8, random / 8 % 256, random / 2048 % 256)),
            int("thread.id", (random % 64) as i64),
        ],
        events,
        status: Some(Status {
            code: if status == 500 { StatusCode::Error } else { StatusCode::Unset } as i32,
            ..Default::default()
        }),
        flags: 1,
        ..Default::default()
    }
}

fn event(index: usize) -> Event {
    Event {
        time_unix_nano: Field::SpanStart.mark_u64(index),
        name: "cache.lookup".into(),
        attributes: vec![text("cache.key", TEXT_MARK), int("cache.hit", (index / 4 % 2) as i64)],
        ..Default::default()
    }
}
