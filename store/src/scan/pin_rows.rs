//! Sets of rows: each key once, the greatest canonical value of those that were added, whatever their order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::{Order, SeriesPoints};
use crate::canonical::value_bytes;
use crate::model::{LogRow, MetricRow, RequestId, Rows, Series, SeriesId, SpanRow};

/// Points by (series, time).
#[derive(Default)]
pub(super) struct PointSet(BTreeMap<SeriesId, (Arc<Series>, BTreeMap<u64, MetricRow>)>);

impl PointSet {
    pub(super) fn add(&mut self, row: MetricRow) {
        let (_, points) =
            self.0.entry(row.series.id).or_insert_with(|| (row.series.clone(), BTreeMap::new()));
        keep_greatest(points.entry(row.point.time_unix_nano), row, |row| value_bytes(row));
    }

    pub(super) fn series_count(&self) -> usize {
        self.0.len()
    }

    /// By series id, points oldest first.
    pub(super) fn into_series(self) -> impl Iterator<Item = SeriesPoints> {
        self.0.into_values().map(|(series, points)| SeriesPoints {
            series,
            points: points.into_values().map(|row| row.point).collect(),
        })
    }
}

/// Where a time comes in an order: smaller is earlier.
pub(super) fn rank(order: Order, time_unix_nano: u64) -> u64 {
    match order {
        Order::OldestFirst => time_unix_nano,
        Order::NewestFirst => !time_unix_nano,
    }
}

/// Log rows by (rank of the effective time, request, ordinal).
pub(super) struct LogSet {
    order: Order,
    rows: BTreeMap<(u64, RequestId, u32), LogRow>,
}

impl LogSet {
    pub(super) fn new(order: Order) -> Self {
        LogSet { order, rows: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, row: LogRow) {
        let rank = rank(self.order, row.record.effective_time_unix_nano());
        let key = match oteld_env::mutant("equal-logs-merged") {
            true => (rank, RequestId(xxh3_128(&value_bytes(&row))), 0),
            false => (rank, row.request, row.ordinal),
        };
        keep_greatest(self.rows.entry(key), row, |row| value_bytes(row));
    }

    /// Takes the first row, if its rank is below `limit`.
    pub(super) fn pop_below(&mut self, limit: Option<u64>) -> Option<LogRow> {
        let first = self.rows.first_entry()?;
        let is_below = limit.is_none_or(|limit| first.key().0 < limit);
        is_below.then(|| first.remove())
    }
}

/// Spans by (trace id, span id).
#[derive(Default)]
pub(super) struct SpanSet(BTreeMap<[u8; 16], BTreeMap<[u8; 8], SpanRow>>);

impl SpanSet {
    /// Adds those of `rows` that start in `time` and that `take` wants.
    pub(super) fn add_all(&mut self, rows: Rows, take: impl Fn(&SpanRow) -> bool, time: &Range<u64>) {
        let Rows::Traces(rows) = rows else { return };
        for row in rows {
            if time.contains(&row.span.start_time_unix_nano) && take(&row) {
                let trace = self.0.entry(row.span.trace_id).or_default();
                keep_greatest(trace.entry(row.span.span_id), row, |row| value_bytes(row));
            }
        }
    }

    /// Traces by (start of their latest span, trace id) in `order`; spans of each by (start, span id).
    pub(super) fn into_traces(self, order: Order) -> Vec<Vec<SpanRow>> {
        let mut traces: Vec<Vec<SpanRow>> =
            self.0.into_values().map(|spans| spans.into_values().collect()).collect();
        for spans in &mut traces {
            spans.sort_by_key(|row| (row.span.start_time_unix_nano, row.span.span_id));
        }
        traces
            .sort_by_key(|spans| spans.last().map(|row| (row.span.start_time_unix_nano, row.span.trace_id)));
        if order == Order::NewestFirst {
            traces.reverse();
        }
        traces
    }
}

fn keep_greatest<K: Ord, R>(entry: Entry<'_, K, R>, row: R, value: impl Fn(&R) -> Vec<u8>) {
    match entry {
        Entry::Vacant(entry) => {
            entry.insert(row);
        }
        Entry::Occupied(mut entry) => {
            let (kept, new) = (value(entry.get()), value(&row));
            if new > kept || new != kept && oteld_env::mutant("equal-keys-by-arrival") {
                entry.insert(row);
            }
        }
    }
}
