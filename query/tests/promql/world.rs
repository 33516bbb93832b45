//! Rows on two leaves, and queries over them.

use std::collections::BTreeSet;
use std::sync::Arc;

use oteld_query::promql::number::format_sample;
use oteld_query::promql::{Answer, Data, NativeHistogram, Plan, Sample, Timeline, evaluate, leaf};
use oteld_query::{LeafContext, Limits, QueryError};
use oteld_store::model::identity::series_id;
use oteld_store::model::metric::FLAG_NO_RECORDED_VALUE;
use oteld_store::model::*;
use oteld_store::scan::{RowSet, ScanBudget};

/// Seconds since the Unix epoch at which tests' time begins.
pub(crate) const START: i64 = 1_700_000_000;

pub(crate) const GAUGE: MetricKind = MetricKind::Gauge;
pub(crate) const COUNTER: MetricKind =
    MetricKind::Sum { monotonic: true, temporality: Temporality::Cumulative };
pub(crate) const DELTA: MetricKind = MetricKind::Sum { monotonic: true, temporality: Temporality::Delta };

#[derive(Default)]
pub(crate) struct World {
    leaves: [RowSet; 2],
    series: usize,
    pub(crate) resource: Vec<(&'static str, &'static str)>,
    pub(crate) limits: Limits,
}

impl World {
    /// A point at `seconds` after [`START`].
    pub(crate) fn point(seconds: f64, value: PointValue) -> Point {
        let time_unix_nano = ((START as f64 + seconds) * 1000.0).round() as u64 * 1_000_000;
        Point { time_unix_nano, start_time_unix_nano: 0, flags: 0, value, exemplars: Vec::new() }
    }

    pub(crate) fn stale(seconds: f64) -> Point {
        Point { flags: FLAG_NO_RECORDED_VALUE, ..World::point(seconds, PointValue::None) }
    }

    /// Adds points of one series; series take turns on the leaves.
    pub(crate) fn add(
        &mut self,
        name: &str,
        unit: &str,
        kind: MetricKind,
        attributes: &[(&str, &str)],
        points: Vec<Point>,
    ) {
        let tenant = Tenant::default();
        let resource =
            Arc::new(Resource { attributes: self.resource.iter().copied().collect(), ..Resource::default() });
        let metric = Arc::new(Metric {
            name: name.into(),
            unit: unit.into(),
            description: "help".into(),
            kind,
            metadata: Attributes::default(),
        });
        let scope = Arc::new(Scope::default());
        let attributes: Attributes = attributes.iter().copied().collect();
        let id = series_id(&tenant, &resource, &scope, &metric, &attributes);
        let series = Arc::new(Series { id, resource, scope, metric, attributes });
        let rows = points.into_iter().map(|point| MetricRow { series: series.clone(), point }).collect();
        let place = self.series % 2;
        self.series += 1;
        self.leaves[place].add(&tenant, Shard(place as u32), Rows::Metrics(rows));
    }

    /// Samples of `value`s every `step` seconds from 0 on.
    pub(crate) fn samples(
        &mut self,
        name: &str,
        kind: MetricKind,
        attributes: &[(&str, &str)],
        step: f64,
        values: impl IntoIterator<Item = f64>,
    ) {
        let points = values.into_iter().enumerate();
        let points =
            points.map(|(i, value)| World::point(i as f64 * step, PointValue::Double(value))).collect();
        self.add(name, "", kind, attributes, points);
    }

    fn run(&self, plan: Result<Plan, QueryError>) -> Result<Answer, QueryError> {
        let plan = plan?;
        let budget = ScanBudget::unlimited();
        let request = plan.leaf_request();
        let mut replies = Vec::new();
        for (place, rows) in self.leaves.iter().enumerate().filter(|_| request.is_some()) {
            let context = LeafContext {
                scan: rows,
                tenant: Tenant::default(),
                shards: Arc::new(BTreeSet::from([Shard(place as u32)])),
                budget: &budget,
                limits: &self.limits,
            };
            replies.push(leaf(&context, request.as_ref().expect("filtered"))?);
        }
        evaluate(&plan, replies, &self.limits, &budget)
    }

    pub(crate) fn instant(&self, query: &str, seconds: f64) -> Result<Answer, QueryError> {
        let time_ms = ((START as f64 + seconds) * 1000.0) as i64;
        self.run(Plan::instant(query, time_ms, &self.limits))
    }

    pub(crate) fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Result<Answer, QueryError> {
        let timeline =
            Timeline { start_ms: (START + start) * 1000, end_ms: (START + end) * 1000, step_ms: step * 1000 };
        self.run(Plan::range(query, timeline, &self.limits))
    }

    /// The answer as lines: `labels value` for an instant query.
    pub(crate) fn ask(&self, query: &str, seconds: f64) -> String {
        show(&self.instant(query, seconds).unwrap_or_else(|error| panic!("{query}: {error}")))
    }

    /// As lines `labels value@seconds …`.
    pub(crate) fn ask_range(&self, query: &str, start: i64, end: i64, step: i64) -> String {
        show(&self.range(query, start, end, step).unwrap_or_else(|error| panic!("{query}: {error}")))
    }

    pub(crate) fn error(&self, query: &str, seconds: f64) -> QueryError {
        self.instant(query, seconds).expect_err(query)
    }
}

fn show(answer: &Answer) -> String {
    match &answer.data {
        Data::Scalar { value, .. } => format_sample(*value),
        Data::String { value, .. } => value.clone(),
        Data::Vector { samples, .. } => {
            let lines = samples.iter().map(|(labels, sample)| match sample {
                Sample::Float(value) => format!("{labels} {}", round(*value)),
                Sample::Histogram(histogram) => format!("{labels} {}", show_histogram(histogram)),
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        Data::Matrix(matrix) => {
            let lines = matrix.iter().map(|series| {
                let samples = series.samples.iter().map(|(time_ms, value)| {
                    format!("{}@{}", round(*value), (*time_ms as f64) / 1000.0 - START as f64)
                });
                let histograms = series.histograms.iter().map(|(time_ms, histogram)| {
                    format!("{}@{}", show_histogram(histogram), (*time_ms as f64) / 1000.0 - START as f64)
                });
                format!("{} {}", series.labels, samples.chain(histograms).collect::<Vec<_>>().join(" "))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Count, sum and buckets.
fn show_histogram(histogram: &NativeHistogram) -> String {
    let buckets = histogram.buckets().into_iter().map(|bucket| {
        let (open, close) =
            (if bucket.lower_inclusive { '[' } else { '(' }, if bucket.upper_inclusive { ']' } else { ')' });
        format!(" {open}{},{}{close}:{}", round(bucket.lower), round(bucket.upper), round(bucket.count))
    });
    format!("<{} {}{}>", round(histogram.count), round(histogram.sum), buckets.collect::<String>())
}

/// Nine digits, so that the last bit does not matter.
fn round(value: f64) -> String {
    if !value.is_finite() {
        return format_sample(value);
    }
    format_sample(format!("{value:.9}").parse().expect("a number"))
}
