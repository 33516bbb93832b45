//! OTLP over gRPC: the three `Export` methods, with the messages kept as bytes.
//!
//! The five-byte message framing is read here and not by tonic's codec, for two reasons: tonic buffers a message
//! before a service sees it, which the memory budget could not refuse; and it answers an oversized message with
//! OUT_OF_RANGE, which OTLP clients retry forever.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use oteld_store::model::Signal;
use prost::Message;
use tonic::Code;

use super::body::{Encoding, drain, receive};
use super::failure::Failure;
use super::http::ExportResponse;
use super::metrics::Protocol;
use super::{Export, ReceiveState};
use crate::write::request::Ingested;

/// Compressed flag and length.
const HEADER_BYTES: usize = 5;

const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The OTLP/gRPC routes, by their full method names.
pub fn grpc_routes(state: ReceiveState) -> Router {
    let route = |signal: Signal| {
        post(move |State(state): State<ReceiveState>, request: Request| async move {
            handle(&state, signal, request).await
        })
    };
    let mut router = Router::new();
    for (signal, method) in [
        (Signal::Metrics, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
        (Signal::Logs, "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        (Signal::Traces, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    ] {
        router = router.route(method, route(signal));
    }
    router.with_state(state)
}

async fn handle(state: &ReceiveState, signal: Signal, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let is_grpc = |value: &HeaderValue| {
        let value = value.as_bytes();
        value
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    if !parts.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let count = state.metrics.of(signal, Protocol::Grpc);
    count.requested();
    match export(state, signal, &parts.headers, &mut body).await {
        Ok(ingested) => success(&ingested),
        Err(failure) => {
            count.failed(&failure);
            if failure.leaves_a_body() {
                drain(&mut body, state.admission.options().message_bytes_max).await;
            }
            let mut response = failure.to_status().into_http::<Body>();
            response.headers_mut().insert(GRPC_ACCEPT_ENCODING, accepted_encodings());
            response
        }
    }
}

async fn export(
    state: &ReceiveState,
    signal: Signal,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Ingested, Failure> {
    let encoding = encoding_of(headers)?;
    let mut ticket = state.admission.ticket();
    let bytes_max = ticket.message_bytes_max().saturating_add(HEADER_BYTES);
    let framed = receive(body, bytes_max, &mut ticket, state.options.body_timeout).await?;
    let (compressed, message) = unframe(framed)?;
    let encoding = match (compressed, encoding) {
        (false, _) => Encoding::Identity,
        (true, Encoding::Identity) => {
            let message = "the message is marked as compressed, but grpc-encoding names no compression";
            return Err(Failure::receive(Code::Internal, StatusCode::BAD_REQUEST, message));
        }
        (true, encoding) => encoding,
    };
    let export = Export::new(signal, Protocol::Grpc, encoding, headers)?;
    state.export(export, message, ticket).await
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let Some(value) = headers.get(GRPC_ENCODING) else { return Ok(Encoding::Identity) };
    value.to_str().ok().and_then(Encoding::from_name).ok_or_else(|| {
        let message = format!("the grpc-encoding {value:?} is not one of {}", Encoding::ACCEPTED);
        Failure::receive(Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

/// What the client may compress with, as the gRPC protocol wants it said with every refusal of an encoding.
fn accepted_encodings() -> HeaderValue {
    HeaderValue::from_static("gzip,zstd,deflate,identity")
}

/// Takes the only message out of its frame; the flag says whether it is compressed.
fn unframe(mut framed: Bytes) -> Result<(bool, Bytes), Failure> {
    let malformed = |message: &str| Failure::receive(Code::Internal, StatusCode::BAD_REQUEST, message);
    let Some(&[flag, a, b, c, d]) = framed.first_chunk::<HEADER_BYTES>() else {
        return Err(malformed("the request has no whole gRPC message"));
    };
    let message = framed.split_off(HEADER_BYTES);
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if message.len() < length {
        return Err(malformed("the gRPC message is shorter than its header says"));
    }
    if message.len() > length {
        return Err(malformed("the request has more than one gRPC message"));
    }
    match flag {
        0 => Ok((false, message)),
        1 => Ok((true, message)),
        _ => Err(malformed("the compressed flag of the gRPC message is neither 0 nor 1")),
    }
}

fn success(ingested: &Ingested) -> Response {
    let message = ExportResponse::new(ingested.rejection.as_ref()).encode_to_vec();
    let mut framed = BytesMut::with_capacity(HEADER_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, Infallible>(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
