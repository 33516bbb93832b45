//! Random OTLP requests, reproducible from a seed.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status,
    span::{Event, Link},
};

/// A stream of choices (splitmix64).
pub(crate) struct Choices {
    pub(crate) seed: u64,
    /// No NaN and no infinity, which serde cannot write as JSON.
    pub(crate) finite: bool,
}

impl Choices {
    pub(crate) fn new(seed: u64) -> Self {
        Choices { seed, finite: false }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn list<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(4) { None } else { Some(one(self)) }
    }

    fn integer(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => self.below(200) as u64,
            2 => u64::MAX,
            _ => self.next(),
        }
    }

    fn double(&mut self) -> f64 {
        match self.below(8) {
            0 => 0.0,
            1 => -0.0,
            2..=4 if self.finite => 1.5,
            2 => f64::NAN,
            3 => f64::INFINITY,
            4 => f64::NEG_INFINITY,
            _ => self.next() as i64 as f64 / 1e6,
        }
    }

    fn text(&mut self) -> String {
        match self.below(6) {
            0 => String::new(),
            1 => "x".repeat(self.below(100)),
            2 => "größe 🦀 \" \\ \n".to_owned(),
            n => format!("name-{}", n * self.below(4)),
        }
    }

    fn id(&mut self, length: usize) -> Vec<u8> {
        match self.below(12) {
            0 => Vec::new(),
            1 => vec![0; length],
            2 => vec![7; self.below(20)],
            _ => (0..length).map(|_| self.next() as u8).collect(),
        }
    }

    fn time(&mut self) -> u64 {
        if self.one_in(8) { 0 } else { 1_700_000_000_000_000_000 + self.next() % 1_000_000_000_000 }
    }

    fn any(&mut self, depth: usize) -> AnyValue {
        let value = match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => None,
            1 => Some(Value::BoolValue(self.one_in(2))),
            2 => Some(Value::IntValue(self.integer() as i64)),
            3 => Some(Value::DoubleValue(self.double())),
            4 => Some(Value::BytesValue(self.id(5))),
            5 | 6 => Some(Value::StringValue(self.text())),
            7 => Some(Value::ArrayValue(ArrayValue { values: self.list(3, |c| c.any(depth - 1)) })),
            _ => Some(Value::KvlistValue(KeyValueList { values: self.list(3, |c| c.key_value(depth - 1)) })),
        };
        AnyValue { value }
    }

    fn key_value(&mut self, depth: usize) -> KeyValue {
        KeyValue { key: self.text(), value: self.maybe(|c| c.any(depth)), key_strindex: 0 }
    }

    fn attributes(&mut self) -> Vec<KeyValue> {
        self.list(4, |c| c.key_value(2))
    }

    fn resource(&mut self) -> Resource {
        let entity_refs = self.list(1, |c| EntityRef {
            schema_url: c.text(),
            r#type: c.text(),
            id_keys: c.list(2, Self::text),
            description_keys: c.list(2, Self::text),
        });
        Resource {
            attributes: self.attributes(),
            dropped_attributes_count: self.integer() as u32,
            entity_refs,
        }
    }

    fn scope(&mut self) -> InstrumentationScope {
        InstrumentationScope {
            name: self.text(),
            version: self.text(),
            attributes: self.attributes(),
            dropped_attributes_count: self.integer() as u32,
        }
    }

    fn number(&mut self, from: i32, to: i32) -> i32 {
        if self.one_in(10) { self.next() as i32 } else { from + self.below((to - from + 1) as usize) as i32 }
    }

    fn exemplar(&mut self) -> Exemplar {
        let value = self.maybe(|c| match c.one_in(2) {
            true => exemplar::Value::AsInt(c.integer() as i64),
            false => exemplar::Value::AsDouble(c.double()),
        });
        Exemplar {
            filtered_attributes: self.attributes(),
            time_unix_nano: self.time(),
            span_id: self.id(8),
            trace_id: self.id(16),
            value,
        }
    }

    fn number_point(&mut self) -> NumberDataPoint {
        let value = self.maybe(|c| match c.one_in(2) {
            true => number_data_point::Value::AsInt(c.integer() as i64),
            false => number_data_point::Value::AsDouble(c.double()),
        });
        NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            exemplars: self.list(2, Self::exemplar),
            flags: self.below(2) as u32,
            value,
        }
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        let explicit_bounds: Vec<f64> = match self.one_in(6) {
            true => self.list(4, Self::double),
            false => (0..self.below(5)).map(|n| n as f64 * 2.5).collect(),
        };
        let buckets = match self.below(6) {
            0 => self.below(5),
            1 if explicit_bounds.is_empty() => 0,
            _ => explicit_bounds.len() + 1,
        };
        HistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.integer(),
            sum: self.maybe(Self::double),
            bucket_counts: (0..buckets).map(|_| self.integer()).collect(),
            explicit_bounds,
            exemplars: self.list(2, Self::exemplar),
            flags: self.below(2) as u32,
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
        }
    }

    fn buckets(&mut self) -> Buckets {
        Buckets { offset: self.number(-50, 50), bucket_counts: self.list(6, Self::integer) }
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.integer(),
            sum: self.maybe(Self::double),
            scale: self.number(-10, 20),
            zero_count: self.integer(),
            positive: self.maybe(Self::buckets),
            negative: self.maybe(Self::buckets),
            flags: self.below(2) as u32,
            exemplars: self.list(2, Self::exemplar),
            min: self.maybe(Self::double),
            max: self.maybe(Self::double),
            zero_threshold: self.double(),
        }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.integer(),
            sum: self.double(),
            quantile_values: self.list(3, |c| ValueAtQuantile { quantile: c.double(), value: c.double() }),
            flags: self.below(2) as u32,
        }
    }

    pub(crate) fn metric(&mut self) -> Metric {
        let temporality = self.number(0, 2);
        let data = match self.below(11) {
            0 => None,
            1 | 2 => Some(Data::Gauge(Gauge { data_points: self.list(4, Self::number_point) })),
            3 | 4 => Some(Data::Sum(Sum {
                data_points: self.list(4, Self::number_point),
                aggregation_temporality: temporality,
                is_monotonic: self.one_in(2),
            })),
            5 | 6 => Some(Data::Histogram(Histogram {
                data_points: self.list(3, Self::histogram_point),
                aggregation_temporality: temporality,
            })),
            7 | 8 => Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.list(3, Self::exponential_point),
                aggregation_temporality: temporality,
            })),
            _ => Some(Data::Summary(Summary { data_points: self.list(3, Self::summary_point) })),
        };
        Metric {
            name: self.text(),
            description: self.text(),
            unit: self.text(),
            metadata: self.attributes(),
            data,
        }
    }

    pub(crate) fn resource_metrics(&mut self) -> ResourceMetrics {
        ResourceMetrics {
            resource: self.maybe(Self::resource),
            scope_metrics: self.list(2, |c| ScopeMetrics {
                scope: c.maybe(Self::scope),
                metrics: c.list(3, Self::metric),
                schema_url: c.text(),
            }),
            schema_url: self.text(),
        }
    }

    pub(crate) fn metrics(&mut self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest { resource_metrics: self.list(2, Self::resource_metrics) }
    }

    fn log_record(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.time(),
            observed_time_unix_nano: self.time(),
            severity_number: self.number(0, 24),
            severity_text: self.text(),
            body: self.maybe(|c| c.any(3)),
            attributes: self.attributes(),
            dropped_attributes_count: self.integer() as u32,
            flags: self.integer() as u32,
            trace_id: self.id(16),
            span_id: self.id(8),
            event_name: self.text(),
        }
    }

    pub(crate) fn resource_logs(&mut self) -> ResourceLogs {
        ResourceLogs {
            resource: self.maybe(Self::resource),
            scope_logs: self.list(2, |c| ScopeLogs {
                scope: c.maybe(Self::scope),
                log_records: c.list(4, Self::log_record),
                schema_url: c.text(),
            }),
            schema_url: self.text(),
        }
    }

    pub(crate) fn logs(&mut self) -> ExportLogsServiceRequest {
        ExportLogsServiceRequest { resource_logs: self.list(2, Self::resource_logs) }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.text(),
            parent_span_id: self.id(8),
            flags: self.integer() as u32,
            name: self.text(),
            kind: self.number(0, 5),
            start_time_unix_nano: self.time(),
            end_time_unix_nano: self.time(),
            attributes: self.attributes(),
            dropped_attributes_count: self.integer() as u32,
            events: self.list(2, |c| Event {
                time_unix_nano: c.time(),
                name: c.text(),
                attributes: c.attributes(),
                dropped_attributes_count: c.integer() as u32,
            }),
            dropped_events_count: self.integer() as u32,
            links: self.list(2, |c| Link {
                trace_id: c.id(16),
                span_id: c.id(8),
                trace_state: c.text(),
                attributes: c.attributes(),
                dropped_attributes_count: c.integer() as u32,
                flags: c.integer() as u32,
            }),
            dropped_links_count: self.integer() as u32,
            status: self.maybe(|c| Status { message: c.text(), code: c.number(0, 2) }),
        }
    }

    pub(crate) fn resource_spans(&mut self) -> ResourceSpans {
        ResourceSpans {
            resource: self.maybe(Self::resource),
            scope_spans: self.list(2, |c| ScopeSpans {
                scope: c.maybe(Self::scope),
                spans: c.list(4, Self::span),
                schema_url: c.text(),
            }),
            schema_url: self.text(),
        }
    }

    pub(crate) fn traces(&mut self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest { resource_spans: self.list(2, Self::resource_spans) }
    }
}
