//! Requests of metrics: gauges and cumulative sums, 100 series a resource, four attributes a point.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value,
};
use prost::Message;

use super::{METHODS, ROUTES, int, resource, scope, text};
use crate::pool::{Field, Template};

const SERIES_PER_METRIC: usize = 10;
const METRICS_PER_RESOURCE: usize = 10;
const SERIES_PER_RESOURCE: usize = SERIES_PER_METRIC * METRICS_PER_RESOURCE;

/// A fixed start: one process that never restarted, so that a cumulative series stays one.
const START_UNIX_NANO: u64 = 1_700_000_000_000_000_000;

/// One point for each of `batch` series from `first` on; fewer where `series` ends before.
pub(super) fn template(first: usize, series: usize, batch: usize) -> Template {
    let end = (first + batch).min(series);
    let mut request = ExportMetricsServiceRequest::default();
    for number in first..end {
        let starts_resource = number % SERIES_PER_RESOURCE == 0;
        if number == first || starts_resource {
            request.resource_metrics.push(ResourceMetrics {
                resource: Some(resource(number / SERIES_PER_RESOURCE)),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope()), ..Default::default() }],
                ..Default::default()
            });
        }
        let metrics =
            &mut request.resource_metrics.last_mut().expect("pushed for the first series").scope_metrics[0]
                .metrics;
        if metrics.is_empty() || number % SERIES_PER_METRIC == 0 {
            metrics.push(metric(number / SERIES_PER_METRIC % METRICS_PER_RESOURCE));
        }
        let data = metrics.last_mut().expect("pushed for the first series").data.as_mut();
        match data.expect("metric() sets it") {
            Data::Gauge(gauge) => gauge.data_points.push(point(number, number - first, false)),
            Data::Sum(sum) => sum.data_points.push(point(number, number - first, true)),
            _ => unreachable!("metric() makes gauges and sums only"),
        }
    }
    Template::new(request.encode_to_vec(), (end - first) as u64)
}

/// Even ones are monotonic cumulative sums, odd ones gauges.
fn metric(number: usize) -> Metric {
    let data = if number.is_multiple_of(2) {
        Data::Sum(Sum {
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
            ..Default::default()
        })
    } else {
        Data::Gauge(Gauge::default())
    };
    let (name, unit) = [
        ("http.server.requests", "{request}"),
        ("process.memory.usage", "By"),
        ("http.server.errors", "{error}"),
        ("queue.length", "{item}"),
        ("db.client.operations", "{operation}"),
        ("db.client.connection.count", "{connection}"),
        ("rpc.client.requests", "{request}"),
        ("jvm.thread.count", "{thread}"),
        ("messaging.client.sent.messages", "{message}"),
        ("system.cpu.utilization", "1"),
    ][number];
    Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Default::default() }
}

fn point(series: usize, index: usize, counter: bool) -> NumberDataPoint {
    let within = series % SERIES_PER_METRIC;
    let (value, start) = if counter {
        (Value::AsInt(Field::Counter.mark_u64(index) as i64), START_UNIX_NANO)
    } else {
        (Value::AsDouble(f64::from_bits(Field::Gauge.mark_u64(index))), 0)
    };
    NumberDataPoint {
        attributes: vec![
            text("http.request.method", METHODS[within % METHODS.len()]),
            text("http.route", ROUTES[within % ROUTES.len()]),
            text("server.address", format!("backend-{within}.shop.svc")),
            int("server.port", 8080),
        ],
        start_time_unix_nano: start,
        // One scrape: all points of a request have its time.
        time_unix_nano: Field::Time.mark_u64(0),
        value: Some(value),
        ..Default::default()
    }
}
