//! What the clients write: every item's contents are computable from (run, writer, sequence), so that any item that
//! is read verifies itself.

pub mod item;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// `service.name` of everything that the workload writes.
pub const SERVICE: &str = "jepsen";

/// Nanoseconds between two items of a writer.
const STEP_NANOS: u64 = 1_000_000;

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// Path of OTLP/HTTP.
    pub fn path(self) -> &'static str {
        match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        }
    }
}

/// Which item: writers own disjoint series, streams and traces, and count what they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub writer: u32,
    pub sequence: u64,
}

/// A run: its seed and when it began, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seed: u64,
    pub start_unix_nano: u64,
}

impl Run {
    /// When an item happened; the same for its whole life.
    pub fn time_unix_nano(self, item: Item) -> u64 {
        self.start_unix_nano + item.sequence * STEP_NANOS
    }

    /// The value of the item's data point.
    pub fn value(self, item: Item) -> i64 {
        ((self.mix(item) >> 16) & 0xffff_ffff) as i64
    }

    /// The body of the item's log record.
    pub fn body(self, item: Item) -> String {
        format!(
            "run={} writer={} sequence={} check={:016x}",
            self.seed,
            item.writer,
            item.sequence,
            self.mix(item)
        )
    }

    /// The item of a body, when it is one that this run could have written.
    pub fn item_of_body(self, body: &str) -> Option<Item> {
        let field = |name: &str| body.split(' ').find_map(|word| word.strip_prefix(name));
        let item =
            Item { writer: field("writer=")?.parse().ok()?, sequence: field("sequence=")?.parse().ok()? };
        (self.body(item) == body).then_some(item)
    }

    /// The trace and span id of the item's span; the ids spell the item out, and a check.
    pub fn span_ids(self, item: Item) -> ([u8; 16], [u8; 8]) {
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&self.mix(item).to_be_bytes());
        trace[8..12].copy_from_slice(&item.writer.to_be_bytes());
        trace[12..].copy_from_slice(&(item.sequence as u32).to_be_bytes());
        let span = (self.mix(item).rotate_left(32) | 1).to_be_bytes();
        (trace, span)
    }

    /// The item of a span's ids in hexadecimal, when it is one that this run could have written.
    pub fn item_of_span(self, trace_id: &str, span_id: &str) -> Option<Item> {
        let number =
            |text: &str, range: std::ops::Range<usize>| u32::from_str_radix(text.get(range)?, 16).ok();
        let item = Item { writer: number(trace_id, 16..24)?, sequence: number(trace_id, 24..32)?.into() };
        let (trace, span) = self.span_ids(item);
        (hex(&trace) == trace_id && hex(&span) == span_id).then_some(item)
    }

    /// SplitMix64 over the identity: 64 bits that no other item has by chance.
    fn mix(self, item: Item) -> u64 {
        // SplitMix64's own increment first: it maps nothing that occurs to zero, which OTLP takes for "no id".
        let identity = self.seed ^ (u64::from(item.writer) << 40);
        let mut z = identity.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(item.sequence + 1));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The OTLP request that carries `items` of one signal, in protobuf.
    pub fn request(self, signal: Signal, items: &[Item]) -> Vec<u8> {
        let writer = items.first().map_or(0, |item| item.writer);
        let resource = Some(Resource {
            attributes: vec![
                text("service.name", SERVICE),
                text("service.instance.id", &format!("writer-{writer}")),
            ],
            ..Resource::default()
        });
        let scope =
            Some(InstrumentationScope { name: "jepsen-lite".into(), ..InstrumentationScope::default() });
        match signal {
            Signal::Metrics => {
                let metrics = vec![self.metric(items)];
                let scope_metrics = vec![ScopeMetrics { scope, metrics, schema_url: String::new() }];
                let group = ResourceMetrics { resource, scope_metrics, schema_url: String::new() };
                ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec()
            }
            Signal::Logs => {
                let log_records = items.iter().map(|item| self.log(*item)).collect();
                let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: String::new() }];
                let group = ResourceLogs { resource, scope_logs, schema_url: String::new() };
                ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
            }
            Signal::Traces => {
                let spans = items.iter().map(|item| self.span(*item)).collect();
                let scope_spans = vec![ScopeSpans { scope, spans, schema_url: String::new() }];
                let group = ResourceSpans { resource, scope_spans, schema_url: String::new() };
                ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec()
            }
        }
    }

    fn metric(self, items: &[Item]) -> Metric {
        let point = |item: &Item| NumberDataPoint {
            time_unix_nano: self.time_unix_nano(*item),
            value: Some(number_data_point::Value::AsInt(self.value(*item))),
            ..NumberDataPoint::default()
        };
        let sum = Sum {
            data_points: items.iter().map(point).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: false,
        };
        Metric { name: "jepsen.items".into(), data: Some(metric::Data::Sum(sum)), ..Metric::default() }
    }

    fn log(self, item: Item) -> LogRecord {
        LogRecord {
            time_unix_nano: self.time_unix_nano(item),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(self.body(item))) }),
            ..LogRecord::default()
        }
    }

    fn span(self, item: Item) -> Span {
        let (trace_id, span_id) = self.span_ids(item);
        let start = self.time_unix_nano(item);
        Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            name: "work".into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1000,
            ..Span::default()
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_item_has_an_id_that_otlp_takes_for_none() {
        for seed in 0..100 {
            let run = Run { seed, start_unix_nano: 0 };
            for (writer, sequence) in (0..4).flat_map(|w| (0..50).map(move |s| (w, s))) {
                let (trace_id, span_id) = run.span_ids(Item { writer, sequence });
                assert!(trace_id != [0; 16] && span_id != [0; 8], "seed {seed}");
            }
        }
    }

    #[test]
    fn an_item_is_found_again_and_a_forged_one_is_not() {
        let run = Run { seed: 7, start_unix_nano: 0 };
        let item = Item { writer: 3, sequence: 41 };
        assert_eq!(run.item_of_body(&run.body(item)), Some(item));
        let (trace, span) = run.span_ids(item);
        assert_eq!(run.item_of_span(&hex(&trace), &hex(&span)), Some(item));
        assert_eq!(run.item_of_body(&run.body(item).replace("sequence=41", "sequence=42")), None);
        assert_eq!(Run { seed: 8, ..run }.item_of_body(&run.body(item)), None);
    }
}
