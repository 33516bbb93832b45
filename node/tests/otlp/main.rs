//! OTLP in: the decoder against prost, and the receivers over loopback sockets.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod decode;
mod grpc;
mod http;
mod json;
mod limits;
mod sdk;

mod generate;
mod oracle;
mod server;
