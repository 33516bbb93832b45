//! The requests that read items back, over the APIs that Grafana uses.

use std::ops::Range;

use super::item::{Item, LANES, Run, SERVICE, STEP_NANOS, Signal, hex};
use crate::history::event::{CountOf, Scope};

/// More than any answer of the workload has.
const LIMIT: u64 = 10_000_000;

/// What the metrics of all lanes are called in PromQL.
const METRIC_NAMES: &str = "jepsen_items|jepsen_ones|jepsen_sizes_sum";

impl Run {
    /// Path and query of a search for all items in `scope`, whose bounds are whole steps. Jaeger is asked for all
    /// writers, whichever the scope has.
    pub fn search(self, signal: Signal, scope: &Scope) -> String {
        match signal {
            Signal::Metrics => {
                let selector =
                    format!("{{__name__=~\"{METRIC_NAMES}\"{}}}", writers("instance", &scope.writers));
                self.promql(&selector, scope)
            }
            Signal::Logs => {
                let time = self.window(scope);
                let query = self.log_selector(scope);
                format!(
                    "/loki/api/v1/query_range?query={}&start={}&end={}&limit={LIMIT}&direction=forward",
                    escape(&query),
                    time.start,
                    time.end
                )
            }
            Signal::Traces => {
                let time = self.window(scope);
                format!(
                    "/jaeger/api/traces?service={SERVICE}&limit={LIMIT}&start={}&end={}",
                    time.start / 1000,
                    (time.end - 1) / 1000
                )
            }
        }
    }

    /// Path and query that count in the cluster.
    pub fn count(self, of: CountOf, scope: &Scope) -> String {
        let sums = |metric: &str| {
            let selector =
                format!("{metric}{{{}}}", writers("instance", &scope.writers).trim_start_matches(','));
            let (range, time) = self.range(scope);
            // Increments count from the start of what a query reads: the last value is the number of them.
            let query = format!("sum(last_over_time({selector}{range}))");
            format!("/api/v1/query?query={}&time={time}", escape(&query))
        };
        match of {
            CountOf::Sums => sums("jepsen_ones"),
            CountOf::Histograms => sums("jepsen_sizes_count"),
            CountOf::Lines => {
                // Echoes are counted by the reads that list them.
                let selector = self.log_selector(scope);
                let (range, time) = self.range(scope);
                let query = format!("sum(count_over_time({selector} != \"echo=\" {range}))");
                format!("/loki/api/v1/query?query={}&time={time}", escape(&query))
            }
        }
    }

    /// Path of Tempo's trace by id.
    pub fn trace_by_id(self, writer: u32, trace: u64) -> String {
        format!("/tempo/api/traces/{}", hex(&self.trace_id(writer, trace)))
    }

    fn promql(self, selector: &str, scope: &Scope) -> String {
        let (range, time) = self.range(scope);
        format!("/api/v1/query?query={}&time={time}", escape(&format!("{selector}{range}")))
    }

    /// A range selector and the time to evaluate it at. Ranges are open on the left, so it ends at the last step.
    fn range(self, scope: &Scope) -> (String, String) {
        let time = self.window(scope);
        let last_ms = (time.end - STEP_NANOS) / 1_000_000;
        let range = format!("[{}ms]", (time.end - time.start) / 1_000_000);
        (range, format!("{}.{:03}", last_ms / 1000, last_ms % 1000))
    }

    fn log_selector(self, scope: &Scope) -> String {
        format!("{{service_name=\"{SERVICE}\"{}}}", writers("service_instance_id", &scope.writers))
    }

    /// Event times of a scope, in nanoseconds since the Unix epoch.
    fn window(self, scope: &Scope) -> Range<u64> {
        assert!(scope.from < scope.to, "an empty scope cannot be asked for: {scope:?}");
        assert!(scope.from.is_multiple_of(LANES) && scope.to.is_multiple_of(LANES), "{scope:?}");
        self.time_unix_nano(scope.from)..self.time_unix_nano(scope.to)
    }
}

/// The scope of the four spans of a trace.
pub fn trace_scope(writer: u32, trace: u64) -> Scope {
    use super::item::{TRACE_SPANS, TRACE_STRIDE};
    let from = Item::first_of_trace(trace);
    Scope { writers: writer..writer + 1, from, to: from + (TRACE_SPANS - 1) * TRACE_STRIDE + 1 }
}

/// A matcher for the writers of a scope, with a comma in front.
fn writers(label: &str, range: &Range<u32>) -> String {
    let names: Vec<String> = range.clone().map(|writer| writer.to_string()).collect();
    format!(",{label}=~\"writer-({})-.*\"", names.join("|"))
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
