//! `histogram_quantile` over classic buckets (Prometheus, promql/quantile.go, bucketQuantile).

use std::collections::HashMap;

use super::super::labels::{Labels, METRIC_NAME};
use super::{Column, Evaluator, Timeline, drop_empty, without_names};
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
        let mut results = Vec::with_capacity(histograms.len());
        for (labels, mut parts) in histograms {
            self.budget.spend(0, 0)?;
            parts.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut corrected = false;
            let mut buckets = Vec::with_capacity(parts.len());
            let step_value = |step: usize| {
                buckets.clear();
                let present = parts.iter().filter_map(|(upper_bound, column)| {
                    Some(Bucket { upper_bound: *upper_bound, count: column.values[step]? })
                });
                buckets.extend(present);
                if buckets.is_empty() {
                    return None;
                }
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
            results.push(Column { labels, values });
        }
        without_names(drop_empty(results))
    }
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
    // Bounds that are equal as numbers were different as text.
    buckets.dedup_by(|next, kept| {
        let same = next.upper_bound == kept.upper_bound;
        if same {
            kept.count += next.count;
        }
        same
    });
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
