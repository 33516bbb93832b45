//! `histogram_quantile` and `histogram_fraction`; over classic buckets here (Prometheus, promql/quantile.go,
//! BucketQuantile).

use std::collections::HashMap;

use super::super::labels::{Labels, METRIC_NAME};
use super::{Column, Evaluator, Timeline, drop_empty, native, without_names};
use crate::QueryError;

/// Differences between buckets below this share are rounding, not observations.
const SMALL_DELTA: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper_bound: f64,
    /// Observations up to the bound.
    count: f64,
}

impl Evaluator<'_> {
    pub(super) fn histogram_quantile(
        &mut self,
        quantiles: &[f64],
        columns: Vec<Column>,
        when: &Timeline,
    ) -> Result<Vec<Column>, QueryError> {
        self.warn_of_quantiles(quantiles);
        let (columns, native) = split(columns);
        let mut results =
            native::map_histograms(native, |step, histogram| native::quantile(quantiles[step], histogram));
        for (labels, mut parts) in self.classic(columns) {
            self.budget.spend(0, 0)?;
            parts.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut corrected = false;
            let mut buckets = Vec::with_capacity(parts.len());
            let step_value = |step: usize| {
                present(&parts, step, &mut buckets)?;
                let (value, forced) = bucket_quantile(quantiles[step], &mut buckets);
                corrected |= forced;
                Some(value)
            };
            let values = (0..when.steps()).map(step_value).collect();
            if corrected {
                self.inform(format!(
                    "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {:?}",
                    labels.get(METRIC_NAME)
                ));
            }
            results.push(Column::floats(labels, values));
        }
        without_names(drop_empty(results))
    }

    pub(super) fn histogram_fraction(
        &mut self,
        lower: &[f64],
        upper: &[f64],
        columns: Vec<Column>,
        when: &Timeline,
    ) -> Result<Vec<Column>, QueryError> {
        let (columns, native) = split(columns);
        let mut results = native::map_histograms(native, |step, histogram| {
            native::fraction(lower[step], upper[step], histogram)
        });
        for (labels, mut parts) in self.classic(columns) {
            self.budget.spend(0, 0)?;
            parts.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut buckets = Vec::with_capacity(parts.len());
            let step_value = |step: usize| {
                present(&parts, step, &mut buckets)?;
                Some(bucket_fraction(lower[step], upper[step], &mut buckets))
            };
            let values = (0..when.steps()).map(step_value).collect();
            results.push(Column::floats(labels, values));
        }
        without_names(drop_empty(results))
    }

    /// Classic histograms by their labels, each with its buckets and their bounds.
    fn classic(&mut self, columns: Vec<Column>) -> Vec<(Labels, Vec<(f64, Column)>)> {
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut histograms: Vec<(Labels, Vec<(f64, Column)>)> = Vec::new();
        for column in columns {
            let Some(bound) = parse_bound(column.labels.get("le")) else {
                self.warn(format!(
                    "bucket label \"le\" is missing or has a malformed value of {:?} for metric name {:?}",
                    column.labels.get("le"),
                    column.labels.get(METRIC_NAME)
                ));
                continue;
            };
            let labels = column.labels.without(&["le"]);
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                histograms.push((labels, Vec::new()));
                histograms.len() - 1
            });
            histograms[place].1.push((bound, column));
        }
        histograms
    }
}

/// Columns with floats, and columns with native histograms.
fn split(columns: Vec<Column>) -> (Vec<Column>, Vec<Column>) {
    let (mut floats, mut native) = (Vec::new(), Vec::new());
    for mut column in columns {
        if !column.histograms.is_empty() {
            let values = vec![None; column.values.len()];
            let histograms = std::mem::take(&mut column.histograms);
            native.push(Column { labels: column.labels.clone(), values, histograms });
        }
        if !column.is_empty() {
            floats.push(column);
        }
    }
    (floats, native)
}

