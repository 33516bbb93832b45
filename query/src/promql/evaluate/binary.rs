//! Binary operators: of scalars, of a vector and a scalar, and of two vectors with matching.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::ast::{Matching, Node, Operator, Side};
use super::super::labels::Labels;
use super::super::native::NativeHistogram;
use super::{Column, Evaluator, Sample, Timeline, Value, map_steps, unite};
use crate::QueryError;

impl Evaluator<'_> {
    pub(super) fn binary(
        &mut self,
        op: Operator,
        lhs: &Node,
        rhs: &Node,
        matching: &Matching,
        when: &Timeline,
    ) -> Result<Value, QueryError> {
        let (lhs, rhs) = (self.node(lhs, when)?, self.node(rhs, when)?);
        Ok(match (lhs, rhs) {
            (Value::Scalar(lhs), Value::Scalar(rhs)) => {
                let pairs = lhs.into_iter().zip(rhs);
                Value::Scalar(pairs.map(|(a, b)| compute(op, a, b)).collect())
            }
            (Value::Vector(vector), Value::Scalar(scalar)) => {
                Value::Vector(with_scalar(op, vector, &scalar, false, matching.return_bool)?)
            }
            (Value::Scalar(scalar), Value::Vector(vector)) => {
                Value::Vector(with_scalar(op, vector, &scalar, true, matching.return_bool)?)
            }
            (Value::Vector(lhs), Value::Vector(rhs)) if op.is_set() => {
                Value::Vector(set(op, lhs, rhs, matching, when)?)
            }
            (Value::Vector(lhs), Value::Vector(rhs)) => {
                self.budget.spend(0, 0)?;
                Value::Vector(matched(op, &lhs, &rhs, matching, when)?)
            }
            _ => {
                return Err(QueryError::bad(
                    "binary expression must contain only scalar and instant vector types",
                ));
            }
        })
    }
}

/// The value of an operator; of a comparison, 1 or 0.
fn compute(op: Operator, a: f64, b: f64) -> f64 {
    match op {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::Mod => a % b,
        Operator::Pow => a.powf(b),
        Operator::Atan2 => a.atan2(b),
        _ => f64::from(u8::from(compare(op, a, b))),
    }
}

fn compare(op: Operator, a: f64, b: f64) -> bool {
    match op {
        Operator::Equal => a == b,
        Operator::NotEqual => a != b,
        Operator::Less => a < b,
        Operator::Greater => a > b,
        Operator::LessOrEqual => a <= b,
        Operator::GreaterOrEqual => a >= b,
        _ => true,
    }
}

/// What a pair of elements gives: a comparison without `bool` keeps `kept` or nothing.
fn element(op: Operator, a: f64, b: f64, kept: f64, return_bool: bool) -> Option<f64> {
    if op.is_comparison() && !return_bool {
        return compare(op, a, b).then_some(kept);
    }
    Some(compute(op, a, b))
}

/// A comparison that filters keeps the metric's name; everything else makes another metric.
fn keeps_name(op: Operator, return_bool: bool) -> bool {
    op.is_comparison() && !return_bool
}

/// What two samples give; of floats as [`element`]. Histograms are added, subtracted and compared, and multiplied with
/// and divided by floats; everything else gives nothing.
fn combine(op: Operator, a: &Sample, b: &Sample, return_bool: bool) -> Option<Sample> {
    let histogram = |histogram: &NativeHistogram, change: &dyn Fn(&mut NativeHistogram)| {
        let mut changed = histogram.clone();
        change(&mut changed);
        Some(Sample::Histogram(Arc::new(changed)))
    };
    match (a, b, op) {
        (Sample::Float(a), Sample::Float(b), _) => element(op, *a, *b, *a, return_bool).map(Sample::Float),
        (Sample::Histogram(a), Sample::Float(b), Operator::Mul)
        | (Sample::Float(b), Sample::Histogram(a), Operator::Mul) => histogram(a, &|h| h.scale(*b)),
        (Sample::Histogram(a), Sample::Float(b), Operator::Div) => histogram(a, &|h| h.divide(*b)),
        (Sample::Histogram(a), Sample::Histogram(b), Operator::Add) => histogram(a, &|h| h.add(b, 1.0)),
        (Sample::Histogram(a), Sample::Histogram(b), Operator::Sub) => histogram(a, &|h| h.add(b, -1.0)),
        (Sample::Histogram(left), Sample::Histogram(right), Operator::Equal | Operator::NotEqual) => {
            let holds = (left == right) == (op == Operator::Equal);
            match return_bool {
                true => Some(Sample::Float(f64::from(u8::from(holds)))),
                false => holds.then(|| a.clone()),
            }
        }
        _ => None,
    }
}

/// The vector with the sign changed.
pub(super) fn negate(mut columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    for column in &mut columns {
        for value in column.values.iter_mut().flatten() {
            *value = -*value;
        }
        super::native::change(&mut column.histograms, |_, histogram| histogram.scale(-1.0));
    }
    super::without_names(columns)
}

