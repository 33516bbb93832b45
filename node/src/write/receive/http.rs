//! OTLP over HTTP: `POST /v1/{metrics,logs,traces}` (OTLP specification 1.x, "OTLP/HTTP").

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use oteld_store::model::Signal;
use prost::Message;
use serde_json::json;
use tonic::Code;

use super::body::{Encoding, drain, receive};
use super::failure::Failure;
use super::metrics::Protocol;
use super::{Export, ReceiveState};
use crate::write::request::{Ingested, Rejection};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// The OTLP/HTTP routes. No CORS: browsers of other origins are not let in.
pub fn http_router(state: ReceiveState) -> Router {
    let route = |signal: Signal| {
        post(move |State(state): State<ReceiveState>, request: Request| async move {
            handle(&state, signal, request).await
        })
    };
    Router::new()
        .route("/v1/metrics", route(Signal::Metrics))
        .route("/v1/logs", route(Signal::Logs))
        .route("/v1/traces", route(Signal::Traces))
        .with_state(state)
}

async fn handle(state: &ReceiveState, signal: Signal, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let protocol = protocol_of(&parts.headers);
    // A media type that is not known is answered, and counted, as JSON, which people can read.
    let answer = *protocol.as_ref().unwrap_or(&Protocol::HttpJson);
    let count = state.metrics.of(signal, answer);
    count.requested();
    let outcome = match protocol {
        Ok(protocol) => export(state, signal, protocol, &parts.headers, &mut body).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(ingested) => success(signal, answer, &ingested),
        Err(failure) => {
            count.failed(&failure);
            // A client that waits to be asked for its body is not asked.
            if failure.leaves_a_body() && !parts.headers.contains_key(EXPECT) {
                drain(&mut body, state.admission.options().message_bytes_max).await;
            }
            error(answer, &failure)
        }
    }
}

async fn export(
    state: &ReceiveState,
    signal: Signal,
    protocol: Protocol,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Ingested, Failure> {
    let export = Export::new(signal, protocol, encoding_of(headers)?, headers)?;
    let mut ticket = state.admission.ticket();
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    ticket.check_message(announced.unwrap_or(0))?;
    let bytes_max = ticket.message_bytes_max();
    let bytes = receive(body, bytes_max, &mut ticket, state.options.body_timeout).await?;
    state.export(export, bytes, ticket).await
}

fn protocol_of(headers: &HeaderMap) -> Result<Protocol, Failure> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        PROTOBUF => Ok(Protocol::HttpProtobuf),
        JSON => Ok(Protocol::HttpJson),
        _ => Err(unsupported(format!("the Content-Type {content_type:?} is not {PROTOBUF} or {JSON}"))),
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    value.to_str().ok().and_then(Encoding::from_name).ok_or_else(|| {
        unsupported(format!("the Content-Encoding {value:?} is not one of {}", Encoding::ACCEPTED))
    })
}

fn unsupported(message: String) -> Failure {
    Failure::receive(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

/// The wire form that `Export{Metrics,Logs,Trace}ServiceResponse` share.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl ExportResponse {
    pub(super) fn new(rejection: Option<&Rejection>) -> Self {
        let partial_success = rejection.map(|rejection| PartialSuccess {
            rejected: i64::try_from(rejection.rejected).unwrap_or(i64::MAX),
            error_message: rejection.message.clone(),
        });
        ExportResponse { partial_success }
    }
}

fn success(signal: Signal, protocol: Protocol, ingested: &Ingested) -> Response {
    let rejection = ingested.rejection.as_ref();
    let body = match protocol {
        Protocol::HttpJson => json_response(signal, rejection).to_string().into_bytes(),
        _ => ExportResponse::new(rejection).encode_to_vec(),
    };
    response(StatusCode::OK, protocol, body)
}

fn json_response(signal: Signal, rejection: Option<&Rejection>) -> serde_json::Value {
    let Some(rejection) = rejection else { return json!({}) };
    let rejected = match signal {
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
    };
    json!({ "partialSuccess": { rejected: rejection.rejected.to_string(), "errorMessage": rejection.message } })
}

fn error(protocol: Protocol, failure: &Failure) -> Response {
    let body = match protocol {
        Protocol::HttpJson => failure.to_json().to_string().into_bytes(),
        // The details of a gRPC status are an encoded google.rpc.Status.
        _ => failure.to_status().details().to_vec(),
    };
    let mut response = response(failure.http, protocol, body);
    if let Some(delay) = failure.retry_after {
        // The header has whole seconds; less than one is still a wait.
        let seconds = delay.as_millis().div_ceil(1000).max(1) as u64;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn response(status: StatusCode, protocol: Protocol, body: Vec<u8>) -> Response {
    let content_type = if protocol == Protocol::HttpJson { JSON } else { PROTOBUF };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
