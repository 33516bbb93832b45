//! What rows are sorted by within a shard and tenant.

use crate::canonical::RowRef;

/// A row's place: (series id, time), (stream id, effective time, request, ordinal) or (trace id, start, span id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Series, stream or trace; ids of bytes are big-endian numbers.
    pub id: u128,
    /// Event time.
    pub time_unix_nano: u64,
    /// Request or span id; 0 for points.
    pub item: u128,
    /// Ordinal in the request; 0 for points and spans.
    pub ordinal: u32,
}

impl RowKey {
    pub fn of<'r>(row: impl Into<RowRef<'r>>) -> Self {
        match row.into() {
            RowRef::Metric(row) => {
                RowKey { id: row.series.id.0, time_unix_nano: row.point.time_unix_nano, item: 0, ordinal: 0 }
            }
            RowRef::Log(row) => RowKey {
                id: row.stream.id.0,
                time_unix_nano: row.record.effective_time_unix_nano(),
                item: row.request.0,
                ordinal: row.ordinal,
            },
            RowRef::Span(row) => RowKey {
                id: u128::from_be_bytes(row.span.trace_id),
                time_unix_nano: row.span.start_time_unix_nano,
                item: u128::from(u64::from_be_bytes(row.span.span_id)),
                ordinal: 0,
            },
        }
    }
}