fn with_scalar(
    op: Operator,
    mut vector: Vec<Column>,
    scalar: &[f64],
    scalar_first: bool,
    return_bool: bool,
) -> Result<Vec<Column>, QueryError> {
    let of = |step: usize, value: f64| {
        let (a, b) = if scalar_first { (scalar[step], value) } else { (value, scalar[step]) };
        element(op, a, b, value, return_bool)
    };
    let by_scalar = op == Operator::Mul || (op == Operator::Div && !scalar_first);
    if by_scalar && vector.iter().any(|column| !column.histograms.is_empty()) {
        for column in &mut vector {
            let samples: Vec<_> = (0..scalar.len())
                .map(|step| combine(op, &column.at(step)?, &Sample::Float(scalar[step]), return_bool))
                .collect();
            *column = Column::of(std::mem::take(&mut column.labels), samples.into_iter());
        }
        return super::without_names(vector);
    }
    if !keeps_name(op, return_bool) {
        return map_steps(vector, of);
    }
    for column in &mut vector {
        column.histograms = Vec::new();
        for (step, value) in column.values.iter_mut().enumerate() {
            *value = value.and_then(|value| of(step, value));
        }
    }
    Ok(super::drop_empty(vector))
}

/// Numbers for the match groups of both sides: equal keys, equal numbers.
struct Groups {
    lhs: Vec<usize>,
    rhs: Vec<usize>,
    count: usize,
}

impl Groups {
    fn new(lhs: &[Column], rhs: &[Column], matching: &Matching) -> Self {
        let mut numbers: HashMap<Labels, usize> = HashMap::new();
        let mut number = |column: &Column| {
            let next = numbers.len();
            *numbers.entry(matching.key(&column.labels)).or_insert(next)
        };
        let lhs = lhs.iter().map(&mut number).collect();
        let rhs = rhs.iter().map(&mut number).collect();
        Groups { lhs, rhs, count: numbers.len() }
    }
}

fn set(
    op: Operator,
    mut lhs: Vec<Column>,
    mut rhs: Vec<Column>,
    matching: &Matching,
    when: &Timeline,
) -> Result<Vec<Column>, QueryError> {
    let groups = Groups::new(&lhs, &rhs, matching);
    let mut present = vec![false; groups.count];
    for step in 0..when.steps() {
        present.fill(false);
        let (from, by, to, to_groups) = match op {
            Operator::Or => (&lhs, &groups.lhs, &mut rhs, &groups.rhs),
            _ => (&rhs, &groups.rhs, &mut lhs, &groups.lhs),
        };
        for (column, group) in from.iter().zip(by) {
            present[*group] |= column.is_at(step);
        }
        for (column, group) in to.iter_mut().zip(to_groups) {
            if present[*group] != (op == Operator::And) {
                column.set(step, None);
            }
        }
    }
    if op == Operator::Or {
        lhs.extend(rhs);
    }
    unite(lhs)
}

/// Arithmetic and comparison of two vectors (Prometheus, promql/engine.go, VectorBinop).
fn matched(
    op: Operator,
    lhs: &[Column],
    rhs: &[Column],
    matching: &Matching,
    when: &Timeline,
) -> Result<Vec<Column>, QueryError> {
    let groups = Groups::new(lhs, rhs, matching);
    // The "many" side drives; the other has at most one series a group and step.
    let swapped = matching.side == Side::Right;
    let (many, many_groups, one, one_groups) =
        if swapped { (rhs, &groups.rhs, lhs, &groups.lhs) } else { (lhs, &groups.lhs, rhs, &groups.rhs) };
    let mut results: HashMap<(usize, usize), usize> = HashMap::new();
    let mut columns: Vec<Column> = Vec::new();
    let mut partner: Vec<Option<usize>> = vec![None; groups.count];
    let mut taken = vec![false; groups.count];
    for step in 0..when.steps() {
        partner.fill(None);
        taken.fill(false);
        for (index, column) in one.iter().enumerate().filter(|(_, column)| column.is_at(step)) {
            if let Some(first) = partner[one_groups[index]].replace(index) {
                let side = if swapped { "left" } else { "right" };
                return Err(QueryError::bad(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    matching.key(&column.labels),
                    one[first].labels,
                    column.labels,
                )));
            }
        }
        for (index, column) in many.iter().enumerate() {
            let group = many_groups[index];
            let (Some(value), Some(other)) = (column.at(step), partner[group]) else { continue };
            let other_value = one[other].at(step).expect("a partner has a value at this step");
            let (a, b) = if swapped { (other_value, value) } else { (value, other_value) };
            let Some(result) = combine(op, &a, &b, matching.return_bool) else { continue };
            if matching.side == Side::Neither && std::mem::replace(&mut taken[group], true) {
                return Err(QueryError::bad(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            let place = *results.entry((index, other)).or_insert_with(|| {
                let labels = result_labels(op, &column.labels, &one[other].labels, matching);
                columns.push(Column::floats(labels, vec![None; when.steps()]));
                columns.len() - 1
            });
            columns[place].set(step, Some(result));
        }
    }
    unite(columns).map_err(|_| {
        QueryError::bad("multiple matches for labels: grouping labels must ensure unique matches")
    })
}

fn result_labels(op: Operator, many: &Labels, one: &Labels, matching: &Matching) -> Labels {
    let mut labels = if keeps_name(op, matching.return_bool) { many.clone() } else { many.without_name() };
    if matching.side == Side::Neither {
        labels = if matching.on { labels.only(&matching.labels) } else { labels.without(&matching.labels) };
    }
    for name in &matching.include {
        labels.set(name, one.get(name));
    }
    labels
}
