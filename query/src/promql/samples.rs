//! Points of one OpenTelemetry series as samples of Prometheus series.

use std::collections::BTreeMap;
use std::sync::Arc;

use oteld_store::model::metric::FLAG_NO_RECORDED_VALUE;
use oteld_store::model::{Metric, MetricKind, Point, PointValue, Temporality};

use super::labels::{Labels, METRIC_NAME, Matchers};
use super::native::NativeHistogram;
use super::number::format_float;
use super::translate::family_name;
use super::{LeafSeries, STALE, Windows};

/// Which Prometheus series of an OpenTelemetry series. Numbers are held as bits, so that parts have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Value,
    Count,
    Sum,
    Bucket {
        upper_bound: u64,
    },
    /// A native histogram.
    Native,
    Quantile {
        quantile: u64,
    },
}

/// Labels that only a part has.
pub(crate) const PART_LABELS: [&str; 2] = ["le", "quantile"];

/// The names that the series of one metric have.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) family: String,
    kind: MetricKind,
}

impl Names {
    pub(crate) fn of(metric: &Metric) -> Option<Self> {
        Some(Names { family: family_name(metric)?, kind: metric.kind })
    }

    /// All names, in the order of their text.
    pub(crate) fn all(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            MetricKind::Gauge | MetricKind::Sum { .. } => &[""],
            MetricKind::Histogram { .. } => &["_bucket", "_count", "_sum"],
            MetricKind::ExponentialHistogram { .. } | MetricKind::Summary => &["", "_count", "_sum"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.family)).collect()
    }

    fn of_part(&self, part: Part) -> String {
        let suffix = match part {
            Part::Value | Part::Native | Part::Quantile { .. } => "",
            Part::Count => "_count",
            Part::Sum => "_sum",
            Part::Bucket { .. } => "_bucket",
        };
        format!("{}{suffix}", self.family)
    }

    /// Whether matchers ask an exponential histogram for what only a classic one has.
    pub(crate) fn asks_for_buckets(&self, matchers: &Matchers) -> bool {
        matches!(self.kind, MetricKind::ExponentialHistogram { .. })
            && matchers.take_name(&format!("{}_bucket", self.family))
            && !matchers.take_name(&self.family)
    }

    /// The label that tells this metric's parts apart.
    pub(crate) fn part_label(&self) -> Option<&'static str> {
        match self.kind {
            MetricKind::Histogram { .. } => Some("le"),
            MetricKind::Summary => Some("quantile"),
            _ => None,
        }
    }

    /// Labels of one part, name included.
    pub(crate) fn labels(&self, base: &Labels, part: Part) -> Labels {
        let mut labels = base.clone();
        labels.set(METRIC_NAME, &self.of_part(part));
        match part {
            Part::Bucket { upper_bound } => labels.set("le", &format_float(f64::from_bits(upper_bound))),
            Part::Quantile { quantile } => labels.set("quantile", &format_float(f64::from_bits(quantile))),
            Part::Value | Part::Native | Part::Count | Part::Sum => {}
        }
        labels
    }
}

/// Whether the values are increments since the last point.
pub(crate) fn is_delta(kind: MetricKind) -> bool {
    match kind {
        MetricKind::Sum { temporality, .. }
        | MetricKind::Histogram { temporality }
        | MetricKind::ExponentialHistogram { temporality } => temporality == Temporality::Delta,
        MetricKind::Gauge | MetricKind::Summary => false,
    }
}

/// Whether a point says that its series has ended.
pub(crate) fn says_stale(point: &Point) -> bool {
    point.flags & FLAG_NO_RECORDED_VALUE != 0 || point.value == PointValue::None
}

