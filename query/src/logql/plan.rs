//! From a query and its times to what the leaves are asked.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ast::{
    BinaryOp, Grouping, LabelReplace, LogQuery, MatchOp, Matcher, Matching, MetricExpr, Query,
    RangeAggregation, RangeOp, VectorOp,
};
use super::leaf::LeafReply;
use super::parse;
use super::pipeline::{CompiledUnwrap, Pipeline};
use super::view::Labels;
use super::{QueryResult, evaluate};
use crate::{Limits, QueryError, QueryErrorKind};

/// Which end of the time range comes first, and stays when the limit cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    #[default]
    Backward,
}

/// What a leaf is asked. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LeafRequest {
    Entries(EntriesRequest),
    Samples(SamplesRequest),
    /// Label sets of the streams that fit one of the selectors, all streams when there is none.
    Streams {
        selectors: Vec<Vec<Matcher>>,
        time_unix_nano: Range<u64>,
    },
    /// Entries and bytes of each stream that fits.
    Volumes {
        selector: Vec<Matcher>,
        time_unix_nano: Range<u64>,
    },
}

/// The first `limit` entries that a query takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntriesRequest {
    pub query: LogQuery,
    /// Start included, end excluded.
    pub time_unix_nano: Range<u64>,
    pub limit: usize,
    pub direction: Direction,
}

/// Partial values of range aggregations at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplesRequest {
    pub ranges: Vec<RangeAggregation>,
    pub steps: Steps,
}

/// The times that a metric query is evaluated at: `start`, `start + step`, … up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
    pub step_nanos: u64,
}

impl Steps {
    /// How many there are, at least one.
    pub fn count(self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano) / self.step_nanos.max(1) + 1
    }

    /// The time of step `index`.
    pub fn time_unix_nano(self, index: u32) -> u64 {
        self.start_unix_nano.saturating_add(self.step_nanos.saturating_mul(u64::from(index)))
    }

    /// What a window of `(t - offset - range, t - offset]` at every step covers, as a half-open range.
    pub fn covered(self, range_nanos: u64, offset_nanos: i64) -> Range<u64> {
        let clamp = |time: i128| u64::try_from(time.max(0)).unwrap_or(u64::MAX);
        let (range, offset) = (i128::from(range_nanos), i128::from(offset_nanos));
        let last = self.start_unix_nano + (self.count() - 1) * self.step_nanos;
        let start = clamp(i128::from(self.start_unix_nano) - offset - range + 1);
        start..clamp(i128::from(last) - offset + 1)
    }

    /// The steps whose window holds `time`, as a half-open range of indexes; empty when none does.
    pub fn holding(self, time_unix_nano: u64, range_nanos: u64, offset_nanos: i64) -> Range<u32> {
        let step = i128::from(self.step_nanos.max(1));
        // A window at t holds the time when first <= t < first + range.
        let first = i128::from(time_unix_nano) + i128::from(offset_nanos) - i128::from(self.start_unix_nano);
        let ceil = |nanos: i128| nanos.div_euclid(step) + i128::from(nanos.rem_euclid(step) != 0);
        let clamp = |index: i128| u32::try_from(index.clamp(0, i128::from(self.count()))).unwrap_or(u32::MAX);
        clamp(ceil(first))..clamp(ceil(first + i128::from(range_nanos)))
    }
}

/// When and how a query is asked. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct QueryParameters {
    pub kind: QueryTime,
    /// Entries of a log query.
    pub limit: usize,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug)]
pub enum QueryTime {
    Instant { time_unix_nano: u64 },
    Range { start_unix_nano: u64, end_unix_nano: u64, step_nanos: u64 },
}

/// A query that is ready to run: ask all leaves [`Plan::request`], give their replies to [`Plan::finish`].
#[derive(Clone, Debug)]
pub enum Plan {
    Entries(EntriesRequest),
    Metric { node: Node, request: SamplesRequest, instant: bool },
}

/// A metric expression whose range aggregations are places in [`SamplesRequest::ranges`].
#[derive(Clone, Debug)]
pub enum Node {
    Range(usize),
    Aggregate {
        op: VectorOp,
        parameter: Option<f64>,
        grouping: Grouping,
        of: Box<Node>,
    },
    Binary {
        op: BinaryOp,
        returns_bool: bool,
        matching: Matching,
        sides: Box<(Node, Node)>,
    },
    /// 1 at the steps where the range has no row.
    Absent {
        range: usize,
        labels: Labels,
    },
    LabelReplace {
        rule: LabelReplace,
        of: Box<Node>,
    },
    Scalar(f64),
    Vector(f64),
}

impl Plan {
    /// What to ask; `None` when the query needs no rows.
    pub fn request(&self) -> Option<LeafRequest> {
        match self {
            Plan::Entries(request) => Some(LeafRequest::Entries(request.clone())),
            Plan::Metric { request, .. } if request.ranges.is_empty() => None,
            Plan::Metric { request, .. } => Some(LeafRequest::Samples(request.clone())),
        }
    }

    /// Merges what the leaves said and computes the answer. The order of the replies does not matter.
    pub fn finish(&self, replies: Vec<LeafReply>, limits: &Limits) -> Result<QueryResult, QueryError> {
        match self {
            Plan::Entries(request) => evaluate::entries(request, replies),
            Plan::Metric { node, request, instant } => {
                evaluate::metric(node, request, *instant, replies, limits)
            }
        }
    }
}

