//! Functions of native histograms (Prometheus, promql/quantile.go and promql/functions.go).

use std::sync::Arc;

use super::super::native::{NativeBucket, NativeHistogram};
use super::{Column, Histograms, sum::Sum};

/// A function of one histogram that gives a number, such as `histogram_count`.
pub(super) fn of_histogram(name: &str) -> Option<fn(&NativeHistogram) -> f64> {
    Some(match name {
        "histogram_count" => |histogram| histogram.count,
        "histogram_sum" => |histogram| histogram.sum,
        "histogram_avg" => |histogram| histogram.sum / histogram.count,
        "histogram_stddev" => |histogram| variance(histogram).sqrt(),
        "histogram_stdvar" => variance,
        _ => return None,
    })
}

/// Numbers of the histograms of each series; its floats go.
pub(super) fn map_histograms(
    columns: Vec<Column>,
    f: impl Fn(usize, &NativeHistogram) -> f64,
) -> Vec<Column> {
    let column = |column: Column| {
        let of =
            |(step, histogram): (usize, &Option<Arc<NativeHistogram>>)| Some(f(step, histogram.as_ref()?));
        let values = column.histograms.iter().enumerate().map(of).collect();
        Column::floats(column.labels, values)
    };
    columns.into_iter().filter(|column| !column.histograms.is_empty()).map(column).collect()
}

/// The sum of at least one histogram.
pub(super) fn sum<'a>(
    mut histograms: impl Iterator<Item = &'a Arc<NativeHistogram>>,
) -> Option<NativeHistogram> {
    let mut total = (**histograms.next()?).clone();
    histograms.for_each(|more| total.add(more, 1.0));
    Some(total)
}

/// Changes each histogram of a column.
pub(super) fn change(histograms: &mut Histograms, f: impl Fn(usize, &mut NativeHistogram)) {
    for (step, histogram) in histograms.iter_mut().enumerate() {
        if let Some(histogram) = histogram {
            f(step, Arc::make_mut(histogram));
        }
    }
}

/// Estimated by the middles of the buckets: geometric, and zero for the zero bucket.
fn variance(histogram: &NativeHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut squares = Sum::default();
    for bucket in histogram.buckets() {
        let middle = if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else if bucket.upper < 0.0 {
            -(bucket.upper * bucket.lower).sqrt()
        } else {
            (bucket.upper * bucket.lower).sqrt()
        };
        squares.add(bucket.count * (middle - mean) * (middle - mean));
    }
    squares.total() / histogram.count
}

/// Buckets in order, where the zero bucket of a histogram with observations of one sign only ends at zero.
fn one_sided(histogram: &NativeHistogram) -> Vec<NativeBucket> {
    let mut buckets = histogram.buckets();
    let (negative, positive) = (histogram.negative.is_empty(), histogram.positive.is_empty());
    for bucket in buckets.iter_mut().filter(|bucket| bucket.lower < 0.0 && bucket.upper > 0.0) {
        if negative && !positive {
            bucket.lower = 0.0;
        } else if positive && !negative {
            bucket.upper = 0.0;
        }
    }
    buckets
}

/// The quantile, interpolated on a logarithmic scale, and linearly in the zero bucket.
pub(super) fn quantile(q: f64, histogram: &NativeHistogram) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    let mut buckets = one_sided(histogram);
    // Observations of NaN are in no bucket and make the sum NaN: then ranks are known from below only.
    let from_below = histogram.sum.is_nan() || q < 0.5;
    if !from_below {
        buckets.reverse();
    }
    let mut rank = if from_below { q } else { 1.0 - q } * histogram.count;
    let mut count = 0.0;
    let mut found = None;
    for bucket in buckets {
        count += bucket.count;
        found = Some(bucket);
        if count >= rank {
            break;
        }
    }
    let Some(bucket) = found else { return if histogram.sum.is_nan() { f64::NAN } else { 0.0 } };
    count = count.min(histogram.count);
    if count < rank {
        return if histogram.sum.is_nan() { f64::NAN } else { bucket.upper };
    }
    rank = if from_below { rank - (count - bucket.count) } else { count - rank };
    let fraction = rank / bucket.count;
    if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    }
}

/// The share of observations between two values.
pub(super) fn fraction(lower: f64, upper: f64, histogram: &NativeHistogram) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let buckets = one_sided(histogram);
    let count = match histogram.sum.is_nan() {
        true => buckets.iter().map(|bucket| bucket.count).sum(),
        false => histogram.count,
    };
    let below = |value: f64| rank_of(value, &buckets).map_or(count, |rank| rank.min(count));
    (below(upper) - below(lower)) / histogram.count
}

/// How many observations are below a value; `None` when it is above all buckets.
fn rank_of(value: f64, buckets: &[NativeBucket]) -> Option<f64> {
    let mut rank = 0.0;
    for bucket in buckets {
        if bucket.lower >= value {
            return Some(rank);
        }
        if bucket.upper > value {
            let linear = bucket.lower <= 0.0 && bucket.upper >= 0.0;
            return Some(rank + bucket.count * share_below(value, bucket, linear));
        }
        rank += bucket.count;
    }
    None
}

fn share_below(value: f64, bucket: &NativeBucket, linear: bool) -> f64 {
    if linear {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let at = value.abs().log2();
    if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
}