/// The values of one point; of a native histogram its count. Buckets are cumulative, as Prometheus has them.
pub(crate) fn parts_of(point: &Point, emit: &mut dyn FnMut(Part, f64)) {
    match &point.value {
        PointValue::None => {}
        PointValue::Int(value) => emit(Part::Value, *value as f64),
        PointValue::Double(value) => emit(Part::Value, *value),
        PointValue::Histogram(histogram) => {
            let mut below = 0_u64;
            for (bound, count) in histogram.explicit_bounds.iter().zip(&histogram.bucket_counts) {
                below = below.saturating_add(*count);
                if bound.is_finite() {
                    emit(Part::Bucket { upper_bound: bound.to_bits() }, below as f64);
                }
            }
            emit(Part::Bucket { upper_bound: f64::INFINITY.to_bits() }, histogram.count as f64);
            emit(Part::Count, histogram.count as f64);
            if let Some(sum) = histogram.sum {
                emit(Part::Sum, sum);
            }
        }
        PointValue::ExponentialHistogram(histogram) => {
            emit(Part::Native, histogram.count as f64);
            emit(Part::Count, histogram.count as f64);
            if let Some(sum) = histogram.sum {
                emit(Part::Sum, sum);
            }
        }
        PointValue::Summary(summary) => {
            for quantile in &summary.quantiles {
                emit(Part::Quantile { quantile: quantile.quantile.to_bits() }, quantile.value);
            }
            emit(Part::Count, summary.count as f64);
            emit(Part::Sum, summary.sum);
        }
    }
}

/// Milliseconds of a point's time, as Prometheus truncates it.
pub(crate) fn millis(time_unix_nano: u64) -> i64 {
    (time_unix_nano / 1_000_000) as i64
}

/// The series of one OpenTelemetry series that `matchers` takes, with their samples in `windows`. Of points in one
/// millisecond the latest counts; increments add up.
pub(crate) fn extract(
    names: &Names,
    base: &Labels,
    points: &[Point],
    matchers: &Matchers,
    windows: &Windows,
) -> Vec<LeafSeries> {
    let delta = is_delta(names.kind);
    let mut parts: BTreeMap<Part, Option<LeafSeries>> = BTreeMap::new();
    let mut previous_ms = windows.start_ms();
    for point in points {
        let time_ms = millis(point.time_unix_nano);
        // Increments accumulate, so all of them are needed.
        let wanted = if delta { time_ms <= windows.last_ms } else { windows.take(time_ms) };
        if !wanted || time_ms <= windows.start_ms() {
            continue;
        }
        if says_stale(point) {
            for series in parts.values_mut().flatten() {
                push(series, time_ms, f64::from_bits(STALE), None);
            }
        } else {
            let start_ms = millis(point.start_time_unix_nano);
            let gap_ms = (delta && start_ms > previous_ms && start_ms < time_ms).then_some(start_ms);
            let native = native(point);
            parts_of(point, &mut |part, value| {
                let histogram = native.clone().filter(|_| part == Part::Native);
                if part == Part::Native && histogram.is_none() {
                    return;
                }
                let series = parts.entry(part).or_insert_with(|| {
                    let labels = names.labels(base, part);
                    let taken = matchers.take(&labels);
                    taken.then(|| LeafSeries {
                        labels,
                        delta,
                        times: Vec::new(),
                        values: Vec::new(),
                        histograms: Vec::new(),
                    })
                });
                if let Some(series) = series {
                    if let Some(start_ms) = gap_ms {
                        push(series, start_ms, 0.0, histogram.as_deref().map(|h| Arc::new(h.emptied())));
                    }
                    push(series, time_ms, value, histogram);
                }
            });
        }
        previous_ms = time_ms;
    }
    parts.into_values().flatten().filter(|series| !series.times.is_empty()).collect()
}

/// A point's native histogram; `None` too for a scale below all that are taken.
fn native(point: &Point) -> Option<Arc<NativeHistogram>> {
    match &point.value {
        PointValue::ExponentialHistogram(histogram) => NativeHistogram::of(histogram).map(Arc::new),
        _ => None,
    }
}

fn push(series: &mut LeafSeries, time_ms: i64, value: f64, histogram: Option<Arc<NativeHistogram>>) {
    match (series.times.last(), series.values.last_mut()) {
        (Some(last_ms), Some(last)) if *last_ms == time_ms => {
            let add = series.delta && !super::is_stale(value) && !super::is_stale(*last);
            *last = if add { *last + value } else { value };
            if let Some(kept) = series.histograms.last_mut() {
                match (kept, histogram) {
                    (Some(kept), Some(more)) if add => Arc::make_mut(kept).add(&more, 1.0),
                    (kept, histogram) => *kept = histogram,
                }
            }
        }
        _ => {
            if histogram.is_some() || !series.histograms.is_empty() {
                series.histograms.push(histogram);
            }
            series.times.push(time_ms);
            series.values.push(value);
        }
    }
}
