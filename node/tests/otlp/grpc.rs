//! OTLP/gRPC over a socket, with the generated clients.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::*;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::*;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::*;
use oteld::write::WriteError;
use oteld_store::model::{Signal, Tenant};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::http::{expected, one_span, sample};
use crate::server::Server;

#[tokio::test]
async fn every_signal_and_compression_arrives_whole() {
    let server = Server::start().await;
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let message = sample(Signal::Metrics);
        let mut client = MetricsServiceClient::connect(server.url()).await.unwrap();
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        client.export(ExportMetricsServiceRequest::decode(&message[..]).unwrap()).await.unwrap();
        assert_eq!(format!("{:?}", server.only()), format!("{:?}", expected(Signal::Metrics, &message)));

        let message = sample(Signal::Logs);
        let mut client = LogsServiceClient::connect(server.url()).await.unwrap();
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        client.export(ExportLogsServiceRequest::decode(&message[..]).unwrap()).await.unwrap();
        assert_eq!(format!("{:?}", server.only()), format!("{:?}", expected(Signal::Logs, &message)));

        let message = sample(Signal::Traces);
        let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        client.export(ExportTraceServiceRequest::decode(&message[..]).unwrap()).await.unwrap();
        assert_eq!(format!("{:?}", server.only()), format!("{:?}", expected(Signal::Traces, &message)));
    }
}

#[tokio::test]
async fn a_success_has_partial_success_only_when_there_is_something_to_say() {
    let server = Server::start().await;
    let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
    let mut request = ExportTraceServiceRequest::decode(&one_span()[..]).unwrap();
    let answer = client.export(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer, ExportTraceServiceResponse { partial_success: None });
    request.resource_spans[0].scope_spans[0].spans[0].span_id = vec![1; 7];
    let partial = client.export(request).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert_eq!(partial.error_message, "1 span rejected: span_id must be 8 bytes and not all zero");
    assert_eq!(server.only().rows.len(), 1);
}

#[tokio::test]
async fn metadata_names_the_tenant_and_the_request() {
    let server = Server::start().await;
    let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
    let mut request = Request::new(ExportTraceServiceRequest::decode(&one_span()[..]).unwrap());
    request.metadata_mut().insert("x-scope-orgid", "team-a".parse().unwrap());
    request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    client.export(request).await.unwrap();
    let tenant = Tenant::new("team-a");
    let written = server.only();
    let id = oteld_store::model::identity::request_id_of_key(&tenant, Signal::Traces, "k");
    assert_eq!((written.tenant, written.id), (tenant, id));
    let mut request = Request::new(ExportTraceServiceRequest::default());
    request.metadata_mut().insert("x-scope-orgid", "a/b".parse().unwrap());
    assert_eq!(client.export(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn errors_of_the_write_say_whether_to_retry() {
    let server = Server::start().await;
    let mut client = TraceServiceClient::connect(server.url()).await.unwrap();
    let request = ExportTraceServiceRequest::decode(&one_span()[..]).unwrap();
    let (reason, retry_after) = ("why".to_owned(), Duration::from_secs(3));
    for (error, code, delay) in [
        (
            WriteError::Overloaded { reason: reason.clone(), retry_after },
            Code::ResourceExhausted,
            Some(retry_after),
        ),
        (
            WriteError::Unavailable { reason: reason.clone(), retry_after },
            Code::Unavailable,
            Some(retry_after),
        ),
        (WriteError::ReadOnly { reason: reason.clone(), retry_after }, Code::Unavailable, Some(retry_after)),
        (WriteError::Conflict { reason: reason.clone() }, Code::AlreadyExists, None),
        (WriteError::Internal { reason: reason.clone() }, Code::Internal, None),
    ] {
        *server.ingest.error.lock() = Some(error);
        let status = client.export(request.clone()).await.unwrap_err();
        assert_eq!((status.code(), status.message().ends_with("why")), (code, true));
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay), delay);
    }
}

/// A gRPC call by hand, for what a proper client does not send; the `grpc-status` and `grpc-message`.
async fn raw(server: &Server, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String, String) {
    // A refusal has no trailers, so that HTTP/1.1 carries it as well.
    let client = reqwest::Client::new();
    let path = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let mut request = client.post(format!("{}/{path}", server.url())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    (response.status().as_u16(), header("grpc-status"), header("grpc-message"))
}

#[tokio::test]
async fn what_is_not_a_proper_call_is_refused_precisely() {
    let server = Server::start().await;
    let grpc = ("content-type", "application/grpc");
    let framed =
        |flag: u8, length: u32, message: &[u8]| [&[flag][..], &length.to_be_bytes(), message].concat();
    for (headers, body, status, message) in [
        (vec![grpc], vec![], "13", "no whole gRPC message"),
        (vec![grpc], framed(0, 10, b"abc"), "13", "shorter than its header says"),
        (vec![grpc], framed(0, 0, b"\0\0\0\0\0"), "13", "more than one gRPC message"),
        (vec![grpc], framed(2, 0, b""), "13", "neither 0 nor 1"),
        (vec![grpc], framed(1, 3, b"abc"), "13", "grpc-encoding names no compression"),
        (vec![grpc], framed(0, 1, b"\xff"), "3", "not a valid protobuf message"),
        (vec![grpc, ("grpc-encoding", "gzip")], framed(1, 3, b"abc"), "3", "not valid gzip"),
        (vec![grpc, ("grpc-encoding", "snappy")], framed(0, 0, b""), "12", "is not one of gzip"),
    ] {
        let answer = raw(&server, &headers, body).await;
        assert_eq!((answer.0, answer.1.as_str()), (200, status), "{message}");
        assert!(answer.2.replace("%20", " ").contains(message), "{}", answer.2);
    }
    let json = raw(&server, &[("content-type", "application/json")], vec![]).await;
    assert_eq!(json.0, 415);
    assert!(server.ingest.requests.lock().is_empty());
}
