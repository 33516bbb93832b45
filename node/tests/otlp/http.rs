//! OTLP/HTTP over a socket: encodings, answers, errors.

use std::time::Duration;

use oteld::write::receive::Protocol;
use oteld::write::{WriteError, WriteRequest};
use oteld_store::model::identity::{request_id_of, request_id_of_key};
use oteld_store::model::{Rows, Signal, Tenant};
use prost::Message;
use tonic_types::pb;
use xxhash_rust::xxh3::xxh3_64;

use crate::generate::Choices;
use crate::oracle;
use crate::server::{Server, deflate, gzip, zstd};

/// A request with rows, nothing of which is rejected for its signal alone.
pub(crate) fn sample(signal: Signal) -> Vec<u8> {
    let request = |seed| match signal {
        Signal::Metrics => Choices::new(seed).metrics().encode_to_vec(),
        Signal::Logs => Choices::new(seed).logs().encode_to_vec(),
        Signal::Traces => Choices::new(seed).traces().encode_to_vec(),
    };
    (0..).map(request).find(|message| oracle::decode(signal, message).unwrap().0.len() > 3).unwrap()
}

/// A span that can be kept.
pub(crate) fn one_span() -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// What a body must be written as.
pub(crate) fn expected(signal: Signal, message: &[u8]) -> WriteRequest {
    let tenant = Tenant::default();
    let id = request_id_of(&tenant, signal, message);
    let mut rows = oracle::decode(signal, message).unwrap().0;
    if let Rows::Logs(rows) = &mut rows {
        rows.iter_mut().for_each(|row| row.request = id);
    }
    WriteRequest { tenant, id, digest: xxh3_64(message), bytes: message.len(), rows }
}

