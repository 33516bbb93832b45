//! Aggregations over the series of a vector.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::ast::{Aggregation, Grouping, Node};
use super::super::labels::Labels;
use super::super::native::NativeHistogram;
use super::super::number::{format_float, format_sample};
use super::{Column, Evaluator, Sample, Timeline, drop_empty, native, sum, text, unite};
use crate::QueryError;

impl Evaluator<'_> {
    pub(super) fn aggregate(
        &mut self,
        op: Aggregation,
        expr: &Node,
        param: Option<&Node>,
        grouping: &Grouping,
        when: &Timeline,
    ) -> Result<Vec<Column>, QueryError> {
        let columns = self.vector(expr, when)?;
        let mut groups: BTreeMap<Labels, Vec<Column>> = BTreeMap::new();
        for column in columns {
            groups.entry(grouping.key(&column.labels)).or_default().push(column);
        }
        let params = match (op, param) {
            (Aggregation::CountValues, Some(label)) => return count_values(groups, text(label)?, when),
            (_, Some(param)) => self.scalar(param, when)?,
            (_, None) => Vec::new(),
        };
        if op == Aggregation::Quantile {
            self.warn_of_quantiles(&params);
        }
        if matches!(op, Aggregation::Topk | Aggregation::Bottomk) {
            check_k(&params)?;
            return Ok(groups.into_values().flat_map(|g| select_k(op, g, &params, when)).collect());
        }
        let mut aggregated = Vec::with_capacity(groups.len());
        let mut members = Vec::new();
        let mut mixed = false;
        for (labels, group) in groups {
            self.budget.spend(0, 0)?;
            let step_value = |step: usize| {
                members.clear();
                members.extend(group.iter().filter_map(|column| column.values[step]));
                let native = || group.iter().filter_map(|column| column.histogram(step));
                match op {
                    Aggregation::Sum | Aggregation::Avg if native().next().is_some() => {
                        mixed |= !members.is_empty();
                        members.is_empty().then(|| reduce_native(op, native()))?
                    }
                    Aggregation::Count | Aggregation::Group => {
                        members.extend(native().map(|histogram| histogram.count));
                        (!members.is_empty()).then(|| Sample::Float(reduce(op, &members, None)))
                    }
                    _ => (!members.is_empty())
                        .then(|| Sample::Float(reduce(op, &members, params.get(step).copied()))),
                }
            };
            aggregated.push(Column::of(labels, (0..when.steps()).map(step_value)));
        }
        if mixed {
            self.warn("encountered a mix of histograms and floats for aggregation");
        }
        Ok(drop_empty(aggregated))
    }
}

/// Refuses what is no number of series.
fn check_k(params: &[f64]) -> Result<(), QueryError> {
    const LARGEST: f64 = i64::MAX as f64;
    for k in params {
        if k.is_nan() {
            return Err(QueryError::bad("Parameter value is NaN"));
        }
        if *k >= LARGEST {
            return Err(QueryError::bad(format!("Scalar value {} overflows int64", format_sample(*k))));
        }
    }
    Ok(())
}

/// The sum or the mean of histograms.
fn reduce_native<'a>(
    op: Aggregation,
    histograms: impl Iterator<Item = &'a Arc<NativeHistogram>> + Clone,
) -> Option<Sample> {
    let mut total = native::sum(histograms.clone())?;
    if op == Aggregation::Avg {
        total.divide(histograms.count() as f64);
    }
    Some(Sample::Histogram(Arc::new(total)))
}

/// The aggregate of at least one value.
fn reduce(op: Aggregation, members: &[f64], param: Option<f64>) -> f64 {
    match op {
        Aggregation::Sum => sum::sum(members.iter().copied()),
        Aggregation::Avg => sum::mean(members),
        Aggregation::Min => members.iter().copied().fold(f64::NAN, sum::min),
        Aggregation::Max => members.iter().copied().fold(f64::NAN, sum::max),
        Aggregation::Count => members.len() as f64,
        Aggregation::Group => 1.0,
        Aggregation::Stddev => sum::variance(members).sqrt(),
        Aggregation::Stdvar => sum::variance(members),
        Aggregation::Quantile => sum::quantile(param.unwrap_or(f64::NAN), members.to_vec()),
        Aggregation::Topk | Aggregation::Bottomk | Aggregation::CountValues => {
            unreachable!("these do not make one value of a group")
        }
    }
}

/// Keeps, at each step, the `k` greatest or least values of a group. NaN is last in both. For one step the series
/// come in that order.
fn select_k(op: Aggregation, mut group: Vec<Column>, k: &[f64], when: &Timeline) -> Vec<Column> {
    let order = |a: f64, b: f64| {
        let by_value = if op == Aggregation::Topk { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        a.is_nan().cmp(&b.is_nan()).then(by_value.unwrap_or(Ordering::Equal))
    };
    for column in &mut group {
        column.histograms = Vec::new();
    }
    for (step, k) in k.iter().enumerate() {
        let mut present: Vec<(f64, usize)> = group
            .iter()
            .enumerate()
            .filter_map(|(index, column)| Some((column.values[step]?, index)))
            .collect();
        present.sort_by(|a, b| order(a.0, b.0));
        let kept = if *k < 1.0 { 0 } else { *k as usize };
        for (_, index) in present.iter().skip(kept) {
            group[*index].values[step] = None;
        }
    }
    let mut group = drop_empty(group);
    if when.steps() == 1 {
        group.sort_by(|a, b| order(a.values[0].unwrap_or(f64::NAN), b.values[0].unwrap_or(f64::NAN)));
    }
    group
}

/// A series for each value of a group, with the value in `label`.
fn count_values(
    groups: BTreeMap<Labels, Vec<Column>>,
    label: &str,
    when: &Timeline,
) -> Result<Vec<Column>, QueryError> {
    if label.is_empty() {
        return Err(QueryError::bad("invalid label name \"\" in count_values"));
    }
    let mut counted = Vec::new();
    for (labels, group) in groups {
        let mut by_value: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        for column in &group {
            for (step, value) in column.values.iter().enumerate() {
                if let Some(value) = value {
                    let counts =
                        by_value.entry(format_float(*value)).or_insert_with(|| vec![None; when.steps()]);
                    counts[step] = Some(counts[step].unwrap_or(0.0) + 1.0);
                }
            }
        }
        for (value, values) in by_value {
            let mut labels = labels.clone();
            labels.set(label, &value);
            counted.push(Column::floats(labels, values));
        }
    }
    unite(counted)
}
