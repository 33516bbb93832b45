//! Functions of range vectors.

use super::super::ast::{Node, Range, RangeFunction};
use super::super::labels::METRIC_NAME;
use super::select::Window;
use super::sum::{self, Sum};
use super::{Column, Evaluator, Timeline, unite};
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
        for series in self.range_series(range, when)? {
            self.budget.spend(0, 0)?;
            let values = series.windows(range.shift(), range.range_ms(), when, |window| {
                let param = param.get(window.step).copied();
                apply(function, &window, param.unwrap_or(f64::NAN), when.at(window.step))
            });
            let name = series.labels.get(METRIC_NAME);
            let counts = matches!(function, RangeFunction::Rate | RangeFunction::Increase);
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
            columns.push(Column { labels, values });
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

/// `rate`, `increase` and `delta`: the difference between the first and the last sample, extrapolated to the window's
/// ends unless the series seems to begin or end inside, and for counters not beyond where they would be zero, for
/// increments not beyond one of zero
/// (Prometheus, promql/functions.go, extrapolatedRate).
fn extrapolated(window: &Window<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let (times, values) = (window.times, window.values);
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
        None if counter && difference > 0.0 && values[0] >= 0.0 => {
            to_start = to_start.min(sampled * (values[0] / difference));
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
    Some(difference * factor)
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