async fn status_of(response: reqwest::Response) -> pb::Status {
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    pb::Status::decode(response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_signal_and_compression_arrives_whole() {
    let server = Server::start().await;
    for signal in Signal::ALL {
        let message = sample(signal);
        for (encoding, body) in [
            ("identity", message.clone()),
            ("gzip", gzip(&message)),
            ("zstd", zstd(&message)),
            ("deflate", deflate(&message)),
        ] {
            let request = server.post(signal, body).header("content-encoding", encoding);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{encoding}");
            assert_eq!(response.headers()["content-type"], "application/x-protobuf");
            assert_eq!(format!("{:?}", server.only()), format!("{:?}", expected(signal, &message)));
        }
    }
}

#[tokio::test]
async fn an_empty_request_succeeds_and_writes_nothing() {
    let server = Server::start().await;
    for signal in Signal::ALL {
        let response = server.post(signal, Vec::new()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.unwrap().is_empty());
    }
    assert!(server.ingest.requests.lock().is_empty());
}

#[tokio::test]
async fn what_cannot_be_kept_is_told_as_partial_success() {
    use opentelemetry_proto::tonic::collector::trace::v1::*;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let server = Server::start().await;
    let good = ExportTraceServiceRequest::decode(&one_span()[..]).unwrap();
    let bad = Span { name: "bad".to_owned(), ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![bad], ..ScopeSpans::default() }];
    let mut request = good.clone();
    request.resource_spans.push(ResourceSpans { scope_spans, ..ResourceSpans::default() });
    let response = server.post(Signal::Traces, request.encode_to_vec()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer = ExportTraceServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(
        partial.error_message,
        "1 span rejected: trace_id must be 16 bytes and not all zero (first: span \"bad\")"
    );
    assert_eq!(server.only().rows.len(), 1);
}

#[tokio::test]
async fn what_is_not_otlp_is_refused_precisely() {
    let server = Server::start().await;
    let span = one_span();
    let plain = |body: Vec<u8>| server.post(Signal::Traces, body);
    let long_key = "k".repeat(129);
    for (request, status, message) in [
        (plain(vec![0xff]), 400, "not a valid protobuf message: the message ends inside a field at byte 0"),
        (plain(b"{}".to_vec()), 400, "not a valid protobuf message"),
        (plain(span.clone()).header("content-encoding", "gzip"), 400, "the body is not valid gzip"),
        (
            plain(gzip(&span)[..20].to_vec()).header("content-encoding", "gzip"),
            400,
            "the body is not valid gzip",
        ),
        (
            plain(zstd(&span)[..20].to_vec()).header("content-encoding", "zstd"),
            400,
            "the body is not valid zstd",
        ),
        (
            plain(span.clone()).header("content-encoding", "br"),
            415,
            "the Content-Encoding \"br\" is not one of",
        ),
        (plain(span.clone()).header("x-scope-orgid", "a/b"), 400, "X-Scope-OrgID"),
        (plain(span.clone()).header("idempotency-key", long_key.as_str()), 400, "longer than 128 characters"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{message}");
        let status = status_of(response).await;
        assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
        assert!(status.message.contains(message), "{}", status.message);
    }
    let response = server.post_as(Signal::Traces, "text/plain", span.clone()).send().await.unwrap();
    assert_eq!(response.status(), 415);
    assert!(response.text().await.unwrap().contains("Content-Type"));
    let get = reqwest::get(format!("{}/v1/traces", server.url())).await.unwrap();
    assert_eq!((get.status().as_u16(), get.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert!(server.ingest.requests.lock().is_empty());
    let counts = server.state.metrics.snapshot();
    let count = counts.iter().find(|c| (c.signal, c.protocol) == (Signal::Traces, Protocol::HttpProtobuf));
    assert_eq!(count.map(|count| (count.requests, count.invalid, count.items_accepted)), Some((8, 8, 0)));
}

#[tokio::test]
async fn content_types_may_have_parameters_and_any_case() {
    let server = Server::start().await;
    let content_type = "Application/X-Protobuf; charset=utf-8";
    let response = server.post_as(Signal::Traces, content_type, one_span()).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn errors_of_the_write_say_whether_to_retry() {
    let server = Server::start().await;
    let (reason, retry_after) = ("why".to_owned(), Duration::from_millis(1500));
    for (error, http, code, header) in [
        (WriteError::Overloaded { reason: reason.clone(), retry_after }, 429, 8, Some("2")),
        (WriteError::Unavailable { reason: reason.clone(), retry_after }, 503, 14, Some("2")),
        (WriteError::ReadOnly { reason: reason.clone(), retry_after }, 503, 14, Some("2")),
        (WriteError::Conflict { reason: reason.clone() }, 409, 6, None),
        (WriteError::Internal { reason: reason.clone() }, 500, 13, None),
    ] {
        *server.ingest.error.lock() = Some(error);
        let response = server.post(Signal::Traces, one_span()).send().await.unwrap();
        assert_eq!(response.status(), http);
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry.as_deref(), header);
        let status = status_of(response).await;
        assert_eq!((status.code, status.message.ends_with("why")), (code, true));
        assert_eq!(status.details.len(), usize::from(header.is_some()));
        if let Some(detail) = status.details.first() {
            let info = pb::RetryInfo::decode(&detail.value[..]).unwrap();
            assert_eq!(info.retry_delay.map(|delay| (delay.seconds, delay.nanos)), Some((1, 500_000_000)));
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_names_the_request_whatever_its_bytes() {
    let server = Server::start().await;
    let tenant = Tenant::new("team-a");
    for body in [one_span(), sample(Signal::Traces)] {
        let request = server.post(Signal::Traces, body).header("idempotency-key", "batch-7");
        assert_eq!(request.header("x-scope-orgid", "team-a").send().await.unwrap().status(), 200);
    }
    let requests = server.ingest.requests.lock().clone();
    let id = request_id_of_key(&tenant, Signal::Traces, "batch-7");
    assert_eq!(requests.iter().map(|r| (&r.tenant, r.id)).collect::<Vec<_>>(), [(&tenant, id); 2]);
    assert_ne!(requests[0].digest, requests[1].digest);
}

#[tokio::test]
async fn a_retry_in_another_compression_is_the_same_request() {
    let server = Server::start().await;
    let body = sample(Signal::Logs);
    server.post(Signal::Logs, body.clone()).send().await.unwrap();
    let compressed = server.post(Signal::Logs, gzip(&body)).header("content-encoding", "gzip");
    compressed.send().await.unwrap();
    let requests = server.ingest.requests.lock().clone();
    assert_eq!(format!("{:?}", requests[0]), format!("{:?}", requests[1]));
}
