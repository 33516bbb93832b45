//! Rows made up from a seed, of every shape that the model allows: for tests, the simulation and load.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use oteld_env::Random;

use super::identity::{series_id, stream_id};
use super::{
    AnyValue, Attributes, Exemplar, ExponentialBuckets, ExponentialHistogram, Histogram, LogRecord, LogRow,
    Metric, MetricKind, MetricRow, Point, PointValue, Quantile, RequestId, Resource, Rows, Scope, Series,
    Signal, Span, SpanEvent, SpanLink, SpanRow, Stream, Summary, Temporality, Tenant,
};

/// Where made-up rows belong.
#[derive(Clone, Debug)]
pub struct Sample {
    pub tenant: Tenant,
    /// Event times, start included, end excluded; must not be empty and not start at 0.
    pub time_unix_nano: Range<u64>,
    /// The request of log rows, whose ordinals count from 0.
    pub request: RequestId,
}

impl Sample {
    /// `count` rows of a few series or streams, in no order. Keys may repeat among points and spans.
    pub fn rows(&self, random: &Random, signal: Signal, count: usize) -> Rows {
        match signal {
            Signal::Metrics => {
                let series: Vec<_> = (0..count / 8 + 1).map(|_| self.series(random)).collect();
                let row = |_| {
                    let series = pick(random, &series).clone();
                    MetricRow { point: self.point(random, series.metric.kind), series }
                };
                Rows::Metrics((0..count).map(row).collect())
            }
            Signal::Logs => {
                let streams: Vec<_> = (0..count / 16 + 1).map(|_| self.stream(random)).collect();
                let row = |ordinal| LogRow {
                    stream: pick(random, &streams).clone(),
                    request: self.request,
                    ordinal,
                    record: self.record(random),
                };
                Rows::Logs((0..count as u32).map(row).collect())
            }
            Signal::Traces => {
                let streams: Vec<_> = (0..count / 16 + 1).map(|_| self.stream(random)).collect();
                let row = |_| SpanRow { stream: pick(random, &streams).clone(), span: self.span(random) };
                Rows::Traces((0..count).map(row).collect())
            }
        }
    }

    fn series(&self, random: &Random) -> Arc<Series> {
        let resource = Arc::new(resource(random));
        let scope = Arc::new(scope(random));
        let metric = Arc::new(Metric {
            name: text(random),
            unit: word(random),
            description: text(random),
            kind: kind(random),
            metadata: attributes(random, 0),
        });
        let attributes = attributes(random, 0);
        let id = series_id(&self.tenant, &resource, &scope, &metric, &attributes);
        Arc::new(Series { id, resource, scope, metric, attributes })
    }

    fn stream(&self, random: &Random) -> Arc<Stream> {
        let (resource, scope) = (Arc::new(resource(random)), Arc::new(scope(random)));
        Arc::new(Stream { id: stream_id(&self.tenant, &resource, &scope), resource, scope })
    }

    fn point(&self, random: &Random, kind: MetricKind) -> Point {
        Point {
            time_unix_nano: random.in_range(self.time_unix_nano.clone()),
            start_time_unix_nano: if chance(random, 2) { 0 } else { number(random) },
            flags: number(random) as u32,
            value: point_value(random, kind),
            exemplars: some(random, 2, || Exemplar {
                time_unix_nano: number(random),
                value: number_value(random),
                trace_id: id(random),
                span_id: id(random),
                filtered_attributes: attributes(random, 0),
            }),
        }
    }

    fn record(&self, random: &Random) -> LogRecord {
        let effective = random.in_range(self.time_unix_nano.clone());
        let without_time = chance(random, 4);
        LogRecord {
            time_unix_nano: if without_time { 0 } else { effective },
            observed_time_unix_nano: if without_time { effective } else { number(random) },
            severity_number: random.in_range(0..25) as u8,
            severity_text: word(random),
            event_name: word(random),
            body: if chance(random, 4) { value(random, 0) } else { AnyValue::String(text(random)) },
            attributes: attributes(random, 0),
            dropped_attributes_count: small(random) as u32,
            flags: number(random) as u32,
            trace_id: id(random),
            span_id: id(random),
        }
    }

    fn span(&self, random: &Random) -> Span {
        let start_time_unix_nano = random.in_range(self.time_unix_nano.clone());
        Span {
            trace_id: id(random),
            span_id: id(random),
            parent_span_id: id(random),
            trace_state: word(random),
            flags: number(random) as u32,
            name: text(random),
            kind: random.in_range(0..6) as u8,
            start_time_unix_nano,
            end_time_unix_nano: if chance(random, 8) {
                number(random)
            } else {
                start_time_unix_nano.saturating_add(random.in_range(0..1 << 34))
            },
            attributes: attributes(random, 0),
            dropped_attributes_count: small(random) as u32,
            events: some(random, 3, || SpanEvent {
                time_unix_nano: number(random),
                name: text(random),
                attributes: attributes(random, 0),
                dropped_attributes_count: small(random) as u32,
            }),
            dropped_events_count: number(random) as u32,
            links: some(random, 2, || SpanLink {
                trace_id: id(random),
                span_id: id(random),
                trace_state: word(random),
                attributes: attributes(random, 0),
                dropped_attributes_count: small(random) as u32,
                flags: number(random) as u32,
            }),
            dropped_links_count: small(random) as u32,
            status_message: word(random),
            status_code: random.in_range(0..3) as u8,
        }
    }
}

fn resource(random: &Random) -> Resource {
    Resource {
        attributes: attributes(random, 0),
        dropped_attributes_count: small(random) as u32,
        schema_url: word(random),
    }
}

