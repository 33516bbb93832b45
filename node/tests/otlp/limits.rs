//! Hostile and excessive input costs a bounded amount of memory and hurts nobody else.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use oteld::write::admit::AdmitOptions;
use oteld_store::model::Signal;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt;

use crate::http::one_span;
use crate::server::{Server, deflate, gzip, zstd};

const LIMIT: usize = 1 << 20;

async fn small_server() -> Server {
    Server::with(AdmitOptions { message_bytes_max: LIMIT, memory_bytes_max: 4 * LIMIT }).await
}

/// A valid request of about `bytes` bytes: an unknown field, which is skipped, before a span.
fn padded(bytes: usize) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::bytes::encode(100, &vec![b'x'; bytes], &mut message);
    message.extend_from_slice(&one_span());
    message
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_compressed_or_not() {
    let server = small_server().await;
    let bomb = padded(16 * LIMIT);
    for (encoding, body) in [
        ("identity", padded(LIMIT)),
        ("gzip", gzip(&bomb)),
        ("zstd", zstd(&bomb)),
        ("deflate", deflate(&bomb)),
    ] {
        let request = server.post(Signal::Traces, body).header("content-encoding", encoding);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 413, "{encoding}");
        assert!(response.headers().get("retry-after").is_none());
    }
    assert_eq!(server.state.admission.snapshot().used_bytes, 0);
    assert_eq!(server.state.admission.snapshot().too_large, 4);
    let response = server.post(Signal::Traces, padded(LIMIT - 200)).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_message_over_the_limit_is_resource_exhausted_without_a_retry() {
    let server = small_server().await;
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        let mut request = ExportTraceServiceRequest::decode(&one_span()[..]).unwrap();
        request.resource_spans[0].schema_url = "x".repeat(8 * LIMIT);
        let status = client.export(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{encoding:?}: {status:?}");
        assert!(status.get_details_retry_info().is_none());
        assert!(status.message().contains("larger than the limit"), "{}", status.message());
    }
    assert_eq!(server.state.admission.snapshot().used_bytes, 0);
}

#[tokio::test]
async fn a_zstd_frame_with_a_huge_window_is_refused() {
    use std::io::Write;
    let server = Server::start().await;
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&one_span()).unwrap();
    let request = server.post(Signal::Traces, encoder.finish().unwrap()).header("content-encoding", "zstd");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 400);
    let body = response.bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("not valid zstd"), "{body:?}");
}

#[tokio::test]
async fn a_used_up_budget_is_429_with_a_delay_until_memory_is_free_again() {
    let server = small_server().await;
    let release = Arc::new(Notify::new());
    *server.ingest.held.lock() = Some(release.clone());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let body = padded(LIMIT - 50_000);
        waiting.spawn(server.post(Signal::Traces, body).send());
        let arrived = server.ingest.arrived.notified();
        tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("the write arrives");
    }
    let response = server.post(Signal::Traces, padded(LIMIT - 50_000)).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
    let mut request = ExportTraceServiceRequest::decode(&one_span()[..]).unwrap();
    request.resource_spans[0].schema_url = "x".repeat(LIMIT - 50_000);
    let status = client.export(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay, Some(Duration::from_secs(1)));

    *server.ingest.held.lock() = None;
    release.notify_waiters();
    while let Some(response) = waiting.join_next().await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    assert_eq!(server.state.admission.snapshot().used_bytes, 0);
    let response = server.post(Signal::Traces, padded(LIMIT - 50_000)).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "tests use real sockets")]
async fn a_client_that_never_finishes_its_body_is_cut_off_and_holds_nothing() {
    let server = Server::start().await;
    let mut socket = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
                content-length: 1000000\r\n\r\nabc";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = socket.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer[..read]));
    assert_eq!(server.state.admission.snapshot().used_bytes, 0);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "tests use real sockets")]
async fn a_client_that_waits_to_be_asked_for_too_large_a_body_is_not_asked() {
    let server = small_server().await;
    let mut socket = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n\
                expect: 100-continue\r\ncontent-length: 100000000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = socket.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
}
