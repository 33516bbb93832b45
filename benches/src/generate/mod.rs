//! Templates of requests that look like an OpenTelemetry Collector's: a few resources, several attributes an item.

mod logs;
mod metrics;
mod traces;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::pool::Template;
use crate::signal::Signal;

/// Most bytes that the templates of one run take.
const POOL_BYTES_MAX: usize = 1 << 30;

/// Fewest templates where the number of series or streams asks for less: their texts differ.
const TEMPLATES_MIN: usize = 8;

/// Templates that together hold every one of `streams` series (metrics) or streams (logs, traces), with `batch`
/// items each.
///
/// Errors where the templates would need more than 1 GiB of memory.
pub fn templates(signal: Signal, streams: usize, batch: usize) -> Result<Vec<Template>, String> {
    assert!(streams > 0 && batch > 0, "the command line refuses zero");
    let count = match signal {
        Signal::Metrics => streams.div_ceil(batch),
        Signal::Logs | Signal::Traces => {
            streams.div_ceil(RESOURCES_PER_REQUEST.min(batch)).max(TEMPLATES_MIN)
        }
    };
    let (mut templates, mut bytes) = (Vec::new(), 0);
    for number in 0..count {
        let template = match signal {
            Signal::Metrics => metrics::template(number * batch, streams, batch),
            Signal::Logs => logs::template(number * RESOURCES_PER_REQUEST, streams, batch),
            Signal::Traces => traces::template(number * RESOURCES_PER_REQUEST, streams, batch),
        };
        bytes += template.len();
        if bytes > POOL_BYTES_MAX {
            return Err(format!(
                "{streams} series or streams in batches of {batch} need more than 1 GiB of pre-encoded requests"
            ));
        }
        templates.push(template);
    }
    Ok(templates)
}

/// Resources in one request of logs or traces, as a collector's batch processor would gather them.
const RESOURCES_PER_REQUEST: usize = 5;

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn resource(number: usize) -> Resource {
    let service = SERVICES[number % SERVICES.len()];
    Resource {
        attributes: vec![
            text("service.name", service),
            text("service.namespace", "shop"),
            text("service.instance.id", format!("{service}-{number:06}")),
            text("service.version", format!("1.{}.0", number % 7)),
            text("host.name", format!("node-{:04}", number / 4)),
            text("deployment.environment.name", "production"),
        ],
        ..Default::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "otelload".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    }
}

const SERVICES: [&str; 8] =
    ["checkout", "cart", "payment", "catalog", "frontend", "shipping", "currency", "recommendation"];
const METHODS: [&str; 5] = ["GET", "GET", "GET", "POST", "PUT"];
const ROUTES: [&str; 6] =
    ["/", "/api/cart", "/api/cart/{item}", "/api/checkout", "/api/products/{id}", "/api/recommendations"];
const STATUSES: [i64; 10] = [200, 200, 200, 200, 200, 200, 201, 304, 404, 500];

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;
    use std::collections::BTreeSet;

    const TIME: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn the_templates_of_metrics_hold_every_series_once() {
        let templates = templates(Signal::Metrics, 2_500, 1_000).expect("templates");
        let mut series = BTreeSet::new();
        let mut points = 0;
        for template in &templates {
            let request =
                ExportMetricsServiceRequest::decode(template.request(1, 2, TIME)).expect("valid protobuf");
            for resource in request.resource_metrics {
                let identity = format!("{:?}", resource.resource);
                for metric in resource.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                    let data_points = match metric.data.expect("data") {
                        Data::Gauge(gauge) => gauge.data_points,
                        Data::Sum(sum) => sum.data_points,
                        other => panic!("unexpected {other:?}"),
                    };
                    for point in data_points {
                        assert_eq!(point.time_unix_nano, TIME);
                        series.insert(format!("{identity}{}{:?}", metric.name, point.attributes));
                        points += 1;
                    }
                }
            }
        }
        assert_eq!((series.len(), points), (2_500, 2_500));
    }

    #[test]
    fn a_request_of_logs_has_as_many_records_as_asked() {
        let templates = templates(Signal::Logs, 20, 103).expect("templates");
        for template in &templates {
            let request =
                ExportLogsServiceRequest::decode(template.request(1, 2, TIME)).expect("valid protobuf");
            let records: Vec<_> = request
                .resource_logs
                .into_iter()
                .flat_map(|r| r.scope_logs)
                .flat_map(|s| s.log_records)
                .collect();
            assert_eq!(records.len(), 103);
            assert_eq!(template.items(), 103);
            assert_eq!(template.field_count(Field::Time), 2 * 103);
            assert!(
                records.iter().all(|r| r.time_unix_nano >= TIME && r.time_unix_nano < TIME + 1_000_000_000)
            );
        }
    }

    #[test]
    fn every_parent_is_a_span_of_the_same_trace_and_ids_are_unique() {
        let templates = templates(Signal::Traces, 10, 64).expect("templates");
        let request =
            ExportTraceServiceRequest::decode(templates[0].request(1, 2, TIME)).expect("valid protobuf");
        let spans: Vec<_> =
            request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect();
        let ids: BTreeSet<_> = spans.iter().map(|s| (s.trace_id.clone(), s.span_id.clone())).collect();
        assert_eq!((spans.len(), ids.len()), (64, 64));
        for span in &spans {
            assert!(span.start_time_unix_nano < span.end_time_unix_nano);
            assert!(
                span.parent_span_id.is_empty()
                    || ids.contains(&(span.trace_id.clone(), span.parent_span_id.clone()))
            );
        }
        assert!(spans.iter().any(|s| s.parent_span_id.is_empty()));
    }

    use crate::pool::Field;
}
