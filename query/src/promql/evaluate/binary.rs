//! Binary operators: of scalars, of a vector and a scalar, and of two vectors with matching.

use std::collections::HashMap;

use super::super::ast::{Matching, Node, Operator, Side};
use super::super::labels::Labels;
use super::{Column, Evaluator, Timeline, Value, map_steps, unite};
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
    if !keeps_name(op, return_bool) {
        return map_steps(vector, of);
    }
    for column in &mut vector {
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
            present[*group] |= column.values[step].is_some();
        }
        for (column, group) in to.iter_mut().zip(to_groups) {
            if present[*group] != (op == Operator::And) {
                column.values[step] = None;
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
        for (index, column) in one.iter().enumerate().filter(|(_, column)| column.values[step].is_some()) {
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
            let (Some(value), Some(other)) = (column.values[step], partner[group]) else { continue };
            let other_value = one[other].values[step].expect("a partner has a value at this step");
            let (a, b) = if swapped { (other_value, value) } else { (value, other_value) };
            let Some(result) = element(op, a, b, a, matching.return_bool) else { continue };
            if matching.side == Side::Neither && std::mem::replace(&mut taken[group], true) {
                return Err(QueryError::bad(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            let place = *results.entry((index, other)).or_insert_with(|| {
                let labels = result_labels(op, &column.labels, &one[other].labels, matching);
                columns.push(Column { labels, values: vec![None; when.steps()] });
                columns.len() - 1
            });
            columns[place].values[step] = Some(result);
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
