//! `nullotlp`: an OTLP server that decodes with prost and drops. The yardstick: what any server must at least do.
#![allow(clippy::disallowed_methods, reason = "a measuring tool runs on the real clock and network")]

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::Parser;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
    logs_service_server::{LogsService, LogsServiceServer},
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use oteld_benches::cpu;
use oteld_benches::signal::Signal;
use prost::Message;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::codec::CompressionEncoding;

/// Largest request, compressed or not.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// An OTLP server that decodes every request with prost, counts its items and drops it.
///
/// On SIGTERM or SIGINT it prints what it counted and the CPU seconds that it used, as one line of JSON.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  nullotlp --grpc 127.0.0.1:4317 --http 127.0.0.1:4318")]
struct Arguments {
    /// Address of OTLP/gRPC.
    #[arg(long, default_value = "127.0.0.1:4317")]
    grpc: SocketAddr,
    /// Address of OTLP/HTTP (protobuf).
    #[arg(long, default_value = "127.0.0.1:4318")]
    http: SocketAddr,
}

#[derive(Default)]
struct Dropped {
    requests: AtomicU64,
    items: AtomicU64,
}

impl Dropped {
    fn count(&self, items: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(items as u64, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let dropped = Arc::new(Dropped::default());
    let (grpc, http) = (TcpListener::bind(arguments.grpc).await?, TcpListener::bind(arguments.http).await?);
    eprintln!("OTLP/gRPC on {} OTLP/HTTP on {}", grpc.local_addr()?, http.local_addr()?);
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(serve_http(http, Arc::clone(&dropped)));
    servers.spawn(serve_grpc(grpc, Arc::clone(&dropped)));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = servers.join_next() => eprintln!("a server ended: {ended:?}"),
    }
    let report = serde_json::json!({
        "requests": dropped.requests.load(Ordering::Relaxed),
        "items": dropped.items.load(Ordering::Relaxed),
        "cpu_seconds": cpu::own_seconds(),
    });
    println!("{report}");
    Ok(())
}

async fn serve_grpc(listener: TcpListener, dropped: Arc<Dropped>) {
    let service = Null(dropped);
    macro_rules! accept_all {
        ($server:ty) => {
            <$server>::new(service.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(REQUEST_BYTES_MAX)
        };
    }
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(accept_all!(MetricsServiceServer<Null>))
        .add_service(accept_all!(LogsServiceServer<Null>))
        .add_service(accept_all!(TraceServiceServer<Null>))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await;
    if let Err(error) = served {
        eprintln!("OTLP/gRPC: {error}");
    }
}

#[derive(Clone)]
struct Null(Arc<Dropped>);

#[tonic::async_trait]
impl MetricsService for Null {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.count(metric_items(request.get_ref()));
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Null {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.0.count(log_items(request.get_ref()));
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Null {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.count(trace_items(request.get_ref()));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn metric_items(request: &ExportMetricsServiceRequest) -> usize {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics).map(|metric| metric.data.as_ref().map_or(0, points)).sum()
}

fn points(data: &Data) -> usize {
    match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        Data::Summary(summary) => summary.data_points.len(),
    }
}

fn log_items(request: &ExportLogsServiceRequest) -> usize {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

fn trace_items(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

async fn serve_http(listener: TcpListener, dropped: Arc<Dropped>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("OTLP/HTTP: {error}");
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("OTLP/HTTP: {error}");
        }
        let dropped = Arc::clone(&dropped);
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&dropped)));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("OTLP/HTTP: {error}");
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    dropped: Arc<Dropped>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = match take(request).await {
        Ok(items) => {
            dropped.count(items);
            StatusCode::OK
        }
        Err(status) => status,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    Ok(response)
}

/// Number of items in the request, or the status that says why it was not decoded.
async fn take(request: Request<Incoming>) -> Result<usize, StatusCode> {
    let signal = Signal::ALL.into_iter().find(|signal| signal.http_path() == request.uri().path());
    let signal = signal.ok_or(StatusCode::NOT_FOUND)?;
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let encoding = request.headers().get(CONTENT_ENCODING).cloned();
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    let body = match encoding.as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"identity") => body,
        Some(b"gzip") => decompress(flate2::read::MultiGzDecoder::new(&body[..]))?,
        Some(b"zstd") => {
            decompress(zstd::stream::read::Decoder::new(&body[..]).map_err(|_| StatusCode::BAD_REQUEST)?)?
        }
        Some(_) => return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    };
    let items = match signal {
        Signal::Metrics => ExportMetricsServiceRequest::decode(body).map(|request| metric_items(&request)),
        Signal::Logs => ExportLogsServiceRequest::decode(body).map(|request| log_items(&request)),
        Signal::Traces => ExportTraceServiceRequest::decode(body).map(|request| trace_items(&request)),
    };
    items.map_err(|_| StatusCode::BAD_REQUEST)
}

fn decompress(reader: impl Read) -> Result<Bytes, StatusCode> {
    let mut body = Vec::new();
    let read = reader.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut body);
    read.map_err(|_| StatusCode::BAD_REQUEST)?;
    if body.len() > REQUEST_BYTES_MAX { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(Bytes::from(body)) }
}
