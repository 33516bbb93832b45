//! A segment: an immutable file of rows of one signal and window, sorted by (shard, tenant, key).
//! docs/format/segment.md has it byte by byte.
//!
//! [`SegmentWriter`] takes rows in order; [`Segment`] reads the footer, the directory and the definitions when it is
//! opened, and then single pages. Everything has a checksum that is checked before a byte of it is used.

mod definitions;
mod directory;
mod ids;
mod key;
mod reader;
mod writer;

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::column::FormatError;
use crate::model::{LogRow, MetricRow, RequestId, Shard, Signal, SpanRow, Tenant, Window};
pub use key::RowKey;
pub use reader::Segment;
pub use writer::SegmentWriter;

/// The most rows in a page.
pub const PAGE_ROWS_MAX: usize = 4096;
/// A page is cut early when its rows have about this many bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// One row for a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum SegmentRow {
    Metric(MetricRow),
    Log(LogRow),
    Span(SpanRow),
}

impl From<MetricRow> for SegmentRow {
    fn from(row: MetricRow) -> Self {
        SegmentRow::Metric(row)
    }
}

impl From<LogRow> for SegmentRow {
    fn from(row: LogRow) -> Self {
        SegmentRow::Log(row)
    }
}

impl From<SpanRow> for SegmentRow {
    fn from(row: SpanRow) -> Self {
        SegmentRow::Span(row)
    }
}

/// A request that was applied, for deduplication.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppliedId {
    pub request: RequestId,
    /// xxh3 of the request's body.
    pub digest: u64,
    /// The shards whose parts were applied, sorted.
    pub shards: Vec<Shard>,
}

/// What is known of a segment without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    pub signal: Signal,
    pub window: Window,
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Least event time; 0 when there are no rows.
    pub min_time_unix_nano: u64,
    /// Greatest event time; 0 when there are no rows.
    pub max_time_unix_nano: u64,
    /// Shards with rows, sorted.
    pub shards: Vec<Shard>,
    /// xxh3 of the file up to its footer.
    pub checksum: u64,
}

/// Rows of one shard and tenant in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub shard: Shard,
    pub tenant: Tenant,
    pub rows: u64,
    /// Indices of its pages.
    pub pages: Range<usize>,
    /// Indices of its series or streams in the segment's table.
    names: Range<usize>,
}

/// A page's zone map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageInfo {
    /// Index in [`Segment::groups`]: its shard and tenant.
    pub group: usize,
    pub rows: u64,
    /// Stored length.
    pub bytes: u64,
    /// Least and greatest series id, stream id or trace id (big-endian).
    pub ids: RangeInclusive<u128>,
    /// Least and greatest event time.
    pub time_unix_nano: RangeInclusive<u64>,
    offset: u64,
    checksum: u64,
}

/// Why a segment could not be written or read.
#[derive(Debug, Error)]
pub enum SegmentError {
    #[error("cannot {doing} segment {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("segment {} is damaged: {source}", path.display())]
    Damaged { path: PathBuf, source: FormatError },
}

/// Whether an error says that a file, or its end, is not there.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}

impl SegmentError {
    /// Whether the file, or bytes of it, are not there as they were written. What cannot be read may be there again, and what
    /// has its checksum and does not decode is a fault of the program, which other replicas share.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            SegmentError::Io { source, .. } => is_absence(source),
            SegmentError::Damaged { source, .. } => matches!(source, FormatError::Checksum { .. }),
        }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| SegmentError::Io { doing, path: path.to_owned(), source }
    }

    fn damaged(path: &Path) -> impl FnOnce(FormatError) -> Self {
        move |source| SegmentError::Damaged { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
