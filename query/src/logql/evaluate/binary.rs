//! Arithmetic, comparisons and set operations between scalars and vectors.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ast::{BinaryOp, Matching};
use super::super::pipeline::compare;
use super::super::view::Labels;
use super::{Value, Values};
use crate::QueryError;

/// `left op right`.
pub(super) fn binary(
    op: BinaryOp,
    returns_bool: bool,
    matching: &Matching,
    left: Value,
    right: Value,
) -> Result<Value, QueryError> {
    let sample = |left: f64, right: f64, kept: f64| result(op, returns_bool, left, right, kept);
    Ok(match (left, right) {
        // Between scalars a comparison has nothing to filter, so it always says 0 or 1.
        (Value::Scalar(left), Value::Scalar(right)) => {
            Value::Scalar(result(op, true, left, right, left).unwrap_or(0.0))
        }
        (Value::Series(left), Value::Scalar(right)) => each(left, |left| sample(left, right, left)),
        (Value::Scalar(left), Value::Series(right)) => each(right, |right| sample(left, right, right)),
        (Value::Series(left), Value::Series(right)) => Value::Series(match op {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => set(op, matching, left, right),
            _ => one_to_one(matching, left, right, &sample)?,
        }),
    })
}

fn each(series: BTreeMap<Labels, Values>, sample: impl Fn(f64) -> Option<f64>) -> Value {
    let keep = |values: Values| {
        values.into_iter().filter_map(|(step, value)| Some((step, sample(value)?))).collect::<Values>()
    };
    let series = series.into_iter().map(|(labels, values)| (labels, keep(values)));
    Value::Series(series.filter(|(_, values)| !values.is_empty()).collect())
}

/// One sample; `None` where a comparison without `bool` does not hold. `kept` is what it shows where it does.
fn result(op: BinaryOp, returns_bool: bool, left: f64, right: f64, kept: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Compare(op) => match (compare(op, left, right), returns_bool) {
            (holds, true) => f64::from(u8::from(holds)),
            (true, false) => kept,
            (false, false) => return None,
        },
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => unreachable!("set operations have no samples"),
    })
}

/// The labels that decide whether two series belong together, which the result keeps.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let named = |name: &String| matching.labels.binary_search(name).is_ok();
    let kept = labels.iter().filter(|(name, _)| named(name) == matching.on);
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn one_to_one(
    matching: &Matching,
    left: BTreeMap<Labels, Values>,
    right: BTreeMap<Labels, Values>,
    sample: &dyn Fn(f64, f64, f64) -> Option<f64>,
) -> Result<BTreeMap<Labels, Values>, QueryError> {
    let many = |side: &str, labels: &Labels| {
        let message = format!(
            "found duplicate series for the match group {labels:?} on the {side} side of the operation; \
             many-to-one matching is not supported yet"
        );
        QueryError::bad(message)
    };
    // By signature and step: the right value, and whether a left one has met it.
    let mut others: BTreeMap<Labels, BTreeMap<u32, (f64, bool)>> = BTreeMap::new();
    for (labels, values) in right {
        let signature = signature(&labels, matching);
        let other = others.entry(signature).or_default();
        for (step, value) in values {
            if other.insert(step, (value, false)).is_some() {
                return Err(many("right", &labels));
            }
        }
    }
    let mut results: BTreeMap<Labels, BTreeMap<u32, f64>> = BTreeMap::new();
    for (labels, values) in left {
        let signature = signature(&labels, matching);
        let Some(other) = others.get_mut(&signature) else { continue };
        let mut kept = Vec::new();
        for (step, value) in values {
            let Some((right, met)) = other.get_mut(&step) else { continue };
            if std::mem::replace(met, true) {
                return Err(many("left", &labels));
            }
            kept.extend(sample(value, *right, value).map(|value| (step, value)));
        }
        if !kept.is_empty() {
            results.entry(signature).or_default().extend(kept);
        }
    }
    Ok(results.into_iter().map(|(labels, values)| (labels, values.into_iter().collect())).collect())
}

fn set(
    op: BinaryOp,
    matching: &Matching,
    left: BTreeMap<Labels, Values>,
    right: BTreeMap<Labels, Values>,
) -> BTreeMap<Labels, Values> {
    type Steps = BTreeMap<Labels, BTreeSet<u32>>;
    let there = |series: &BTreeMap<Labels, Values>| {
        let mut there = Steps::new();
        for (labels, values) in series {
            let steps = there.entry(signature(labels, matching)).or_default();
            steps.extend(values.iter().map(|(step, _)| *step));
        }
        there
    };
    let only = |series: BTreeMap<Labels, Values>, others: &Steps, wanted: bool| {
        let mut kept = BTreeMap::new();
        for (labels, mut values) in series {
            let other = others.get(&signature(&labels, matching));
            values.retain(|(step, _)| other.is_some_and(|other| other.contains(step)) == wanted);
            if !values.is_empty() {
                kept.insert(labels, values);
            }
        }
        kept
    };
    match op {
        BinaryOp::And => only(left, &there(&right), true),
        BinaryOp::Unless => only(left, &there(&right), false),
        _ => {
            let more = only(right, &there(&left), false);
            let mut all: BTreeMap<Labels, BTreeMap<u32, f64>> = BTreeMap::new();
            for (labels, values) in left.into_iter().chain(more) {
                all.entry(labels).or_default().extend(values);
            }
            all.into_iter().map(|(labels, values)| (labels, values.into_iter().collect())).collect()
        }
    }
}
