//! Sends encoded requests over OTLP/gRPC or OTLP/HTTP and says how each was answered.

mod grpc;
mod http;

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;

use crate::signal::Signal;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where and how the requests of one connection go.
#[derive(Clone, Debug)]
pub struct Target {
    pub signal: Signal,
    pub protocol: Protocol,
    /// `http://host:port`
    pub endpoint: String,
    pub compression: Compression,
    pub tenant: Option<String>,
    pub timeout: Duration,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged; the server rejected that many of its items in `partial_success`.
    Accepted { rejected: u64 },
    /// Not acknowledged: the name of the status, or of what broke.
    Failed { status: String },
}

impl Outcome {
    fn failed(status: impl Into<String>) -> Outcome {
        Outcome::Failed { status: status.into() }
    }

    /// Reads `partial_success` of a response. The three signals' responses have the same wire form.
    fn accepted(response: &[u8]) -> Outcome {
        match ExportMetricsServiceResponse::decode(response) {
            Ok(response) => {
                let rejected = response.partial_success.map_or(0, |partial| partial.rejected_data_points);
                Outcome::Accepted { rejected: u64::try_from(rejected).unwrap_or(0) }
            }
            Err(_) => Outcome::failed("undecodable response"),
        }
    }
}

/// One connection. A clone sends over the same connection.
#[derive(Clone)]
pub enum Sender {
    Grpc(grpc::GrpcSender),
    Http(http::HttpSender),
}

impl Sender {
    /// Errors where the endpoint, the tenant or the combination of options is unusable; it does not connect yet.
    pub fn new(target: &Target) -> Result<Sender, String> {
        Ok(match target.protocol {
            Protocol::Grpc => Sender::Grpc(grpc::GrpcSender::new(target)?),
            Protocol::Http => Sender::Http(http::HttpSender::new(target)?),
        })
    }

    pub async fn send(&mut self, body: Bytes) -> Outcome {
        match self {
            Sender::Grpc(sender) => sender.send(body).await,
            Sender::Http(sender) => sender.send(body).await,
        }
    }
}
