//! Functions of range vectors.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::ast::{Node, Range, RangeFunction};
use super::super::labels::METRIC_NAME;
use super::super::native::NativeHistogram;
use super::select::Window;
use super::sum::{self, Sum};
use super::{Column, Evaluator, Sample, Timeline, native, unite};
use crate::QueryError;

impl Evaluator<'_> {
    pub(super) fn over_range(
        &mut self,
        function: RangeFunction,
        range: &Range,
        args: &[Node],
        when: &Timeline,
    ) -> Result<Vec<Column>, QueryError> {
        let param = args.first().map(|arg| self.scalar(arg, when)).transpose()?.unwrap_or_default();
        if function == RangeFunction::Quantile {
            self.warn_of_quantiles(&param);
        }
        let mut columns = Vec::new();
        let mut mixed = BTreeSet::new();
        for series in self.range_series(range, when)? {
            self.budget.spend(0, 0)?;
            let values = series.windows(range.shift(), range.range_ms(), when, |window| {
                let param = param.get(window.step).copied();
                if window.histograms.iter().all(Option::is_none) {
                    let value = apply(function, &window, param.unwrap_or(f64::NAN), when.at(window.step));
                    return value.map(Sample::Float);
                }
                let histograms: Option<Vec<_>> = window.histograms.iter().map(Option::as_ref).collect();
                if histograms.is_none() {
                    mixed.insert(series.labels.get(METRIC_NAME).to_owned());
                }
                apply_native(function, &window, &histograms?)
            });
            let name = series.labels.get(METRIC_NAME);
            let native = !series.histograms.is_empty();
            let counts = !native && matches!(function, RangeFunction::Rate | RangeFunction::Increase);
            let counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
            if counts && !name.is_empty() && !counter {
                self.inform(format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ));
            }
            let labels = if function == RangeFunction::Last {
                series.labels.into_owned()
            } else {
                series.labels.without_name()
            };
            columns.push(Column::of(labels, values.into_iter()));
        }
        for name in mixed {
            self.warn(format!("encountered a mix of histograms and floats for metric name {name:?}"));
        }
        unite(columns)
    }

    pub(super) fn warn_of_quantiles(&mut self, quantiles: &[f64]) {
        for quantile in quantiles.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            self.warn(format!(
                "quantile value should be between 0 and 1, got {}",
                super::super::number::format_float(*quantile)
            ));
        }
    }
}

/// The function's value for a window that is not empty. `step_ms` is the time of the step itself.
fn apply(function: RangeFunction, window: &Window<'_>, param: f64, step_ms: i64) -> Option<f64> {
    let values = window.values;
    let pairs = || values.windows(2).map(|pair| (pair[0], pair[1]));
    Some(match function {
        RangeFunction::Rate => return extrapolated(window, true, true),
        RangeFunction::Increase => return extrapolated(window, true, false),
        RangeFunction::Delta => return extrapolated(window, false, false),
        RangeFunction::Irate => return instantaneous(window, true),
        RangeFunction::Idelta => return instantaneous(window, false),
        RangeFunction::Avg => sum::mean(values),
        RangeFunction::Min => values.iter().copied().fold(f64::NAN, sum::min),
        RangeFunction::Max => values.iter().copied().fold(f64::NAN, sum::max),
        RangeFunction::Sum => sum::sum(values.iter().copied()),
        RangeFunction::Count => values.len() as f64,
        RangeFunction::Quantile => sum::quantile(param, values.to_vec()),
        RangeFunction::Stddev => sum::variance(values).sqrt(),
        RangeFunction::Stdvar => sum::variance(values),
        RangeFunction::Last => values[values.len() - 1],
        RangeFunction::Present => 1.0,
        RangeFunction::Changes => pairs()
            .filter(|(before, after)| before != after && !(before.is_nan() && after.is_nan()))
            .count() as f64,
        RangeFunction::Resets => pairs().filter(|(before, after)| after < before).count() as f64,
        RangeFunction::Deriv => return (values.len() > 1).then(|| regression(window, window.times[0]).0),
        RangeFunction::PredictLinear => {
            return (values.len() > 1).then(|| {
                let (slope, intercept) = regression(window, step_ms);
                slope * param + intercept
            });
        }
    })
}

