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

    /// Adds the rows of `others` at the end.
    ///
    /// # Panics
    /// When they are of another signal.
    pub fn append(&mut self, others: Rows) {
        match (self, others) {
            (Rows::Metrics(rows), Rows::Metrics(others)) => extend(rows, others),
            (Rows::Logs(rows), Rows::Logs(others)) => extend(rows, others),
            (Rows::Traces(rows), Rows::Traces(others)) => extend(rows, others),
            _ => panic!("rows of another signal"),
        }
    }

    /// Cut into pieces of these lengths, which are all rows.
    pub fn split(self, lengths: impl Iterator<Item = usize>) -> Vec<Rows> {
        fn cut<R>(rows: Vec<R>, lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = Vec<R>> {
            let mut rows = rows.into_iter();
            lengths.map(move |len| rows.by_ref().take(len).collect())
        }
        match self {
            Rows::Metrics(rows) => cut(rows, lengths).map(Rows::Metrics).collect(),
            Rows::Logs(rows) => cut(rows, lengths).map(Rows::Logs).collect(),
            Rows::Traces(rows) => cut(rows, lengths).map(Rows::Traces).collect(),
        }
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

fn extend<R>(rows: &mut Vec<R>, others: Vec<R>) {
    if rows.is_empty() {
        *rows = others;
    } else {
        rows.extend(others);
    }
}
