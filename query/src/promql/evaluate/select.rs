//! Selected series at the steps: the latest sample for instant selectors, windows for ranges.

use std::borrow::Cow;

use super::super::ast::{Range, Shift};
use super::super::plan::LOOKBACK_MS;
use super::{Column, Data, Evaluator, MatrixSeries, Series, Timeline, drop_empty, is_stale};
use crate::QueryError;

/// For each step the latest sample in the lookback, unless it is a stale marker; `of` says what to take of it.
pub(super) fn instant(
    series: &[Series],
    shift: Shift,
    when: &Timeline,
    of: impl Fn(i64, f64) -> f64,
) -> Vec<Column> {
    let column = |series: &Series| {
        let mut after = 0;
        let values = (0..when.steps()).map(|step| {
            let time_ms = shift.apply(when.at(step));
            after += series.times[after..].partition_point(|sample_ms| *sample_ms <= time_ms);
            let (sample_ms, value) = after.checked_sub(1).map(|at| (series.times[at], series.values[at]))?;
            (sample_ms > time_ms - LOOKBACK_MS && !is_stale(value)).then(|| of(sample_ms, value))
        });
        Column { labels: series.labels.clone(), values: values.collect() }
    };
    drop_empty(series.iter().map(column).collect())
}

/// One series of a range vector, without stale markers.
pub(super) struct RangeSeries<'a> {
    pub(super) labels: Cow<'a, super::Labels>,
    pub(super) times: Cow<'a, [i64]>,
    pub(super) values: Cow<'a, [f64]>,
    /// The values are sums of increments.
    pub(super) delta: bool,
}

/// The samples in `(start, end]` of one step.
pub(super) struct Window<'a> {
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
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
        mut f: impl FnMut(Window<'_>) -> Option<f64>,
    ) -> Vec<Option<f64>> {
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
            f(Window { times, values, start_ms, end_ms, step, first_increment })
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
                        vec![Column {
                            labels: super::Labels::default(),
                            values: values.into_iter().map(Some).collect(),
                        }]
                    }
                    other => super::vector(other)?,
                };
                let series = columns.into_iter().map(|column| {
                    let samples = column.values.iter().enumerate();
                    let (times, values): (Vec<i64>, Vec<f64>) =
                        samples.filter_map(|(step, value)| Some((inner.at(step), (*value)?))).unzip();
                    RangeSeries {
                        labels: Cow::Owned(column.labels),
                        times: times.into(),
                        values: values.into(),
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
            let mut samples = Vec::new();
            series.windows(range.shift(), range.range_ms(), when, |window| {
                samples = window.times.iter().copied().zip(window.values.iter().copied()).collect();
                None
            });
            if !samples.is_empty() {
                matrix.push(MatrixSeries { labels: series.labels.into_owned(), samples });
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
        return RangeSeries { labels, times, values, delta: series.delta };
    }
    let kept = series.times.iter().copied().zip(series.values.iter().copied());
    let (times, values): (Vec<i64>, Vec<f64>) = kept.filter(|(_, value)| !is_stale(*value)).unzip();
    RangeSeries { labels, times: times.into(), values: values.into(), delta: series.delta }
}
