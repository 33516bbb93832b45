//! From the leaves' replies to the answer, on the front.

mod aggregate;
mod binary;
mod relabel;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ast::VectorOp;
use super::leaf::{EntriesReply, LeafReply, SeriesPartials};
use super::plan::{Direction, EntriesRequest, Node, SamplesRequest};
use super::view::Labels;
use crate::{Limits, QueryError, QueryErrorKind};

/// The answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryResult {
    /// In the order that was asked; [`group_streams`] makes streams of them.
    Entries(Vec<Entry>),
    /// An instant query: one value a series at this time.
    Vector { time_unix_nano: u64, samples: Vec<(Labels, f64)> },
    /// A range query.
    Matrix(Vec<Samples>),
    /// An instant query without series.
    Scalar { time_unix_nano: u64, value: f64 },
}

/// One log entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub time_unix_nano: u64,
    pub line: String,
    pub stream: Arc<Labels>,
    /// Structured metadata.
    pub metadata: Labels,
    /// What the pipeline extracted.
    pub parsed: Labels,
}

/// One series of a range query: (time in nanoseconds, value), oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub labels: Labels,
    pub values: Vec<(u64, f64)>,
}

/// Entries that share labels, in the order that was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct LogStream {
    pub labels: Labels,
    pub entries: Vec<Entry>,
}

/// Entries by stream, in order of labels. With `categorized` a stream has only its own labels, else those of
/// its entries' metadata and parsed labels too.
pub fn group_streams(entries: Vec<Entry>, categorized: bool) -> Vec<LogStream> {
    let mut streams: BTreeMap<Labels, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let mut labels = (*entry.stream).clone();
        if !categorized {
            let more = entry.metadata.iter().chain(&entry.parsed);
            labels.extend(more.map(|(name, value)| (name.clone(), value.clone())));
            labels.retain(|_, value| !value.is_empty());
        }
        streams.entry(labels).or_default().push(entry);
    }
    streams.into_iter().map(|(labels, entries)| LogStream { labels, entries }).collect()
}

/// Values of one step after another, each step once and in order.
type Values = Vec<(u32, f64)>;

/// What an expression comes to.
enum Value {
    Scalar(f64),
    Series(BTreeMap<Labels, Values>),
}

pub(super) fn entries(request: &EntriesRequest, replies: Vec<LeafReply>) -> Result<QueryResult, QueryError> {
    let mut all = Vec::new();
    for reply in replies {
        let LeafReply::Entries(EntriesReply { streams, entries }) = reply else { return Err(wrong_reply()) };
        for entry in entries {
            let stream = streams.get(entry.stream as usize).ok_or_else(wrong_reply)?.clone();
            all.push((entry, stream));
        }
    }
    all.sort_by(|(a, _), (b, _)| {
        let time = match request.direction {
            Direction::Forward => a.time_unix_nano.cmp(&b.time_unix_nano),
            Direction::Backward => b.time_unix_nano.cmp(&a.time_unix_nano),
        };
        time.then_with(|| (a.request, a.ordinal).cmp(&(b.request, b.ordinal)))
    });
    all.truncate(request.limit);
    let entries = all.into_iter().map(|(entry, stream)| Entry {
        time_unix_nano: entry.time_unix_nano,
        line: entry.line,
        stream,
        metadata: entry.metadata,
        parsed: entry.parsed,
    });
    Ok(QueryResult::Entries(entries.collect()))
}

