//! The windows of range aggregations, put together from the leaves' partial values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::ast::{RangeAggregation, RangeOp};
use super::super::leaf::{self, Partial, SeriesPartials};
use super::super::view::Labels;
use super::Values;
use crate::{Limits, QueryError};

/// One window of a series over all leaves.
struct Merged {
    rows: u64,
    sum: f64,
    /// Sums of further leaves. Added in order of their values, so that the order of the replies does not show in
    /// the last digits; an empty list costs nothing.
    more: Vec<f64>,
    min: f64,
    max: f64,
    values: Vec<(u64, f64)>,
}

impl Merged {
    fn new(partial: Partial) -> Self {
        let Partial { rows, sum, min, max, values } = partial;
        Merged { rows, sum, more: Vec::new(), min, max, values }
    }

    fn add(&mut self, partial: Partial) {
        self.rows += partial.rows;
        self.more.push(partial.sum);
        self.min = self.min.min(partial.min);
        self.max = self.max.max(partial.max);
        self.values.extend(partial.values);
    }

    /// Samples in order of time, those of one time in order of their values.
    fn values(&mut self) -> Vec<f64> {
        self.values.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.values.iter().map(|(_, value)| *value).collect()
    }

    fn value(mut self, range: &RangeAggregation) -> f64 {
        let sum = if self.more.is_empty() {
            self.sum
        } else {
            self.more.push(self.sum);
            self.more.sort_by(f64::total_cmp);
            self.more.iter().sum()
        };
        let seconds = range.range_nanos as f64 / 1e9;
        match range.op {
            RangeOp::Count | RangeOp::Absent => self.rows as f64,
            RangeOp::Rate | RangeOp::BytesRate => sum / seconds,
            RangeOp::Bytes | RangeOp::Sum => sum,
            RangeOp::Avg => sum / self.rows as f64,
            RangeOp::Min => self.min,
            RangeOp::Max => self.max,
            RangeOp::StdVar => variance(&self.values()),
            RangeOp::StdDev => variance(&self.values()).sqrt(),
            RangeOp::Quantile => quantile(range.parameter.unwrap_or(f64::NAN), self.values()),
            RangeOp::First => self.values().first().copied().unwrap_or(f64::NAN),
            RangeOp::Last => self.values().last().copied().unwrap_or(f64::NAN),
        }
    }
}

pub(super) fn merge(
    range: &RangeAggregation,
    replies: Vec<Vec<SeriesPartials>>,
    limits: &Limits,
) -> Result<BTreeMap<Labels, Values>, QueryError> {
    let mut series: BTreeMap<Labels, BTreeMap<u32, Merged>> = BTreeMap::new();
    let mut samples = 0_usize;
    for SeriesPartials { labels, steps } in replies.into_iter().flatten() {
        samples += steps.len();
        let merged = series.entry(labels).or_default();
        for (step, partial) in steps {
            samples += partial.values.len();
            match merged.entry(step) {
                Entry::Occupied(mut merged) => merged.get_mut().add(partial),
                Entry::Vacant(place) => {
                    place.insert(Merged::new(partial));
                }
            }
        }
        if samples > limits.samples_max {
            return Err(leaf::too_many_samples(limits.samples_max));
        }
        if series.len() > limits.series_max {
            return Err(leaf::too_many_series(limits));
        }
    }
    let values = |steps: BTreeMap<u32, Merged>| {
        steps.into_iter().map(|(step, merged)| (step, merged.value(range))).collect()
    };
    Ok(series.into_iter().map(|(labels, steps)| (labels, values(steps))).collect())
}

/// The population variance.
fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
}

/// The quantile as Prometheus has it: between two samples by their distance.
fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    values.sort_by(f64::total_cmp);
    let rank = q * (values.len() - 1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    let weight = rank - rank.floor();
    values[low] * (1.0 - weight) + values[high] * weight
}
