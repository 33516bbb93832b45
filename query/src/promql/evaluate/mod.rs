//! Evaluation at the front: every expression for all steps at once, so that label work is done once a series and not
//! once a step.

mod aggregate;
mod binary;
mod functions;
mod histogram;
mod over_range;
mod relabel;
mod select;
mod sum;

use std::collections::{BTreeSet, HashMap};

use oteld_store::scan::ScanBudget;

use super::ast::{AbsentOf, Node};
use super::labels::Labels;
use super::leaf::check_limit;
use super::merge::{Series, merge};
use super::plan::{Plan, Root, Timeline};
use super::{LeafReply, is_stale};
use crate::{Limits, QueryError};
pub(crate) use functions::is_function;

/// The answer to a query. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Scalar {
        time_ms: i64,
        value: f64,
    },
    String {
        time_ms: i64,
        value: String,
    },
    /// Of an instant query; in the order that `sort` and `topk` give, else by labels where the expression keeps it.
    Vector {
        time_ms: i64,
        samples: Vec<(Labels, f64)>,
    },
    /// By labels.
    Matrix(Vec<MatrixSeries>),
}

/// One series with its samples in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    pub labels: Labels,
    pub samples: Vec<(i64, f64)>,
}

/// The answer, and what the asker should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub data: Data,
    /// Why the answer may be wrong.
    pub warnings: BTreeSet<String>,
    /// What looks unintended in the query.
    pub infos: BTreeSet<String>,
}

/// Merges the leaves' replies to [`Plan::leaf_request`] and computes the answer. Blocks and computes: not for the
/// reactor. `budget` serves to cancel.
///
/// Errors: [`crate::QueryErrorKind::BadQuery`] where the data do not allow the operation (as many-to-many matching),
/// [`crate::QueryErrorKind::Limit`], [`crate::QueryErrorKind::Cancelled`].
pub fn evaluate(
    plan: &Plan,
    replies: Vec<LeafReply>,
    limits: &Limits,
    budget: &ScanBudget,
) -> Result<Answer, QueryError> {
    let merged = merge(replies, plan.selectors.len(), limits)?;
    let mut evaluator = Evaluator {
        selected: &merged.selected,
        limits,
        budget,
        warnings: merged.warnings.clone(),
        infos: BTreeSet::new(),
    };
    let when = plan.timeline;
    let data = match &plan.root {
        Root::Range(range) => evaluator.raw_range(range, &when)?,
        Root::Node(node) => answer(evaluator.node(node, &when)?, plan.instant, &when),
    };
    Ok(Answer { data, warnings: evaluator.warnings, infos: evaluator.infos })
}

fn answer(value: Value, instant: bool, when: &Timeline) -> Data {
    let time_ms = when.start_ms;
    if instant {
        return match value {
            Value::Scalar(values) => Data::Scalar { time_ms, value: values[0] },
            Value::String(value) => Data::String { time_ms, value },
            Value::Vector(columns) => Data::Vector {
                time_ms,
                samples: columns.into_iter().filter_map(|c| c.values[0].map(|v| (c.labels, v))).collect(),
            },
        };
    }
    let columns = match value {
        Value::Vector(columns) => columns,
        Value::Scalar(values) => {
            vec![Column { labels: Labels::default(), values: values.into_iter().map(Some).collect() }]
        }
        Value::String(_) => Vec::new(),
    };
    let mut matrix: Vec<MatrixSeries> = columns
        .into_iter()
        .map(|column| {
            let at = |(step, value): (usize, Option<f64>)| Some((when.at(step), value?));
            MatrixSeries {
                labels: column.labels,
                samples: column.values.into_iter().enumerate().filter_map(at).collect(),
            }
        })
        .filter(|series| !series.samples.is_empty())
        .collect();
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    Data::Matrix(matrix)
}

/// The value of an expression at all steps.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Vec<f64>),
    String(String),
    Vector(Vec<Column>),
}

/// One series of an instant vector: a value or none for each step.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<f64>>,
}

impl Column {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }
}

pub(crate) struct Evaluator<'a> {
    selected: &'a [Vec<Series>],
    limits: &'a Limits,
    budget: &'a ScanBudget,
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
}

