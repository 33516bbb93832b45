//! Reading: what a query asks of the store, whatever holds the rows.
//!
//! A scan sees a set: rows that several memtables and segments hold appear once, and among equal keys with
//! different values the greatest by canonical bytes is shown (PROTOCOL, failure 14), so that no answer depends
//! on the order of arrival.

pub mod budget;
pub mod pin;
mod pin_rows;
mod pin_source;
pub mod reference;

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use thiserror::Error;

use crate::model::{LogRow, Point, Series, Shard, Signal, SpanRow, Stream, Tenant};
pub use budget::ScanBudget;
pub use pin::Pin;
pub use reference::RowSet;

/// Which rows may be looked at.
#[derive(Clone, Debug)]
pub struct ScanScope {
    pub tenant: Tenant,
    /// Rows of other shards are invisible, even where the node holds them.
    pub shards: Arc<BTreeSet<Shard>>,
    /// Event time in nanoseconds since the Unix epoch, start included, end excluded.
    pub time_unix_nano: Range<u64>,
}

/// Order of a scan over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// Why a scan stopped.
#[derive(Debug, Error)]
pub enum ScanError {
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the query reached its limit of {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("cannot read {what}: {reason}")]
    Damaged { what: String, reason: String },
}

/// Points of one series, oldest first, each time once.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesPoints {
    pub series: Arc<Series>,
    pub points: Vec<Point>,
}

/// A pinned, immutable view of a node's rows.
pub trait Scan: Send + Sync {
    /// Series that have a point in scope and that `select` takes (asked once a series, in any order), in order of their
    /// ids.
    fn series(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
    ) -> Result<Vec<Arc<Series>>, ScanError>;

    /// Points of the series that `select` takes (asked once a series), one series at a time.
    fn metrics(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
        visit: &mut dyn FnMut(SeriesPoints) -> ControlFlow<()>,
    ) -> Result<(), ScanError>;

    /// Streams of logs or traces that have a row in scope, in order of their ids.
    fn streams(
        &self,
        signal: Signal,
        scope: &ScanScope,
        budget: &ScanBudget,
    ) -> Result<Vec<Arc<Stream>>, ScanError>;

    /// Log rows of the streams that `select` takes (asked once a stream), by effective time in `order`, then by
    /// (request id, ordinal).
    fn logs(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        order: Order,
        select: &mut dyn FnMut(&Stream) -> bool,
        visit: &mut dyn FnMut(LogRow) -> ControlFlow<()>,
    ) -> Result<(), ScanError>;

    /// Of each of these traces, in order of their ids, all spans that start in scope, by (start, span id); traces
    /// without any are left out.
    /// What may hold one of them is read once, however many they are.
    fn traces_by_id(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        trace_ids: &BTreeSet<[u8; 16]>,
    ) -> Result<Vec<Vec<SpanRow>>, ScanError>;

    /// Spans that start in scope, grouped: all of a trace's spans in one visit, by (start, span id); traces in
    /// order of the start of their latest span, in `order`.
    fn traces(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        order: Order,
        visit: &mut dyn FnMut(&[SpanRow]) -> ControlFlow<()>,
    ) -> Result<(), ScanError>;
}