/// Parses and checks a query.
pub fn plan(text: &str, parameters: QueryParameters, limits: &Limits) -> Result<Plan, QueryError> {
    match (parse::parse(text, limits.query_length_max)?, parameters.kind) {
        (Query::Logs(query), QueryTime::Range { start_unix_nano, end_unix_nano, .. }) => {
            Pipeline::new(&query.stages)?;
            check_range(start_unix_nano, end_unix_nano)?;
            Ok(Plan::Entries(EntriesRequest {
                query,
                time_unix_nano: start_unix_nano..end_unix_nano,
                limit: checked_limit(parameters.limit, limits)?,
                direction: parameters.direction,
            }))
        }
        (Query::Logs(_), QueryTime::Instant { .. }) => Err(QueryError::bad(
            "log queries are not supported as an instant query type, please change your query to a range query \
             type",
        )),
        (Query::Metric(expression), time) => {
            let (steps, instant) = match time {
                QueryTime::Instant { time_unix_nano: time } => {
                    (Steps { start_unix_nano: time, end_unix_nano: time, step_nanos: 1 }, true)
                }
                QueryTime::Range { start_unix_nano, end_unix_nano, step_nanos } => {
                    (checked_steps(start_unix_nano, end_unix_nano, step_nanos, limits)?, false)
                }
            };
            let mut ranges = Vec::new();
            let node = lower(expression, None, &mut ranges);
            for range in &ranges {
                Pipeline::new(&range.query.stages)?;
                range.unwrap.as_ref().map(CompiledUnwrap::new).transpose()?;
            }
            Ok(Plan::Metric { node, request: SamplesRequest { ranges, steps }, instant })
        }
    }
}

fn check_range(start: u64, end: u64) -> Result<(), QueryError> {
    if end <= start {
        return Err(QueryError::bad("end timestamp must not be before or equal to start time"));
    }
    Ok(())
}

fn checked_limit(limit: usize, limits: &Limits) -> Result<usize, QueryError> {
    if limit == 0 {
        return Err(QueryError::bad("limit must be a positive value"));
    }
    let max = limits.entries_max;
    if limit > max {
        let message =
            format!("max entries limit per query exceeded, limit > max_entries_limit ({limit} > {max})");
        return Err(QueryError::new(QueryErrorKind::Limit, message));
    }
    Ok(limit)
}

fn checked_steps(start: u64, end: u64, step_nanos: u64, limits: &Limits) -> Result<Steps, QueryError> {
    if step_nanos == 0 {
        return Err(QueryError::bad(
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end < start {
        return Err(QueryError::bad("end timestamp must not be before or equal to start time"));
    }
    let steps = Steps { start_unix_nano: start, end_unix_nano: end, step_nanos };
    if steps.count() > limits.steps_max.min(u32::MAX as usize - 1) as u64 {
        let message = format!(
            "exceeded maximum resolution of {} points per time series. Try increasing the value of the step \
             parameter",
            limits.steps_max
        );
        return Err(QueryError::new(QueryErrorKind::Limit, message));
    }
    Ok(steps)
}

/// Takes the range aggregations out. Where a `sum` stands right above a range aggregation that only adds, the
/// leaves reduce to its labels already, because sums of sums are the sum.
fn lower(expression: MetricExpr, sum: Option<&Grouping>, ranges: &mut Vec<RangeAggregation>) -> Node {
    match expression {
        MetricExpr::Scalar(value) => Node::Scalar(value),
        MetricExpr::Vector(value) => Node::Vector(value),
        MetricExpr::Range(mut range) if range.op == RangeOp::Absent => {
            range.grouping = Some(Grouping::default());
            let labels = absent_labels(&range.query.selector);
            ranges.push(range);
            Node::Absent { range: ranges.len() - 1, labels }
        }
        MetricExpr::LabelReplace { rule, of } => {
            Node::LabelReplace { rule, of: Box::new(lower(*of, None, ranges)) }
        }
        MetricExpr::Range(mut range) => {
            if let (true, Some(grouping), None) = (range.op.adds(), sum, &range.grouping) {
                range.grouping = Some(grouping.clone());
            }
            ranges.push(range);
            Node::Range(ranges.len() - 1)
        }
        MetricExpr::Aggregate { op, parameter, grouping, of } => {
            let grouping = grouping.unwrap_or_default();
            let sum = (op == VectorOp::Sum).then_some(&grouping);
            let of = Box::new(lower(*of, sum, ranges));
            Node::Aggregate { op, parameter, grouping, of }
        }
        MetricExpr::Binary { op, returns_bool, matching, sides } => {
            let (left, right) = *sides;
            let sides = Box::new((lower(left, None, ranges), lower(right, None, ranges)));
            Node::Binary { op, returns_bool, matching, sides }
        }
    }
}

/// What is known of a series that is not there: the labels that the selector says once and with `=`.
fn absent_labels(selector: &[Matcher]) -> Labels {
    let times = |name: &str| selector.iter().filter(|matcher| matcher.name == name).count();
    let known = selector.iter().filter(|matcher| matcher.op == MatchOp::Equal && times(&matcher.name) == 1);
    known.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect()
}
