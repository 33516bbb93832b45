//! OTLP requests that carry items.

use std::collections::BTreeMap;
use std::ops::Range;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::item::{Item, Lane, Run, SERVICE, Signal, TRACE_STRIDE};

/// What one request carries: the items `sequences` of a writer, and perhaps a record that another one carries too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub signal: Signal,
    pub writer: u32,
    pub sequences: Range<u64>,
    /// Logs only.
    pub echo: Option<u64>,
}

impl Block {
    pub fn count(&self) -> u64 {
        self.sequences.end - self.sequences.start
    }

    fn lanes(&self) -> BTreeMap<u64, Vec<Item>> {
        let mut lanes: BTreeMap<u64, Vec<Item>> = BTreeMap::new();
        for sequence in self.sequences.clone() {
            let item = Item { writer: self.writer, sequence };
            lanes.entry(item.lane()).or_default().push(item);
        }
        lanes
    }
}

impl Run {
    /// The request in protobuf, always the same bytes for the same block.
    pub fn request(self, block: &Block) -> Vec<u8> {
        match block.signal {
            Signal::Metrics => {
                let resource_metrics = (block.lanes().iter())
                    .map(|(lane, items)| {
                        let metric = self.metric(Lane::of(*lane), items, |item| self.value(item));
                        self.resource_metrics(block.writer, *lane, metric)
                    })
                    .collect();
                ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
            }
            Signal::Logs => ExportLogsServiceRequest { resource_logs: self.logs(block) }.encode_to_vec(),
            Signal::Traces => {
                let spans = block.sequences.clone();
                let spans =
                    spans.map(|sequence| self.span(Item { writer: block.writer, sequence })).collect();
                let scope_spans = vec![ScopeSpans { scope: scope(), spans, schema_url: String::new() }];
                let resource = self.resource(block.writer, 0);
                let group = ResourceSpans { resource, scope_spans, schema_url: String::new() };
                ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec()
            }
        }
    }

    /// A request that gives the gauges of a block their lesser values, which may never be seen beside the greater ones:
    /// the item is the key, and the greatest value stays (PROTOCOL, failure 14). `None` where the block has no gauge.
    pub fn lesser_request(self, block: &Block) -> Option<Vec<u8>> {
        let is_gauge = |lane: &u64| block.signal == Signal::Metrics && Lane::of(*lane) == Lane::Gauge;
        let group = |(lane, items): (u64, Vec<Item>)| {
            let metric = self.metric(Lane::Gauge, &items, |item| self.lesser_value(item));
            self.resource_metrics(block.writer, lane, metric)
        };
        let lanes = block.lanes().into_iter().filter(|(lane, _)| is_gauge(lane));
        let resource_metrics: Vec<ResourceMetrics> = lanes.map(group).collect();
        let request = ExportMetricsServiceRequest { resource_metrics };
        (!request.resource_metrics.is_empty()).then(|| request.encode_to_vec())
    }

    fn resource_metrics(self, writer: u32, lane: u64, metric: Metric) -> ResourceMetrics {
        ResourceMetrics {
            resource: self.resource(writer, lane),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: vec![metric],
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }
    }

    fn resource(self, writer: u32, lane: u64) -> Option<Resource> {
        Some(Resource {
            attributes: vec![
                text("service.name", SERVICE),
                text("service.instance.id", &self.instance(writer, lane)),
            ],
            ..Resource::default()
        })
    }

    /// The metric of a lane; `gauge_value` gives the values of gauges.
    fn metric(self, lane: Lane, items: &[Item], gauge_value: impl Fn(Item) -> i64) -> Metric {
        let value_of = |item| if lane == Lane::Sum { 1 } else { gauge_value(item) };
        let number = |item: &Item| NumberDataPoint {
            time_unix_nano: self.time_unix_nano(item.sequence),
            value: Some(number_data_point::Value::AsInt(value_of(*item))),
            ..NumberDataPoint::default()
        };
        let delta = AggregationTemporality::Delta.into();
        let (name, data) = match lane {
            Lane::Gauge => {
                let data_points = items.iter().map(number).collect();
                ("jepsen.items", metric::Data::Gauge(Gauge { data_points }))
            }
            Lane::Sum => {
                let data_points = items.iter().map(number).collect();
                let sum = Sum { data_points, aggregation_temporality: delta, is_monotonic: false };
                ("jepsen.ones", metric::Data::Sum(sum))
            }
            Lane::Histogram => {
                let data_points = items.iter().map(|item| self.histogram(*item)).collect();
                let histogram = Histogram { data_points, aggregation_temporality: delta };
                ("jepsen.sizes", metric::Data::Histogram(histogram))
            }
        };
        Metric { name: name.into(), data: Some(data), ..Metric::default() }
    }

    fn histogram(self, item: Item) -> HistogramDataPoint {
        let value = self.value(item) as f64;
        HistogramDataPoint {
            time_unix_nano: self.time_unix_nano(item.sequence),
            count: 1,
            sum: Some(value),
            bucket_counts: if value <= 2e9 { vec![1, 0] } else { vec![0, 1] },
            explicit_bounds: vec![2e9],
            ..HistogramDataPoint::default()
        }
    }

    fn logs(self, block: &Block) -> Vec<ResourceLogs> {
        let mut lanes: BTreeMap<u64, Vec<LogRecord>> = BTreeMap::new();
        for (lane, items) in block.lanes() {
            let records = items.iter().map(|item| self.record(item.sequence, self.body(*item)));
            lanes.insert(lane, records.collect());
        }
        if let Some(echo) = block.echo {
            let lane = Item { writer: block.writer, sequence: echo }.lane();
            let record = self.record(echo, self.echo_body(block.writer, echo));
            lanes.entry(lane).or_default().push(record);
        }
        let group = |(lane, log_records)| ResourceLogs {
            resource: self.resource(block.writer, lane),
            scope_logs: vec![ScopeLogs { scope: scope(), log_records, schema_url: String::new() }],
            schema_url: String::new(),
        };
        lanes.into_iter().map(group).collect()
    }

    fn record(self, sequence: u64, body: String) -> LogRecord {
        LogRecord {
            time_unix_nano: self.time_unix_nano(sequence),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
            ..LogRecord::default()
        }
    }

    fn span(self, item: Item) -> Span {
        let (trace_id, span_id) = self.span_ids(item);
        let first = Item { writer: item.writer, sequence: Item::first_of_trace(item.trace()) };
        let is_root = item.sequence < first.sequence + TRACE_STRIDE;
        let parent = if is_root { Vec::new() } else { self.span_ids(first).1.to_vec() };
        let start = self.time_unix_nano(item.sequence);
        Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            parent_span_id: parent,
            name: "work".into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1000,
            ..Span::default()
        }
    }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "jepsen-lite".into(), ..InstrumentationScope::default() })
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}
