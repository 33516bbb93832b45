//! What the receivers count, by signal and protocol.

use std::sync::atomic::{AtomicU64, Ordering};

use oteld_store::model::Signal;

use super::failure::{Failure, Stage};
use crate::write::request::Ingested;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

    /// The name in metrics, as OTLP exporters are configured (`OTEL_EXPORTER_OTLP_PROTOCOL`).
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
            Protocol::HttpJson => "http/json",
        }
    }
}

/// Counters of one signal and protocol.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    bytes_received: AtomicU64,
    bytes_decoded: AtomicU64,
    refused: AtomicU64,
    invalid: AtomicU64,
    unwritten: AtomicU64,
    items_accepted: AtomicU64,
    items_rejected: AtomicU64,
}

impl Counters {
    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn decoded(&self, bytes: usize) {
        self.bytes_decoded.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, failure: &Failure) {
        let counter = match failure.stage {
            Stage::Admit => &self.refused,
            Stage::Receive => &self.invalid,
            Stage::Write => &self.unwritten,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self, ingested: &Ingested) {
        self.items_accepted.fetch_add(ingested.accepted, Ordering::Relaxed);
        let rejected = ingested.rejection.as_ref().map_or(0, |rejection| rejection.rejected);
        self.items_rejected.fetch_add(rejected, Ordering::Relaxed);
    }
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct ReceiveMetrics {
    counters: [[Counters; 3]; 3],
}

/// A reading of the counters of one signal and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveCount {
    pub signal: Signal,
    pub protocol: Protocol,
    /// Requests that began, whatever came of them.
    pub requests: u64,
    /// Bytes of whole bodies, as they came.
    pub bytes_received: u64,
    /// Bytes of valid bodies, uncompressed.
    pub bytes_decoded: u64,
    /// Requests refused for size or memory.
    pub refused: u64,
    /// Requests refused as not valid, or not received whole.
    pub invalid: u64,
    /// Requests that could not be written.
    pub unwritten: u64,
    /// Points, log records or spans of acknowledged requests.
    pub items_accepted: u64,
    /// Items of acknowledged requests that could not be kept.
    pub items_rejected: u64,
}

impl ReceiveMetrics {
    pub(super) fn of(&self, signal: Signal, protocol: Protocol) -> &Counters {
        &self.counters[signal as usize - 1][protocol as usize]
    }

    /// All counters, ordered by signal and protocol.
    pub fn snapshot(&self) -> Vec<ReceiveCount> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pairs =
            Signal::ALL.into_iter().flat_map(|signal| Protocol::ALL.map(|protocol| (signal, protocol)));
        pairs
            .map(|(signal, protocol)| {
                let counters = self.of(signal, protocol);
                ReceiveCount {
                    signal,
                    protocol,
                    requests: read(&counters.requests),
                    bytes_received: read(&counters.bytes_received),
                    bytes_decoded: read(&counters.bytes_decoded),
                    refused: read(&counters.refused),
                    invalid: read(&counters.invalid),
                    unwritten: read(&counters.unwritten),
                    items_accepted: read(&counters.items_accepted),
                    items_rejected: read(&counters.items_rejected),
                }
            })
            .collect()
    }
}