impl Evaluator<'_> {
    pub(crate) fn node(&mut self, node: &Node, when: &Timeline) -> Result<Value, QueryError> {
        self.budget.spend(0, 0)?;
        let value = match node {
            Node::Number(number) => Value::Scalar(vec![*number; when.steps()]),
            Node::String(text) => Value::String(text.clone()),
            Node::Select { selector, shift } => {
                Value::Vector(select::instant(&self.selected[*selector], *shift, when, |_, value| value))
            }
            Node::SelectTimestamp { selector, shift } => {
                let columns = select::instant(&self.selected[*selector], *shift, when, |time_ms, _| {
                    time_ms as f64 / 1000.0
                });
                Value::Vector(without_names(columns)?)
            }
            Node::OverRange { function, range, args } => {
                Value::Vector(self.over_range(*function, range, args, when)?)
            }
            Node::Call { function, args } => self.call(function, args, when)?,
            Node::Absent { of, labels } => Value::Vector(self.absent(of, labels, when)?),
            Node::Negate(inner) => match self.node(inner, when)? {
                Value::Scalar(values) => Value::Scalar(values.into_iter().map(|value| -value).collect()),
                other => Value::Vector(map(vector(other)?, |value| -value)?),
            },
            Node::Aggregate { op, expr, param, grouping } => {
                Value::Vector(self.aggregate(*op, expr, param.as_deref(), grouping, when)?)
            }
            Node::Binary { op, lhs, rhs, matching } => self.binary(*op, lhs, rhs, matching, when)?,
        };
        if let Value::Vector(columns) = &value {
            check_limit("samples", columns.len().saturating_mul(when.steps()), self.limits.samples_max)?;
        }
        Ok(value)
    }

    pub(crate) fn vector(&mut self, node: &Node, when: &Timeline) -> Result<Vec<Column>, QueryError> {
        vector(self.node(node, when)?)
    }

    pub(crate) fn scalar(&mut self, node: &Node, when: &Timeline) -> Result<Vec<f64>, QueryError> {
        match self.node(node, when)? {
            Value::Scalar(values) => Ok(values),
            _ => Err(wrong_type("scalar")),
        }
    }

    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.insert(format!("PromQL warning: {}", warning.into()));
    }

    pub(crate) fn inform(&mut self, info: impl Into<String>) {
        self.infos.insert(format!("PromQL info: {}", info.into()));
    }

    fn absent(&mut self, of: &AbsentOf, labels: &Labels, when: &Timeline) -> Result<Vec<Column>, QueryError> {
        let columns = match of {
            AbsentOf::Vector(node) => self.vector(node, when)?,
            AbsentOf::Range(range) => {
                self.over_range(super::ast::RangeFunction::Present, range, &[], when)?
            }
        };
        let absent = |step: usize| columns.iter().all(|column| column.values[step].is_none());
        let values = (0..when.steps()).map(|step| absent(step).then_some(1.0)).collect();
        Ok(drop_empty(vec![Column { labels: labels.clone(), values }]))
    }
}

/// The text of a string argument.
pub(crate) fn text(node: &Node) -> Result<&str, QueryError> {
    match node {
        Node::String(text) => Ok(text),
        _ => Err(wrong_type("string")),
    }
}

fn vector(value: Value) -> Result<Vec<Column>, QueryError> {
    match value {
        Value::Vector(columns) => Ok(columns),
        _ => Err(wrong_type("instant vector")),
    }
}

fn wrong_type(expected: &str) -> QueryError {
    QueryError::bad(format!("expected type {expected}"))
}

/// Applies a function to all values; the metric's name goes.
pub(crate) fn map(columns: Vec<Column>, f: impl Fn(f64) -> f64) -> Result<Vec<Column>, QueryError> {
    map_steps(columns, |_, value| Some(f(value)))
}

/// Applies a function of step and value; the metric's name goes.
pub(crate) fn map_steps(
    mut columns: Vec<Column>,
    f: impl Fn(usize, f64) -> Option<f64>,
) -> Result<Vec<Column>, QueryError> {
    for column in &mut columns {
        for (step, value) in column.values.iter_mut().enumerate() {
            *value = value.and_then(|value| f(step, value));
        }
    }
    without_names(columns)
}

pub(crate) fn without_names(mut columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    for column in &mut columns {
        column.labels = column.labels.without_name();
    }
    unite(columns)
}

pub(crate) fn drop_empty(mut columns: Vec<Column>) -> Vec<Column> {
    columns.retain(|column| !column.is_empty());
    columns
}

/// Puts series of equal labels together. Two of them may not have values at the same step.
pub(crate) fn unite(columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(columns.len());
    let mut united: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns.into_iter().filter(|column| !column.is_empty()) {
        if let Some(place) = places.get(&column.labels) {
            for (kept, more) in united[*place].values.iter_mut().zip(column.values) {
                match (&kept, more) {
                    (Some(_), Some(_)) => {
                        return Err(QueryError::bad("vector cannot contain metrics with the same labelset"));
                    }
                    (None, Some(value)) => *kept = Some(value),
                    _ => {}
                }
            }
        } else {
            places.insert(column.labels.clone(), united.len());
            united.push(column);
        }
    }
    Ok(united)
}