/// The buckets that have a value at a step; `None` when none has.
fn present(parts: &[(f64, Column)], step: usize, buckets: &mut Vec<Bucket>) -> Option<()> {
    buckets.clear();
    buckets.extend(parts.iter().filter_map(|(upper_bound, column)| {
        Some(Bucket { upper_bound: *upper_bound, count: column.values[step]? })
    }));
    (!buckets.is_empty()).then_some(())
}

fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// The quantile, and whether buckets had to be made monotonic. `buckets` are not empty and sorted by bound.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, false);
    }
    if buckets[buckets.len() - 1].upper_bound != f64::INFINITY {
        return (f64::NAN, false);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let found = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    if found == last {
        return (buckets[last - 1].upper_bound, forced);
    }
    let bucket = buckets[found];
    if found == 0 && bucket.upper_bound <= 0.0 {
        return (bucket.upper_bound, forced);
    }
    let (mut lower_bound, mut count) = (0.0, bucket.count);
    if found > 0 {
        lower_bound = buckets[found - 1].upper_bound;
        count -= buckets[found - 1].count;
        rank -= buckets[found - 1].count;
    }
    (lower_bound + (bucket.upper_bound - lower_bound) * (rank / count), forced)
}

/// Bounds that are equal as numbers were different as text.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// The share of observations between two values (Prometheus, promql/quantile.go, BucketFraction). `buckets` are not
/// empty and sorted by bound.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets[buckets.len() - 1].upper_bound != f64::INFINITY {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |value: f64| {
        let mut lower_bound = if buckets[0].upper_bound <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        let mut rank = 0.0;
        for bucket in buckets.iter() {
            if lower_bound >= value {
                return rank;
            }
            if bucket.upper_bound > value {
                // Of a bucket without a lower bound it is not known where its observations are.
                return match lower_bound == f64::NEG_INFINITY {
                    true => bucket.count,
                    false => {
                        let width = bucket.upper_bound - lower_bound;
                        rank + (bucket.count - rank) * (value - lower_bound) / width
                    }
                };
            }
            (lower_bound, rank) = (bucket.upper_bound, bucket.count);
        }
        count
    };
    (below(upper).min(count) - below(lower).min(count)) / count
}

/// Raises counts that are less than those of lower buckets, and says whether one was so by more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let difference = (bucket.count - previous).abs();
        if difference < SMALL_DELTA * (bucket.count.abs() + previous.abs()) {
            bucket.count = previous;
        } else if bucket.count < previous {
            bucket.count = previous;
            forced = true;
        } else {
            previous = bucket.count;
        }
    }
    forced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(q: f64, buckets: &[(f64, f64)]) -> (f64, bool) {
        let mut buckets = buckets
            .iter()
            .map(|(upper_bound, count)| Bucket { upper_bound: *upper_bound, count: *count })
            .collect();
        bucket_quantile(q, &mut buckets)
    }

    #[test]
    fn the_quantile_is_interpolated_in_its_bucket() {
        let buckets = [(0.1, 10.0), (0.2, 30.0), (f64::INFINITY, 40.0)];
        assert_eq!(quantile(0.5, &buckets), (0.15000000000000002, false));
        assert_eq!(quantile(0.125, &buckets), (0.05, false));
        assert_eq!(quantile(0.99, &buckets), (0.2, false));
        assert_eq!(quantile(2.0, &buckets).0, f64::INFINITY);
        assert!(quantile(0.5, &buckets[..2]).0.is_nan());
        assert!(quantile(0.5, &[(1.0, 0.0), (f64::INFINITY, 0.0)]).0.is_nan());
        assert_eq!(quantile(0.5, &[(-1.0, 4.0), (f64::INFINITY, 4.0)]).0, -1.0);
    }

    #[test]
    fn counts_that_fall_are_raised() {
        let buckets = [(1.0, 10.0), (2.0, 8.0), (f64::INFINITY, 20.0)];
        assert_eq!(quantile(0.5, &buckets), (1.0, true));
        let rounding = [(1.0, 10.0), (2.0, 10.0 - 1e-13), (f64::INFINITY, 20.0)];
        assert_eq!(quantile(0.5, &rounding), (1.0, false));
    }
}
