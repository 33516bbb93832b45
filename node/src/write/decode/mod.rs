//! OTLP requests to rows: a single pass over the protobuf wire bytes; JSON is rewritten to them first.
//!
//! Field numbers and meanings are those of opentelemetry-proto 1.x. Sub-messages that appear twice are merged, scalars
//! that appear twice keep the last value, unknown fields are skipped, as proto3 says. What the data model has no
//! place for is dropped: `entity_refs`, and string-table indexes (`*_strindex`), which only profiles may use. Unknown
//! enum numbers become 0 (unspecified). Every decision is a pure function of the bytes.
//!
//! Rejected, and told as `partial_success`: points of metrics without a name, points, log records and spans without a
//! time (they would all be at the epoch, below every retention floor, and a clock may not decide), spans whose ids are
//! not valid, and histograms whose buckets and bounds do not fit. Ids of log records and exemplars that are not valid
//! are absent, as the proto's comments say; a span counts a link with such an id as dropped. What is changed or does
//! not add up without being rejected is told as a warning: a `partial_success` with 0 rejected items.

mod json;

mod wire;

mod attributes;
mod logs;
mod metrics;
mod points;
mod rejects;
mod traces;

use std::sync::Arc;

use oteld_store::model::{RequestId, Rows, Signal, Tenant};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::write::admit::{AdmitError, Ticket};
use crate::write::request::Rejection;
pub use json::JsonError;
use rejects::Rejects;
use wire::Reader;
pub use wire::{WireError, WireErrorKind};

/// What a request came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub rows: Rows,
    /// What could not be kept, and why.
    pub rejection: Option<Rejection>,
}

/// Why a request was refused whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("the request is not a valid protobuf message: {0}")]
    Protobuf(#[from] WireError),
    #[error("the request is not valid OTLP/JSON: {0}")]
    Json(#[from] JsonError),
    #[error("{0}")]
    Admit(#[from] AdmitError),
}

/// Decodes the protobuf bytes of an `Export{Metrics,Logs,Trace}ServiceRequest`. Memory is charged to `ticket`.
pub fn decode_protobuf(
    signal: Signal,
    tenant: &Tenant,
    request: RequestId,
    message: &[u8],
    ticket: &mut Ticket,
) -> Result<Decoded, DecodeError> {
    let mut decoder =
        Decoder { tenant, request, strings: Strings::new(), ticket, rejects: Rejects::default() };
    let reader = Reader::new(message);
    let rows = match signal {
        Signal::Metrics => Rows::Metrics(metrics::decode(&mut decoder, reader)?),
        Signal::Logs => Rows::Logs(logs::decode(&mut decoder, reader)?),
        Signal::Traces => Rows::Traces(traces::decode(&mut decoder, reader)?),
    };
    Ok(Decoded { rows, rejection: decoder.rejects.into_rejection(signal) })
}

/// Decodes the JSON form of an `Export{Metrics,Logs,Trace}ServiceRequest` into the rows that its protobuf form makes.
pub fn decode_json(
    signal: Signal,
    tenant: &Tenant,
    request: RequestId,
    text: &[u8],
    ticket: &mut Ticket,
) -> Result<Decoded, DecodeError> {
    let message = json::to_wire(signal, text, ticket)?;
    decode_protobuf(signal, tenant, request, &message, ticket)
}

/// What the decoding of one request carries along.
struct Decoder<'a> {
    tenant: &'a Tenant,
    request: RequestId,
    strings: Strings,
    ticket: &'a mut Ticket,
    rejects: Rejects,
}

impl Decoder<'_> {
    /// A shared string; short ones that repeat within the request are allocated once.
    fn string(&mut self, text: &str) -> Result<Arc<str>, DecodeError> {
        if text.is_empty() {
            return Ok(self.strings.empty.clone());
        }
        if text.len() > SHARED_LENGTH_MAX {
            self.ticket.charge(text.len() + ARC_BYTES)?;
            return Ok(text.into());
        }
        let slot = &mut self.strings.slots[xxh3_64(text.as_bytes()) as usize % STRING_SLOTS];
        match slot {
            Some(shared) if **shared == *text => Ok(shared.clone()),
            _ => {
                self.ticket.charge(text.len() + ARC_BYTES)?;
                let shared: Arc<str> = text.into();
                *slot = Some(shared.clone());
                Ok(shared)
            }
        }
    }

    /// Adds to a list whose elements count against the request's memory.
    fn push<T>(&mut self, list: &mut Vec<T>, element: T) -> Result<(), DecodeError> {
        self.ticket.charge(size_of::<T>())?;
        list.push(element);
        Ok(())
    }
}

/// Longest string that is looked up among those seen before.
const SHARED_LENGTH_MAX: usize = 64;
/// The counters and the allocator's share of an `Arc`.
const ARC_BYTES: usize = 24;
const STRING_SLOTS: usize = 512;

/// Strings seen in this request, by hash; a collision only forgets the older one, so it cannot be flooded.
struct Strings {
    empty: Arc<str>,
    slots: Vec<Option<Arc<str>>>,
}

impl Strings {
    fn new() -> Self {
        Strings { empty: "".into(), slots: vec![None; STRING_SLOTS] }
    }
}
