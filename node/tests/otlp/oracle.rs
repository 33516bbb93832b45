//! The plain model of decoding: prost's messages, mapped to rows one by one.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{self as common, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord as ProtoLog;
use opentelemetry_proto::tonic::metrics::v1::{self as metrics, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::Span as ProtoSpan;
use oteld_store::model::identity::{series_id, stream_id};
use oteld_store::model::*;
use prost::Message;

pub(crate) const REQUEST: RequestId = RequestId(42);

/// The rows of a request, and how many of its items are rejected; `None` when it is malformed.
pub(crate) fn decode(signal: Signal, message: &[u8]) -> Option<(Rows, u64)> {
    let mut rejected = 0;
    let rows = match signal {
        Signal::Metrics => metric_rows(ExportMetricsServiceRequest::decode(message).ok()?, &mut rejected),
        Signal::Logs => log_rows(ExportLogsServiceRequest::decode(message).ok()?, &mut rejected),
        Signal::Traces => span_rows(ExportTraceServiceRequest::decode(message).ok()?, &mut rejected),
    };
    Some((rows, rejected))
}

fn any(value: Option<common::AnyValue>) -> AnyValue {
    match value.and_then(|value| value.value) {
        None | Some(Value::StringValueStrindex(_)) => AnyValue::Empty,
        Some(Value::StringValue(text)) => text.into(),
        Some(Value::BoolValue(value)) => value.into(),
        Some(Value::IntValue(value)) => value.into(),
        Some(Value::DoubleValue(value)) => value.into(),
        Some(Value::BytesValue(bytes)) => AnyValue::Bytes(bytes.into()),
        Some(Value::ArrayValue(array)) => {
            AnyValue::Array(array.values.into_iter().map(|value| any(Some(value))).collect())
        }
        Some(Value::KvlistValue(list)) => AnyValue::KeyValues(attributes(list.values)),
    }
}

fn attributes(list: Vec<common::KeyValue>) -> Attributes {
    list.into_iter().map(|pair| (pair.key, any(pair.value))).collect()
}

fn resource(resource: Option<ProtoResource>, schema_url: String) -> Arc<Resource> {
    let resource = resource.unwrap_or_default();
    Arc::new(Resource {
        attributes: attributes(resource.attributes),
        dropped_attributes_count: resource.dropped_attributes_count,
        schema_url: schema_url.into(),
    })
}

fn scope(scope: Option<common::InstrumentationScope>, schema_url: String) -> Arc<Scope> {
    let scope = scope.unwrap_or_default();
    Arc::new(Scope {
        name: scope.name.into(),
        version: scope.version.into(),
        attributes: attributes(scope.attributes),
        dropped_attributes_count: scope.dropped_attributes_count,
        schema_url: schema_url.into(),
    })
}

fn stream(resource: &Arc<Resource>, scope: Arc<Scope>) -> Arc<Stream> {
    let id = stream_id(&Tenant::default(), resource, &scope);
    Arc::new(Stream { id, resource: resource.clone(), scope })
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    if bytes.is_empty() { Some([0; N]) } else { bytes.try_into().ok() }
}

fn small(number: i32, max: i32) -> u8 {
    if (0..=max).contains(&number) { number as u8 } else { 0 }
}

fn log_rows(request: ExportLogsServiceRequest, rejected: &mut u64) -> Rows {
    let mut rows = Vec::new();
    let mut ordinal = 0;
    for group in request.resource_logs {
        let resource = resource(group.resource, group.schema_url);
        for group in group.scope_logs {
            let stream = stream(&resource, scope(group.scope, group.schema_url));
            for record in group.log_records {
                let record = log_record(record);
                match record.effective_time_unix_nano() {
                    0 => *rejected += 1,
                    _ => rows.push(LogRow { stream: stream.clone(), request: REQUEST, ordinal, record }),
                }
                ordinal += 1;
            }
        }
    }
    Rows::Logs(rows)
}

fn log_record(record: ProtoLog) -> LogRecord {
    LogRecord {
        time_unix_nano: record.time_unix_nano,
        observed_time_unix_nano: record.observed_time_unix_nano,
        severity_number: small(record.severity_number, 24),
        severity_text: record.severity_text.into(),
        event_name: record.event_name.into(),
        body: any(record.body),
        attributes: attributes(record.attributes),
        dropped_attributes_count: record.dropped_attributes_count,
        flags: record.flags,
        trace_id: id(&record.trace_id).unwrap_or_default(),
        span_id: id(&record.span_id).unwrap_or_default(),
    }
}

fn span_rows(request: ExportTraceServiceRequest, rejected: &mut u64) -> Rows {
    let mut rows = Vec::new();
    for group in request.resource_spans {
        let resource = resource(group.resource, group.schema_url);
        for group in group.scope_spans {
            let stream = stream(&resource, scope(group.scope, group.schema_url));
            for proto in group.spans {
                match span(proto) {
                    Some(span) => rows.push(SpanRow { stream: stream.clone(), span }),
                    None => *rejected += 1,
                }
            }
        }
    }
    Rows::Traces(rows)
}

fn span(span: ProtoSpan) -> Option<Span> {
    let trace_id = id(&span.trace_id).filter(|id| *id != [0; 16])?;
    let span_id = id(&span.span_id).filter(|id| *id != [0; 8])?;
    let parent_span_id = id(&span.parent_span_id)?;
    if span.start_time_unix_nano == 0 {
        return None;
    }
    let link_count = span.links.len();
    let links: Vec<SpanLink> = span
        .links
        .into_iter()
        .filter_map(|link| {
            Some(SpanLink {
                trace_id: id(&link.trace_id)?,
                span_id: id(&link.span_id)?,
                trace_state: link.trace_state.into(),
                attributes: attributes(link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
        })
        .collect();
    let status = span.status.unwrap_or_default();
    Some(Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state: span.trace_state.into(),
        flags: span.flags,
        name: span.name.into(),
        kind: small(span.kind, 5),
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span
            .events
            .into_iter()
            .map(|event| SpanEvent {
                time_unix_nano: event.time_unix_nano,
                name: event.name.into(),
                attributes: attributes(event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: span.dropped_events_count,
        dropped_links_count: span.dropped_links_count.saturating_add((link_count - links.len()) as u32),
        links,
        status_message: status.message.into(),
        status_code: small(status.code, 2),
    })
}

fn metric_rows(request: ExportMetricsServiceRequest, rejected: &mut u64) -> Rows {
    let mut rows = Vec::new();
    for group in request.resource_metrics {
        let resource = resource(group.resource, group.schema_url);
        for group in group.scope_metrics {
            let scope = scope(group.scope, group.schema_url);
            for proto in group.metrics {
                let Some(data) = proto.data else { continue };
                let (kind, points) = points(data);
                let metric = Arc::new(Metric {
                    name: proto.name.into(),
                    unit: proto.unit.into(),
                    description: proto.description.into(),
                    kind,
                    metadata: attributes(proto.metadata),
                });
                for (attributes, point, valid) in points {
                    if !valid || metric.name.is_empty() || point.time_unix_nano == 0 {
                        *rejected += 1;
                        continue;
                    }
                    let id = series_id(&Tenant::default(), &resource, &scope, &metric, &attributes);
                    let (resource, scope, metric) = (resource.clone(), scope.clone(), metric.clone());
                    let series = Arc::new(Series { id, resource, scope, metric, attributes });
                    rows.push(MetricRow { series, point });
                }
            }
        }
    }
    Rows::Metrics(rows)
}

type Decoded = (Attributes, Point, bool);

fn points(data: Data) -> (MetricKind, Vec<Decoded>) {
    let temporality = |number: i32| match number {
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ => Temporality::Unspecified,
    };
    match data {
        Data::Gauge(gauge) => (MetricKind::Gauge, gauge.data_points.into_iter().map(number_point).collect()),
        Data::Sum(sum) => (
            MetricKind::Sum {
                monotonic: sum.is_monotonic,
                temporality: temporality(sum.aggregation_temporality),
            },
            sum.data_points.into_iter().map(number_point).collect(),
        ),
        Data::Histogram(histogram) => (
            MetricKind::Histogram { temporality: temporality(histogram.aggregation_temporality) },
            histogram.data_points.into_iter().map(histogram_point).collect(),
        ),
        Data::ExponentialHistogram(histogram) => (
            MetricKind::ExponentialHistogram { temporality: temporality(histogram.aggregation_temporality) },
            histogram.data_points.into_iter().map(exponential_point).collect(),
        ),
        Data::Summary(summary) => {
            (MetricKind::Summary, summary.data_points.into_iter().map(summary_point).collect())
        }
    }
}

fn exemplars(list: Vec<metrics::Exemplar>) -> Vec<Exemplar> {
    let value = |value| match value {
        None => PointValue::None,
        Some(metrics::exemplar::Value::AsInt(value)) => PointValue::Int(value),
        Some(metrics::exemplar::Value::AsDouble(value)) => PointValue::Double(value),
    };
    list.into_iter()
        .map(|exemplar| Exemplar {
            time_unix_nano: exemplar.time_unix_nano,
            value: value(exemplar.value),
            trace_id: id(&exemplar.trace_id).unwrap_or_default(),
            span_id: id(&exemplar.span_id).unwrap_or_default(),
            filtered_attributes: attributes(exemplar.filtered_attributes),
        })
        .collect()
}

fn number_point(proto: metrics::NumberDataPoint) -> Decoded {
    let value = match proto.value {
        None => PointValue::None,
        Some(metrics::number_data_point::Value::AsInt(value)) => PointValue::Int(value),
        Some(metrics::number_data_point::Value::AsDouble(value)) => PointValue::Double(value),
    };
    let point = Point {
        time_unix_nano: proto.time_unix_nano,
        start_time_unix_nano: proto.start_time_unix_nano,
        flags: proto.flags,
        value,
        exemplars: exemplars(proto.exemplars),
    };
    (attributes(proto.attributes), point, true)
}

fn histogram_point(proto: metrics::HistogramDataPoint) -> Decoded {
    let (counts, bounds) = (&proto.bucket_counts, &proto.explicit_bounds);
    let matching = counts.len() == bounds.len() + 1 || counts.is_empty() && bounds.is_empty();
    let increasing = (1..bounds.len()).all(|n| bounds[n - 1] < bounds[n]);
    let valid = matching && increasing && !bounds.iter().any(|bound| bound.is_nan());
    let point = Point {
        time_unix_nano: proto.time_unix_nano,
        start_time_unix_nano: proto.start_time_unix_nano,
        flags: proto.flags,
        value: PointValue::Histogram(Box::new(Histogram {
            count: proto.count,
            sum: proto.sum,
            min: proto.min,
            max: proto.max,
            bucket_counts: proto.bucket_counts,
            explicit_bounds: proto.explicit_bounds,
        })),
        exemplars: exemplars(proto.exemplars),
    };
    (attributes(proto.attributes), point, valid)
}

fn exponential_point(proto: metrics::ExponentialHistogramDataPoint) -> Decoded {
    let buckets = |buckets: Option<metrics::exponential_histogram_data_point::Buckets>| {
        let buckets = buckets.unwrap_or_default();
        ExponentialBuckets { offset: buckets.offset, bucket_counts: buckets.bucket_counts }
    };
    let (positive, negative) = (buckets(proto.positive), buckets(proto.negative));
    let fits = |buckets: &ExponentialBuckets| {
        buckets.offset.checked_add(i32::try_from(buckets.bucket_counts.len()).unwrap()).is_some()
    };
    let valid = fits(&positive) && fits(&negative);
    let point = Point {
        time_unix_nano: proto.time_unix_nano,
        start_time_unix_nano: proto.start_time_unix_nano,
        flags: proto.flags,
        value: PointValue::ExponentialHistogram(Box::new(ExponentialHistogram {
            count: proto.count,
            sum: proto.sum,
            min: proto.min,
            max: proto.max,
            scale: proto.scale,
            zero_count: proto.zero_count,
            zero_threshold: proto.zero_threshold,
            positive,
            negative,
        })),
        exemplars: exemplars(proto.exemplars),
    };
    (attributes(proto.attributes), point, valid)
}

fn summary_point(proto: metrics::SummaryDataPoint) -> Decoded {
    let quantiles = proto.quantile_values.iter();
    let point = Point {
        time_unix_nano: proto.time_unix_nano,
        start_time_unix_nano: proto.start_time_unix_nano,
        flags: proto.flags,
        value: PointValue::Summary(Box::new(Summary {
            count: proto.count,
            sum: proto.sum,
            quantiles: quantiles.map(|q| Quantile { quantile: q.quantile, value: q.value }).collect(),
        })),
        exemplars: Vec::new(),
    };
    (attributes(proto.attributes), point, true)
}
