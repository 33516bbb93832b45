//! Evaluation at the front: every expression for all steps at once, so that label work is done once a series and not
//! once a step.

mod aggregate;
mod binary;
mod functions;
mod histogram;
mod native;
mod over_range;
mod relabel;
mod select;
mod sum;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use oteld_store::scan::ScanBudget;

use super::ast::{AbsentOf, Node};
use super::labels::Labels;
use super::leaf::check_limit;
use super::merge::{Series, merge};
use super::native::NativeHistogram;
use super::plan::{Plan, Root, Timeline};
use super::{Histograms, LeafReply, is_stale};
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
        samples: Vec<(Labels, Sample)>,
    },
    /// By labels.
    Matrix(Vec<MatrixSeries>),
}

/// One series with its samples in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    pub labels: Labels,
    pub samples: Vec<(i64, f64)>,
    pub histograms: Vec<(i64, Arc<NativeHistogram>)>,
}

/// One value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    Float(f64),
    Histogram(Arc<NativeHistogram>),
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
                samples: columns.into_iter().filter_map(|c| c.at(0).map(|v| (c.labels, v))).collect(),
            },
        };
    }
    let columns = match value {
        Value::Vector(columns) => columns,
        Value::Scalar(values) => {
            vec![Column::floats(Labels::default(), values.into_iter().map(Some).collect())]
        }
        Value::String(_) => Vec::new(),
    };
    let mut matrix: Vec<MatrixSeries> = columns
        .into_iter()
        .map(|column| {
            let float = |(step, value): (usize, Option<f64>)| Some((when.at(step), value?));
            let histogram = |(step, value): (usize, Option<_>)| Some((when.at(step), value?));
            MatrixSeries {
                labels: column.labels,
                samples: column.values.into_iter().enumerate().filter_map(float).collect(),
                histograms: column.histograms.into_iter().enumerate().filter_map(histogram).collect(),
            }
        })
        .filter(|series| !series.samples.is_empty() || !series.histograms.is_empty())
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

/// One series of an instant vector: for each step a float, a histogram or neither.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<f64>>,
    /// As many as `values`, or none at all.
    pub(crate) histograms: Histograms,
}

impl Column {
    pub(crate) fn floats(labels: Labels, values: Vec<Option<f64>>) -> Self {
        Column { labels, values, histograms: Vec::new() }
    }

    pub(crate) fn of(labels: Labels, samples: impl Iterator<Item = Option<Sample>>) -> Self {
        let mut column = Column::floats(labels, Vec::with_capacity(samples.size_hint().0));
        for (step, sample) in samples.enumerate() {
            column.values.push(None);
            column.set(step, sample);
        }
        column
    }

    pub(crate) fn at(&self, step: usize) -> Option<Sample> {
        let histogram = || self.histogram(step).cloned().map(Sample::Histogram);
        self.values[step].map(Sample::Float).or_else(histogram)
    }

    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<NativeHistogram>> {
        self.histograms.get(step)?.as_ref()
    }

    pub(crate) fn is_at(&self, step: usize) -> bool {
        self.values[step].is_some() || self.histogram(step).is_some()
    }

    pub(crate) fn set(&mut self, step: usize, sample: Option<Sample>) {
        self.values[step] = None;
        if !self.histograms.is_empty() || matches!(sample, Some(Sample::Histogram(_))) {
            self.histograms.resize(self.values.len(), None);
            self.histograms[step] = None;
        }
        match sample {
            Some(Sample::Float(value)) => self.values[step] = Some(value),
            Some(Sample::Histogram(histogram)) => self.histograms[step] = Some(histogram),
            None => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none) && self.histograms.iter().all(Option::is_none)
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
                Value::Vector(select::instant(&self.selected[*selector], *shift, when))
            }
            Node::SelectTimestamp { selector, shift } => {
                let columns = select::timestamps(&self.selected[*selector], *shift, when);
                Value::Vector(without_names(columns)?)
            }
            Node::OverRange { function, range, args } => {
                Value::Vector(self.over_range(*function, range, args, when)?)
            }
            Node::Call { function, args } => self.call(function, args, when)?,
            Node::Absent { of, labels } => Value::Vector(self.absent(of, labels, when)?),
            Node::Negate(inner) => match self.node(inner, when)? {
                Value::Scalar(values) => Value::Scalar(values.into_iter().map(|value| -value).collect()),
                other => Value::Vector(binary::negate(vector(other)?)?),
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
        let absent = |step: usize| columns.iter().all(|column| !column.is_at(step));
        let values = (0..when.steps()).map(|step| absent(step).then_some(1.0)).collect();
        Ok(drop_empty(vec![Column::floats(labels.clone(), values)]))
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

/// Applies a function of step and value; the metric's name and histograms go.
pub(crate) fn map_steps(
    mut columns: Vec<Column>,
    f: impl Fn(usize, f64) -> Option<f64>,
) -> Result<Vec<Column>, QueryError> {
    for column in &mut columns {
        column.histograms = Vec::new();
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
            let kept = &mut united[*place];
            for step in (0..column.values.len()).filter(|step| column.is_at(*step)) {
                if kept.is_at(step) {
                    return Err(QueryError::bad("vector cannot contain metrics with the same labelset"));
                }
                kept.set(step, column.at(step));
            }
        } else {
            places.insert(column.labels.clone(), united.len());
            united.push(column);
        }
    }
    Ok(united)
}
