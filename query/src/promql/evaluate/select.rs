//! Selected series at the steps: the latest sample for instant selectors, windows for ranges.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::ast::{Range, Shift};
use super::super::native::NativeHistogram;
use super::super::plan::LOOKBACK_MS;
use super::{Column, Data, Evaluator, MatrixSeries, Sample, Series, Timeline, drop_empty, is_stale};
use crate::QueryError;

/// For each step the latest sample in the lookback, unless it is a stale marker.
pub(super) fn instant(series: &[Series], shift: Shift, when: &Timeline) -> Vec<Column> {
    let column = |series: &Series| {
        let sample = |at: Option<usize>| {
            let at = at?;
            let histogram = series.histograms.get(at).and_then(Option::clone);
            Some(histogram.map_or(Sample::Float(series.values[at]), Sample::Histogram))
        };
        Column::of(series.labels.clone(), latest(series, shift, when).map(sample))
    };
    drop_empty(series.iter().map(column).collect())
}

/// The times of the samples that [`instant`] gives, in seconds.
pub(super) fn timestamps(series: &[Series], shift: Shift, when: &Timeline) -> Vec<Column> {
    let column = |series: &Series| {
        let time = |at: Option<usize>| Some(series.times[at?] as f64 / 1000.0);
        Column::floats(series.labels.clone(), latest(series, shift, when).map(time).collect())
    };
    drop_empty(series.iter().map(column).collect())
}

/// Which sample is the latest at each step.
fn latest<'a>(
    series: &'a Series,
    shift: Shift,
    when: &'a Timeline,
) -> impl Iterator<Item = Option<usize>> + 'a {
    let mut after = 0;
    (0..when.steps()).map(move |step| {
        let time_ms = shift.apply(when.at(step));
        after += series.times[after..].partition_point(|sample_ms| *sample_ms <= time_ms);
        let at = after.checked_sub(1)?;
        (series.times[at] > time_ms - LOOKBACK_MS && !is_stale(series.values[at])).then_some(at)
    })
}

/// One series of a range vector, without stale markers.
pub(super) struct RangeSeries<'a> {
    pub(super) labels: Cow<'a, super::Labels>,
    pub(super) times: Cow<'a, [i64]>,
    pub(super) values: Cow<'a, [f64]>,
    /// As many as `values`, or none at all.
    pub(super) histograms: Cow<'a, [Option<Arc<NativeHistogram>>]>,
    /// The values are sums of increments.
    pub(super) delta: bool,
}

/// The samples in `(start, end]` of one step.
pub(super) struct Window<'a> {
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
    /// As many as `values`, or none at all.
    pub(super) histograms: &'a [Option<Arc<NativeHistogram>>],
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) step: usize,
    /// Of a series of increments, how much the first sample is greater than the one before it.
    pub(super) first_increment: Option<f64>,
}

impl RangeSeries<'_> {
    /// Calls `f` for each step whose window has samples.
    pub(super) fn windows(
        &self,
        shift: Shift,
        range_ms: i64,
        when: &Timeline,
        mut f: impl FnMut(Window<'_>) -> Option<Sample>,
    ) -> Vec<Option<Sample>> {
        let (mut first, mut after) = (0, 0);
        let step_value = |step: usize| {
            let end_ms = shift.apply(when.at(step));
            let start_ms = end_ms - range_ms;
            first += self.times[first..].partition_point(|time_ms| *time_ms <= start_ms);
            after += self.times[after..].partition_point(|time_ms| *time_ms <= end_ms);
            if first >= after {
                return None;
            }
            let (times, values) = (&self.times[first..after], &self.values[first..after]);
            let before = first.checked_sub(1).map_or(0.0, |before| self.values[before]);
            let first_increment = self.delta.then(|| values[0] - before);
            let histograms = self.histograms.get(first..after).unwrap_or_default();
            f(Window { times, values, histograms, start_ms, end_ms, step, first_increment })
        };
        (0..when.steps()).map(step_value).collect()
    }
}

impl<'a> Evaluator<'a> {
    /// The series of a range vector, for all steps.
    pub(super) fn range_series(
        &mut self,
        range: &Range,
        when: &Timeline,
    ) -> Result<Vec<RangeSeries<'a>>, QueryError> {
        match range {
            Range::Select { selector, .. } => {
                Ok(self.selected[*selector].iter().map(without_stale).collect())
            }
            Range::Subquery { expr, shift, range_ms, step_ms } => {
                let inner = when.inner(*shift, *range_ms, *step_ms);
                let columns = match self.node(expr, &inner)? {
                    super::Value::Scalar(values) => {
                        let values = values.into_iter().map(Some).collect();
                        vec![Column::floats(super::Labels::default(), values)]
                    }
                    other => super::vector(other)?,
                };
                let series = columns.into_iter().map(|column| {
                    let steps: Vec<usize> =
                        (0..column.values.len()).filter(|step| column.is_at(*step)).collect();
                    let value = |step: &usize| {
                        let count = || column.histogram(*step).map_or(f64::NAN, |histogram| histogram.count);
                        column.values[*step].unwrap_or_else(count)
                    };
                    let histogram = |step: &usize| column.histograms.get(*step).cloned();
                    RangeSeries {
                        times: steps.iter().map(|step| inner.at(*step)).collect(),
                        values: steps.iter().map(value).collect(),
                        histograms: steps.iter().filter_map(histogram).collect(),
                        labels: Cow::Owned(column.labels),
                        delta: false,
                    }
                });
                Ok(series.collect())
            }
        }
    }

    /// The samples of a range vector themselves, at the only step of an instant query.
    pub(super) fn raw_range(&mut self, range: &Range, when: &Timeline) -> Result<Data, QueryError> {
        let mut matrix = Vec::new();
        for series in self.range_series(range, when)? {
            let (mut samples, mut histograms) = (Vec::new(), Vec::new());
            series.windows(range.shift(), range.range_ms(), when, |window| {
                for (index, time_ms) in window.times.iter().enumerate() {
                    match window.histograms.get(index).and_then(Option::clone) {
                        Some(histogram) => histograms.push((*time_ms, histogram)),
                        None => samples.push((*time_ms, window.values[index])),
                    }
                }
                None
            });
            if !samples.is_empty() || !histograms.is_empty() {
                matrix.push(MatrixSeries { labels: series.labels.into_owned(), samples, histograms });
            }
        }
        matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Data::Matrix(matrix))
    }
}

fn without_stale(series: &Series) -> RangeSeries<'_> {
    let labels = Cow::Borrowed(&series.labels);
    if !series.values.iter().any(|value| is_stale(*value)) {
        let (times, values) = (Cow::Borrowed(&series.times[..]), Cow::Borrowed(&series.values[..]));
        let histograms = Cow::Borrowed(&series.histograms[..]);
        return RangeSeries { labels, times, values, histograms, delta: series.delta };
    }
    let kept = series.times.iter().copied().zip(series.values.iter().copied());
    let (times, values): (Vec<i64>, Vec<f64>) = kept.filter(|(_, value)| !is_stale(*value)).unzip();
    let fresh = |(histogram, value): (&Option<_>, &f64)| (!is_stale(*value)).then(|| histogram.clone());
    let histograms = series.histograms.iter().zip(&series.values).filter_map(fresh).collect();
    RangeSeries { labels, times: times.into(), values: values.into(), histograms, delta: series.delta }
}