fn scope(random: &Random) -> Scope {
    Scope {
        name: word(random),
        version: word(random),
        attributes: if chance(random, 4) { attributes(random, 0) } else { Attributes::default() },
        dropped_attributes_count: small(random) as u32,
        schema_url: word(random),
    }
}

fn kind(random: &Random) -> MetricKind {
    let temporality = *pick(random, &[Temporality::Unspecified, Temporality::Delta, Temporality::Cumulative]);
    match random.in_range(0..5) {
        0 => MetricKind::Gauge,
        1 => MetricKind::Sum { monotonic: chance(random, 2), temporality },
        2 => MetricKind::Histogram { temporality },
        3 => MetricKind::ExponentialHistogram { temporality },
        _ => MetricKind::Summary,
    }
}

fn number_value(random: &Random) -> PointValue {
    match random.in_range(0..8) {
        0 => PointValue::None,
        1..4 => PointValue::Int(number(random) as i64),
        _ => PointValue::Double(double(random)),
    }
}

fn point_value(random: &Random, kind: MetricKind) -> PointValue {
    let optional = || if chance(random, 3) { None } else { Some(double(random)) };
    match kind {
        MetricKind::Gauge | MetricKind::Sum { .. } => number_value(random),
        MetricKind::Histogram { .. } => {
            let bounds = random.in_range(0..6) as usize;
            PointValue::Histogram(Box::new(Histogram {
                count: number(random),
                sum: optional(),
                min: optional(),
                max: optional(),
                bucket_counts: if chance(random, 8) { Vec::new() } else { numbers(random, bounds + 1) },
                explicit_bounds: (0..bounds).map(|bound| bound as f64 * 2.5).collect(),
            }))
        }
        MetricKind::ExponentialHistogram { .. } => {
            let buckets = || ExponentialBuckets {
                offset: small(random) as i32 - 100,
                bucket_counts: numbers(random, random.in_range(0..8) as usize),
            };
            PointValue::ExponentialHistogram(Box::new(ExponentialHistogram {
                count: number(random),
                sum: optional(),
                min: optional(),
                max: optional(),
                scale: random.in_range(0..31) as i32 - 10,
                zero_count: number(random),
                zero_threshold: double(random),
                positive: buckets(),
                negative: buckets(),
            }))
        }
        MetricKind::Summary => PointValue::Summary(Box::new(Summary {
            count: number(random),
            sum: double(random),
            quantiles: some(random, 4, || Quantile { quantile: double(random), value: double(random) }),
        })),
    }
}

/// Up to five pairs, out of few keys, so that keys repeat within and across rows.
fn attributes(random: &Random, depth: u32) -> Attributes {
    const KEYS: [&str; 8] =
        ["", "a", "host.name", "http.route", "k8s.pod.name", "service.name", "schlüssel", "user.id"];
    Attributes(some(random, 6, || (Arc::from(*pick(random, &KEYS)), value(random, depth))))
}

fn value(random: &Random, depth: u32) -> AnyValue {
    match random.in_range(0..if depth < 3 { 12 } else { 9 }) {
        0 => AnyValue::Empty,
        1..5 => AnyValue::String(text(random)),
        5 => AnyValue::Bool(chance(random, 2)),
        6 => AnyValue::Int(number(random) as i64),
        7 => AnyValue::Double(double(random)),
        8 | 9 => AnyValue::Bytes(Bytes::from(some(random, 20, || random.next_u64() as u8))),
        10 => AnyValue::Array(some(random, 4, || value(random, depth + 1))),
        _ => AnyValue::KeyValues(attributes(random, depth + 1)),
    }
}

fn word(random: &Random) -> Arc<str> {
    Arc::from(*pick(random, &["", "a", "INFO", "ms", "1.2.3", "https://opentelemetry.io/schemas/1.30.0"]))
}

fn text(random: &Random) -> Arc<str> {
    match random.in_range(0..4) {
        0 => word(random),
        1 => format!("GET /items/{}", random.in_range(0..9)).into(),
        2 => format!("user {} took {} ms – δ", random.next_u64(), small(random)).into(),
        _ => "the quick brown fox jumps over the lazy dog".into(),
    }
}

fn double(random: &Random) -> f64 {
    match random.in_range(0..6) {
        0 => f64::from_bits(random.next_u64()),
        1 => *pick(random, &[f64::NAN, -0.0, 0.0, f64::INFINITY, f64::MIN_POSITIVE, -f64::MAX]),
        2 => small(random) as f64,
        _ => random.in_range(0..1_000_000) as f64 / 100.0,
    }
}

fn number(random: &Random) -> u64 {
    match random.in_range(0..4) {
        0 => random.next_u64(),
        1 => *pick(random, &[0, 1, u64::MAX, 1 << 63, i64::MAX as u64]),
        _ => small(random),
    }
}

fn numbers(random: &Random, count: usize) -> Vec<u64> {
    (0..count).map(|_| number(random)).collect()
}

fn small(random: &Random) -> u64 {
    random.in_range(0..200)
}

/// All zero, one of a few, or any.
fn id<const N: usize>(random: &Random) -> [u8; N] {
    match random.in_range(0..4) {
        0 => [0; N],
        1 => [random.in_range(1..4) as u8; N],
        _ => std::array::from_fn(|_| random.next_u64() as u8),
    }
}

fn some<T>(random: &Random, below: u64, item: impl Fn() -> T) -> Vec<T> {
    (0..random.in_range(0..below)).map(|_| item()).collect()
}

fn chance(random: &Random, one_in: u64) -> bool {
    random.in_range(0..one_in) == 0
}

fn pick<'a, T>(random: &Random, from: &'a [T]) -> &'a T {
    &from[random.in_range(0..from.len() as u64) as usize]
}
