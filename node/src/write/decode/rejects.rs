//! Items that cannot be kept, by reason: the source of OTLP's `partial_success`.
//!
//! Whether an item is kept depends on its own bytes only, so that a request sent again makes the same rows.

use std::collections::BTreeMap;

use oteld_store::model::Signal;

use crate::write::request::Rejection;

/// Longest example in a message, in characters.
const EXAMPLE_LENGTH_MAX: usize = 80;

/// Why an item is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    MetricName,
    PointTime,
    Buckets,
    Bounds,
    BucketOffset,
    LogTime,
    TraceId,
    SpanId,
    ParentSpanId,
    SpanTime,
    /// A metric with no data at all, or of a kind that is not known: no items, so a warning.
    MetricData,
    /// The item is kept without it, or as it is: warnings.
    ItemTraceId,
    ItemSpanId,
    Severity,
    BucketSum,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::MetricName => "the metric has no name",
            Reason::PointTime => "time_unix_nano is 0",
            Reason::Buckets => {
                "bucket_counts must have one element more than explicit_bounds, or both be empty"
            }
            Reason::Bounds => "explicit_bounds must increase",
            Reason::BucketOffset => "the bucket offset and count exceed 32 bits",
            Reason::LogTime => "time_unix_nano and observed_time_unix_nano are both 0",
            Reason::TraceId => "trace_id must be 16 bytes and not all zero",
            Reason::SpanId => "span_id must be 8 bytes and not all zero",
            Reason::ParentSpanId => "parent_span_id must be 8 bytes or empty",
            Reason::SpanTime => "start_time_unix_nano is 0",
            Reason::MetricData => "the metric has no data of a known kind",
            Reason::ItemTraceId => "a trace_id that is not 16 bytes was left out",
            Reason::ItemSpanId => "a span_id that is not 8 bytes was left out",
            Reason::Severity => "a severity_number above 24 was kept as 0",
            Reason::BucketSum => {
                "a histogram's count is not the sum of its bucket_counts; it was kept as sent"
            }
        }
    }
}

/// Counts rejected items while a request is decoded.
#[derive(Debug, Default)]
pub(super) struct Rejects {
    reasons: BTreeMap<Reason, (u64, String)>,
}

impl Rejects {
    /// Counts `items` rejected for `reason`; `name` of the first one is kept as an example.
    pub(super) fn add(&mut self, reason: Reason, items: u64, name: &str) {
        let entry = self
            .reasons
            .entry(reason)
            .or_insert_with(|| (0, name.chars().take(EXAMPLE_LENGTH_MAX).collect()));
        entry.0 += items;
    }

    /// The rejection to report, if there is anything to say.
    pub(super) fn into_rejection(self, signal: Signal) -> Option<Rejection> {
        if self.reasons.is_empty() {
            return None;
        }
        let (one, many, named) = match signal {
            Signal::Metrics => ("data point", "data points", "metric"),
            Signal::Logs => ("log record", "log records", "event"),
            Signal::Traces => ("span", "spans", "span"),
        };
        let clauses: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, (items, name))| {
                let who = match items {
                    0 => "warning".to_owned(),
                    1 => format!("1 {one} rejected"),
                    _ => format!("{items} {many} rejected"),
                };
                let example =
                    if name.is_empty() { String::new() } else { format!(" (first: {named} {name:?})") };
                format!("{who}: {}{example}", reason.text())
            })
            .collect();
        let rejected = self.reasons.values().map(|(items, _)| items).sum();
        Some(Rejection { rejected, message: clauses.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_each_reason_and_names_the_first() {
        let mut rejects = Rejects::default();
        rejects.add(Reason::SpanId, 1, "GET /");
        rejects.add(Reason::TraceId, 1, "first");
        rejects.add(Reason::TraceId, 1, "second");
        assert_eq!(
            rejects.into_rejection(Signal::Traces),
            Some(Rejection {
                rejected: 3,
                message:
                    "2 spans rejected: trace_id must be 16 bytes and not all zero (first: span \"first\"); \
                          1 span rejected: span_id must be 8 bytes and not all zero (first: span \"GET /\")"
                        .to_owned()
            })
        );
    }

    #[test]
    fn nothing_to_say_is_no_rejection() {
        assert_eq!(Rejects::default().into_rejection(Signal::Logs), None);
    }
}