pub(super) fn metric(
    node: &Node,
    request: &SamplesRequest,
    instant: bool,
    replies: Vec<LeafReply>,
    limits: &Limits,
) -> Result<QueryResult, QueryError> {
    let mut ranges: Vec<Vec<Vec<SeriesPartials>>> = vec![Vec::new(); request.ranges.len()];
    for reply in replies {
        let LeafReply::Samples(samples) = reply else { return Err(wrong_reply()) };
        if samples.len() != ranges.len() {
            return Err(wrong_reply());
        }
        for (range, samples) in ranges.iter_mut().zip(samples) {
            range.push(samples);
        }
    }
    let merged = ranges.into_iter().zip(&request.ranges);
    let merged = merged.map(|(partials, range)| windows::merge(range, partials, limits));
    let mut evaluation =
        Evaluation { ranges: merged.collect::<Result<_, _>>()?, steps: request.steps.count() as u32, limits };
    let value = evaluation.value(node)?;
    let steps = request.steps;
    Ok(match (value, instant) {
        (Value::Scalar(value), true) => QueryResult::Scalar { time_unix_nano: steps.start_unix_nano, value },
        (Value::Series(series), true) => {
            let samples = series.into_iter().filter_map(|(labels, values)| Some((labels, values.first()?.1)));
            let samples = ordered(node, samples.collect());
            QueryResult::Vector { time_unix_nano: steps.start_unix_nano, samples }
        }
        (value, false) => {
            let series = match value {
                Value::Scalar(value) => evaluation.constant(value),
                Value::Series(series) => series,
            };
            let times = |values: Values| {
                values.into_iter().map(|(step, value)| (steps.time_unix_nano(step), value)).collect()
            };
            let series = series.into_iter().filter(|(_, values)| !values.is_empty());
            QueryResult::Matrix(series.map(|(labels, v)| Samples { labels, values: times(v) }).collect())
        }
    })
}

/// `topk` and `sort_desc` show their greatest first, `bottomk` and `sort` their least; all others are in order of labels.
fn ordered(node: &Node, mut samples: Vec<(Labels, f64)>) -> Vec<(Labels, f64)> {
    match node {
        Node::Aggregate { op: VectorOp::TopK | VectorOp::SortDesc, .. } => {
            samples.sort_by(|a, b| b.1.total_cmp(&a.1))
        }
        Node::Aggregate { op: VectorOp::BottomK | VectorOp::Sort, .. } => {
            samples.sort_by(|a, b| a.1.total_cmp(&b.1))
        }
        _ => {}
    }
    samples
}

struct Evaluation<'a> {
    /// Each is taken once, by its own node.
    ranges: Vec<BTreeMap<Labels, Values>>,
    steps: u32,
    limits: &'a Limits,
}

impl Evaluation<'_> {
    fn value(&mut self, node: &Node) -> Result<Value, QueryError> {
        Ok(match node {
            Node::Scalar(value) => Value::Scalar(*value),
            Node::Vector(value) => Value::Series(self.constant(*value)),
            Node::Range(place) => Value::Series(std::mem::take(&mut self.ranges[*place])),
            Node::Aggregate { op, parameter, grouping, of } => match self.value(of)? {
                Value::Series(series) => {
                    Value::Series(aggregate::aggregate(*op, *parameter, grouping, series))
                }
                Value::Scalar(_) => {
                    return Err(QueryError::bad("an aggregation needs a vector, not a scalar"));
                }
            },
            Node::Absent { range, labels } => {
                let found = std::mem::take(&mut self.ranges[*range]);
                let found: BTreeSet<u32> = found.into_values().flatten().map(|(step, _)| step).collect();
                let absent = (0..self.steps).filter(|step| !found.contains(step));
                let values: Values = absent.map(|step| (step, 1.0)).collect();
                let series = (!values.is_empty()).then(|| (labels.clone(), values));
                Value::Series(series.into_iter().collect())
            }
            Node::LabelReplace { rule, of } => match self.value(of)? {
                Value::Series(series) => Value::Series(relabel::label_replace(rule, series)?),
                Value::Scalar(_) => {
                    return Err(QueryError::bad("label_replace needs a vector, not a scalar"));
                }
            },
            Node::Binary { op, returns_bool, matching, sides } => {
                let (left, right) = (self.value(&sides.0)?, self.value(&sides.1)?);
                binary::binary(*op, *returns_bool, matching, left, right)?
            }
        })
    }

    fn constant(&self, value: f64) -> BTreeMap<Labels, Values> {
        debug_assert!(self.steps as usize <= self.limits.steps_max.max(1), "the plan checks the steps");
        BTreeMap::from([(Labels::new(), (0..self.steps).map(|step| (step, value)).collect())])
    }
}

fn wrong_reply() -> QueryError {
    QueryError::new(QueryErrorKind::Internal, "a leaf gave a reply of another kind than it was asked for")
}
