//! What can be said of a trace as a whole.

use std::collections::BTreeSet;
use std::ops::Range;

use oteld_store::model::{Resource, SpanRow};

/// The resource attribute that names a service (OpenTelemetry semantic conventions).
pub const SERVICE_NAME: &str = "service.name";

/// The service that a resource belongs to; empty where it does not say.
pub fn service_name(resource: &Resource) -> &str {
    resource.attributes.get_str(SERVICE_NAME).unwrap_or_default()
}

/// Nanoseconds that a span took; 0 when it ends before it starts.
pub fn duration_nanos(row: &SpanRow) -> u64 {
    row.span.end_time_unix_nano.saturating_sub(row.span.start_time_unix_nano)
}

/// Facts about a trace, from the spans at hand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TraceFacts<'a> {
    /// The earliest span without a parent.
    pub(super) root: Option<&'a SpanRow>,
    pub(super) start_unix_nano: u64,
    pub(super) end_unix_nano: u64,
}

impl<'a> TraceFacts<'a> {
    /// Of spans in order of their starts; at least one.
    pub(super) fn of(spans: &'a [SpanRow]) -> Self {
        let start_unix_nano = spans.iter().map(|row| row.span.start_time_unix_nano).min().unwrap_or(0);
        TraceFacts {
            root: spans.iter().find(|row| row.span.parent_span_id == [0; 8]),
            start_unix_nano,
            end_unix_nano: end_of(spans).max(start_unix_nano),
        }
    }

    pub(super) fn duration_nanos(&self) -> u64 {
        self.end_unix_nano - self.start_unix_nano
    }

    pub(super) fn root_name(&self) -> Option<&'a str> {
        self.root.map(|row| &*row.span.name)
    }

    pub(super) fn root_service_name(&self) -> Option<&'a str> {
        self.root.map(|row| service_name(&row.stream.resource))
    }
}

fn end_of(spans: &[SpanRow]) -> u64 {
    spans.iter().map(|row| row.span.end_time_unix_nano).max().unwrap_or(0)
}

/// Whether spans that start in `time` show no sign that others of their trace start outside: a root is there, so
/// is each parent, and all of them end within.
pub(super) fn looks_whole(spans: &[SpanRow], time: &Range<u64>) -> bool {
    if time.start == 0 && time.end == u64::MAX {
        return true;
    }
    let ids: BTreeSet<[u8; 8]> = spans.iter().map(|row| row.span.span_id).collect();
    let is_root = |row: &SpanRow| row.span.parent_span_id == [0; 8];
    spans.iter().any(is_root)
        && spans.iter().all(|row| is_root(row) || ids.contains(&row.span.parent_span_id))
        && end_of(spans) < time.end
}