/// The function's value for a window of histograms only, which is not empty.
fn apply_native(
    function: RangeFunction,
    window: &Window<'_>,
    histograms: &[&Arc<NativeHistogram>],
) -> Option<Sample> {
    let pairs = || histograms.windows(2).map(|pair| (pair[0], pair[1]));
    let last = histograms[histograms.len() - 1];
    let count = histograms.len() as f64;
    let histogram = match function {
        RangeFunction::Rate => increase_native(window, histograms, true, true)?,
        RangeFunction::Increase => increase_native(window, histograms, true, false)?,
        RangeFunction::Delta => increase_native(window, histograms, false, false)?,
        RangeFunction::Irate | RangeFunction::Idelta => {
            let before = histograms.len().checked_sub(2)?;
            let mut change = (**last).clone();
            let rate = function == RangeFunction::Irate;
            if !rate || !last.is_reset_after(histograms[before]) {
                change.add(histograms[before], -1.0);
            }
            if rate {
                change.divide((window.times[before + 1] - window.times[before]) as f64 / 1000.0);
            }
            change
        }
        RangeFunction::Sum => native::sum(histograms.iter().copied())?,
        RangeFunction::Avg => {
            let mut mean = native::sum(histograms.iter().copied())?;
            mean.divide(count);
            mean
        }
        RangeFunction::Last => return Some(Sample::Histogram(last.clone())),
        RangeFunction::Count => return Some(Sample::Float(count)),
        RangeFunction::Present => return Some(Sample::Float(1.0)),
        RangeFunction::Changes => {
            return Some(Sample::Float(pairs().filter(|(before, after)| before != after).count() as f64));
        }
        RangeFunction::Resets => {
            let resets = pairs().filter(|(before, after)| after.is_reset_after(before));
            return Some(Sample::Float(resets.count() as f64));
        }
        RangeFunction::Min
        | RangeFunction::Max
        | RangeFunction::Quantile
        | RangeFunction::Stddev
        | RangeFunction::Stdvar
        | RangeFunction::Deriv
        | RangeFunction::PredictLinear => return None,
    };
    Some(Sample::Histogram(Arc::new(histogram)))
}

/// `rate`, `increase` and `delta` of histograms (Prometheus, promql/functions.go, histogramRate).
fn increase_native(
    window: &Window<'_>,
    histograms: &[&Arc<NativeHistogram>],
    counter: bool,
    per_second: bool,
) -> Option<NativeHistogram> {
    let last = histograms.len() - 1;
    if last == 0 {
        return None;
    }
    let mut difference = (**histograms[last]).clone();
    let first_reset = counter && histograms[1].is_reset_after(histograms[0]);
    // What a reset takes back need not be looked at, whatever its resolution.
    if !first_reset {
        difference.add(histograms[0], -1.0);
    }
    if counter {
        let lowest = histograms[1..].iter().map(|histogram| histogram.schema).min();
        difference.reduce(lowest.unwrap_or(difference.schema));
        for pair in histograms[usize::from(first_reset)..].windows(2) {
            if pair[1].is_reset_after(pair[0]) {
                difference.add(pair[0], 1.0);
            }
        }
    }
    let first = if counter { histograms[0].count } else { f64::NAN };
    let factor = extrapolation(window, first, difference.count, per_second);
    difference.scale(factor);
    Some(difference)
}

/// `rate`, `increase` and `delta`: the difference between the first and the last sample, extrapolated to the window's
/// ends unless the series seems to begin or end inside, and for counters not beyond where they would be zero, for
/// increments not beyond one of zero
/// (Prometheus, promql/functions.go, extrapolatedRate).
fn extrapolated(window: &Window<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let values = window.values;
    let last = values.len() - 1;
    if last == 0 {
        return None;
    }
    let mut difference = values[last] - values[0];
    if counter {
        // One after the other, as what is lost to an overflow depends on the order.
        difference =
            values.windows(2).filter(|pair| pair[1] < pair[0]).fold(difference, |sum, pair| sum + pair[0]);
    }
    let first = if counter { values[0] } else { f64::NAN };
    Some(difference * extrapolation(window, first, difference, per_second))
}

/// What a difference between the first and the last sample is multiplied with. `first` is the first value of a
/// counter, NaN for what may be below zero.
fn extrapolation(window: &Window<'_>, first: f64, difference: f64, per_second: bool) -> f64 {
    let times = window.times;
    let last = times.len() - 1;
    let seconds = |from_ms: i64, to_ms: i64| (to_ms - from_ms) as f64 / 1000.0;
    let sampled = seconds(times[0], times[last]);
    let between_samples = sampled / last as f64;
    let threshold = between_samples * 1.1;
    let mut to_start = seconds(window.start_ms, times[0]);
    if to_start >= threshold {
        to_start = between_samples / 2.0;
    }
    match window.first_increment {
        Some(0.0) => to_start = 0.0,
        Some(_) => {}
        None if difference > 0.0 && first >= 0.0 => {
            to_start = to_start.min(sampled * (first / difference));
        }
        None => {}
    }
    let mut to_end = seconds(times[last], window.end_ms);
    if to_end >= threshold {
        to_end = between_samples / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= seconds(window.start_ms, window.end_ms);
    }
    factor
}

/// `irate` and `idelta`: from the last two samples.
fn instantaneous(window: &Window<'_>, rate: bool) -> Option<f64> {
    let last = window.values.len() - 1;
    let before = last.checked_sub(1)?;
    let (from, to) = (window.values[before], window.values[last]);
    if !rate {
        return Some(to - from);
    }
    let seconds = (window.times[last] - window.times[before]) as f64 / 1000.0;
    let increase = if to < from { to } else { to - from };
    (seconds > 0.0).then(|| increase / seconds)
}

/// Slope a second and value at `at_ms` of the least-squares line.
fn regression(window: &Window<'_>, at_ms: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = window.values.len() as f64;
    let [mut x, mut y, mut xy, mut xx] = [Sum::default(); 4];
    for (time_ms, value) in window.times.iter().zip(window.values) {
        let seconds = (time_ms - at_ms) as f64 / 1000.0;
        x.add(seconds);
        y.add(*value);
        xy.add(seconds * value);
        xx.add(seconds * seconds);
    }
    let (x, y, xy, xx) = (x.total(), y.total(), xy.total(), xx.total());
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}
