//! Rows: one item each, with the key that makes it one.

use std::sync::Arc;

use super::identity::{RequestId, Signal};
use super::log::LogRecord;
use super::metric::{Point, Series};
use super::resource::Stream;
use super::span::Span;

/// A point. Its key is (series id, time).
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    pub series: Arc<Series>,
    pub point: Point,
}

/// A log record. Its key is (request id, ordinal in the request): equal records of two requests are two rows.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    pub stream: Arc<Stream>,
    pub request: RequestId,
    pub ordinal: u32,
    pub record: LogRecord,
}

/// A span. Its key is (trace id, span id).
#[derive(Clone, Debug, PartialEq)]
pub struct SpanRow {
    pub stream: Arc<Stream>,
    pub span: Span,
}

/// Rows of one signal.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    Metrics(Vec<MetricRow>),
    Logs(Vec<LogRow>),
    Traces(Vec<SpanRow>),
}

impl Rows {
    /// No rows yet.
    pub fn new(signal: Signal) -> Self {
        match signal {
            Signal::Metrics => Rows::Metrics(Vec::new()),
            Signal::Logs => Rows::Logs(Vec::new()),
            Signal::Traces => Rows::Traces(Vec::new()),
        }
    }

    pub fn signal(&self) -> Signal {
        match self {
            Rows::Metrics(_) => Signal::Metrics,
            Rows::Logs(_) => Signal::Logs,
            Rows::Traces(_) => Signal::Traces,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Rows::Metrics(rows) => rows.len(),
            Rows::Logs(rows) => rows.len(),
            Rows::Traces(rows) => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The event time that decides the window of row `index`: a point's time, a record's effective time, a
    /// span's start.
    pub fn event_time_unix_nano(&self, index: usize) -> u64 {
        match self {
            Rows::Metrics(rows) => rows[index].point.time_unix_nano,
            Rows::Logs(rows) => rows[index].record.effective_time_unix_nano(),
            Rows::Traces(rows) => rows[index].span.start_time_unix_nano,
        }
    }
}
