//! The front's part before the fan-out: check an expression, and find which samples it needs.

use std::time::{Duration, SystemTime};

use promql_parser::parser::{
    AggregateExpr, AtModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, SubqueryExpr,
    VectorMatchCardinality, VectorSelector,
};

use super::ast::{
    AbsentOf, Aggregation, Grouping, Kind, Matching, Node, Operator, Range, RangeFunction, Shift, Side,
    implied_labels,
};
use super::labels::{Labels, Matcher};
use super::{LeafRequest, Selector, Windows, parse};
use crate::{Limits, QueryError, QueryErrorKind};

/// How far an instant selector looks back: Prometheus' default.
pub const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// Step of a subquery that names none: Prometheus' default evaluation interval.
const SUBQUERY_STEP_MS: i64 = 60 * 1000;

/// Inner steps of one subquery: a scalar takes memory for each.
const SUBQUERY_STEPS_MAX: usize = 1_000_000;

/// Times farther from the epoch than this are refused, so that no sum of a few of them overflows.
const TIME_MS_MAX: i64 = i64::MAX / 16;

/// At which times a query is evaluated, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    pub start_ms: i64,
    pub end_ms: i64,
    /// Positive; of no meaning for an instant query.
    pub step_ms: i64,
}

impl Timeline {
    pub fn instant(time_ms: i64) -> Self {
        Timeline { start_ms: time_ms, end_ms: time_ms, step_ms: 1 }
    }

    /// How many steps there are, none when the end is before the start.
    pub fn steps(&self) -> usize {
        if self.end_ms < self.start_ms {
            return 0;
        }
        ((self.end_ms - self.start_ms) / self.step_ms) as usize + 1
    }

    pub fn at(&self, step: usize) -> i64 {
        self.start_ms + step as i64 * self.step_ms
    }

    /// Times of a subquery's inner steps: multiples of its step, in all windows of the outer steps.
    pub(crate) fn inner(&self, shift: Shift, range_ms: i64, step_ms: i64) -> Timeline {
        let first = shift.apply(self.start_ms) - range_ms;
        let start_ms = (first.div_euclid(step_ms) + 1) * step_ms;
        Timeline { start_ms, end_ms: shift.apply(self.end_ms), step_ms }
    }
}

/// A checked query: what to ask the leaves, and what to do with their replies.
#[derive(Debug)]
pub struct Plan {
    pub(crate) root: Root,
    pub(crate) selectors: Vec<Selector>,
    pub(crate) timeline: Timeline,
    pub(crate) instant: bool,
}

#[derive(Debug)]
pub(crate) enum Root {
    Node(Node),
    /// An instant query for a range vector.
    Range(Range),
}

impl Plan {
    /// The request for every leaf; `None` when the query needs no samples.
    pub fn leaf_request(&self) -> Option<LeafRequest> {
        (!self.selectors.is_empty()).then(|| LeafRequest::Samples(self.selectors.clone()))
    }

    /// The matchers of all its selectors, without their times.
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        self.selectors.iter().map(|selector| selector.matchers.clone()).collect()
    }

    /// A plan for an instant query at a time.
    ///
    /// Errors: [`QueryErrorKind::BadQuery`] for what Prometheus would refuse to parse,
    /// [`QueryErrorKind::NotSupported`] for what is not built, [`QueryErrorKind::Limit`].
    pub fn instant(query: &str, time_ms: i64, limits: &Limits) -> Result<Plan, QueryError> {
        Plan::new(query, Timeline::instant(time_ms), true, limits)
    }

    /// A plan for a range query. Errors as of [`Plan::instant`], and for a step that is not positive, an end
    /// before the start, more than the allowed steps, and expressions that are no scalar or instant vector.
    pub fn range(query: &str, timeline: Timeline, limits: &Limits) -> Result<Plan, QueryError> {
        if timeline.step_ms <= 0 {
            return Err(QueryError::bad(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if timeline.end_ms < timeline.start_ms {
            return Err(QueryError::bad("end timestamp must not be before start time"));
        }
        check_time(timeline.start_ms)?;
        check_time(timeline.end_ms)?;
        if (timeline.end_ms - timeline.start_ms) / timeline.step_ms > limits.steps_max as i64 {
            return Err(QueryError::bad(format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
                thousands(limits.steps_max)
            )));
        }
        Plan::new(query, timeline, false, limits)
    }

    fn new(query: &str, timeline: Timeline, instant: bool, limits: &Limits) -> Result<Plan, QueryError> {
        check_time(timeline.start_ms)?;
        let expr = parse::parse(query, limits)?;
        let mut planner = Planner { query: timeline, selectors: Vec::new() };
        let root = match strip(&expr) {
            range @ (Expr::MatrixSelector(_) | Expr::Subquery(_)) => {
                Root::Range(planner.range(range, timeline)?)
            }
            node => Root::Node(planner.node(node, timeline)?),
        };
        let refused = match &root {
            Root::Range(_) if !instant => Some("range vector"),
            Root::Node(node) if !instant && node.kind() == Kind::String => Some("string"),
            _ => None,
        };
        if let Some(kind) = refused {
            return Err(QueryError::bad(format!(
                "invalid expression type {kind:?} for range query, must be Scalar or instant Vector"
            )));
        }
        Ok(Plan { root, selectors: planner.selectors, timeline, instant })
    }
}

fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

fn check_time(time_ms: i64) -> Result<(), QueryError> {
    if (-TIME_MS_MAX..=TIME_MS_MAX).contains(&time_ms) {
        return Ok(());
    }
    Err(QueryError::bad("a time of the query is out of range"))
}

fn strip(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(paren) => strip(&paren.expr),
        other => other,
    }
}

fn millis(duration: Duration) -> Result<i64, QueryError> {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    check_time(millis).map(|()| millis)
}

struct Planner {
    query: Timeline,
    selectors: Vec<Selector>,
}

impl Planner {
    fn node(&mut self, expr: &Expr, when: Timeline) -> Result<Node, QueryError> {
        Ok(match expr {
            Expr::Paren(paren) => self.node(&paren.expr, when)?,
            Expr::NumberLiteral(number) => Node::Number(number.val),
            Expr::StringLiteral(string) => Node::String(string.val.clone()),
            Expr::VectorSelector(selector) => {
                let (selector, shift) = self.select(selector, LOOKBACK_MS, when)?;
                Node::Select { selector, shift }
            }
            Expr::Unary(unary) => Node::Negate(Box::new(self.node(&unary.expr, when)?)),
            Expr::Call(call) => self.call(call, when)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, when)?,
            Expr::Binary(binary) => self.binary(binary, when)?,
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                return Err(QueryError::bad("parse error: unexpected range vector"));
            }
            Expr::Extension(_) => return Err(QueryError::not_supported("an extension expression")),
        })
    }

    fn range(&mut self, expr: &Expr, when: Timeline) -> Result<Range, QueryError> {
        match strip(expr) {
            Expr::MatrixSelector(matrix) => {
                let range_ms = millis(matrix.range)?;
                let (selector, shift) = self.select(&matrix.vs, range_ms, when)?;
                Ok(Range::Select { selector, shift, range_ms })
            }
            Expr::Subquery(subquery) => self.subquery(subquery, when),
            _ => Err(QueryError::bad("parse error: expected type range vector")),
        }
    }

    fn subquery(&mut self, subquery: &SubqueryExpr, when: Timeline) -> Result<Range, QueryError> {
        let shift = self.shift(subquery.at.as_ref(), subquery.offset.as_ref())?;
        let range_ms = millis(subquery.range)?;
        let step_ms = subquery.step.map(millis).transpose()?.unwrap_or(SUBQUERY_STEP_MS);
        if step_ms == 0 {
            return Err(QueryError::bad("parse error: the step of a subquery is less than a millisecond"));
        }
        let inner = when.inner(shift, range_ms, step_ms);
        check_time(inner.start_ms)?;
        check_time(inner.end_ms)?;
        if inner.steps() > SUBQUERY_STEPS_MAX {
            return Err(QueryError::new(
                QueryErrorKind::Limit,
                format!("a subquery has more than {SUBQUERY_STEPS_MAX} steps"),
            ));
        }
        let expr = Box::new(self.node(&subquery.expr, inner)?);
        Ok(Range::Subquery { expr, shift, range_ms, step_ms })
    }

    fn shift(&self, at: Option<&AtModifier>, offset: Option<&Offset>) -> Result<Shift, QueryError> {
        let at_ms = match at {
            None => None,
            Some(AtModifier::Start) => Some(self.query.start_ms),
            Some(AtModifier::End) => Some(self.query.end_ms),
            Some(AtModifier::At(time)) => Some(match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => millis(after)?,
                Err(before) => -millis(before.duration())?,
            }),
        };
        let offset_ms = match offset {
            None => 0,
            Some(Offset::Pos(back)) => millis(*back)?,
            Some(Offset::Neg(forward)) => -millis(*forward)?,
        };
        Ok(Shift { at_ms, offset_ms })
    }

    /// Registers a selector that is looked through for `range_ms` before each step.
    fn select(
        &mut self,
        selector: &VectorSelector,
        range_ms: i64,
        when: Timeline,
    ) -> Result<(usize, Shift), QueryError> {
        let shift = self.shift(selector.at.as_ref(), selector.offset.as_ref())?;
        let matchers = parse::matchers(selector.name.as_deref(), &selector.matchers)?;
        let (first_ms, last_ms) = (shift.apply(when.start_ms), shift.apply(when.end_ms));
        check_time(first_ms)?;
        check_time(last_ms)?;
        let windows = Windows { first_ms, last_ms, step_ms: when.step_ms, range_ms };
        let selector = Selector { matchers, windows };
        let number = self.selectors.iter().position(|known| *known == selector).unwrap_or_else(|| {
            self.selectors.push(selector);
            self.selectors.len() - 1
        });
        Ok((number, shift))
    }

    fn call(&mut self, call: &Call, when: Timeline) -> Result<Node, QueryError> {
        let name = call.func.name;
        let args = &call.args.args;
        if let Some(function) = RangeFunction::of(name) {
            let range_at = usize::from(function == RangeFunction::Quantile);
            let range = self.range(&args[range_at], when)?;
            let rest = args.iter().enumerate().filter(|(index, _)| *index != range_at);
            let args = rest.map(|(_, arg)| self.node(arg, when)).collect::<Result<_, _>>()?;
            return Ok(Node::OverRange { function, range, args });
        }
        match name {
            "absent" | "absent_over_time" => return self.absent(name, &args[0], when),
            "timestamp" => {
                if let Expr::VectorSelector(selector) = strip(&args[0]) {
                    let (selector, shift) = self.select(selector, LOOKBACK_MS, when)?;
                    return Ok(Node::SelectTimestamp { selector, shift });
                }
            }
            _ => {}
        }
        if !super::evaluate::is_function(name) {
            return Err(QueryError::not_supported(format!("the function {name}()")));
        }
        let args = args.iter().map(|arg| self.node(arg, when)).collect::<Result<_, _>>()?;
        Ok(Node::Call { function: name, args })
    }

    fn absent(&mut self, name: &str, arg: &Expr, when: Timeline) -> Result<Node, QueryError> {
        let of = if name == "absent" {
            AbsentOf::Vector(self.node(arg, when)?)
        } else {
            AbsentOf::Range(self.range(arg, when)?)
        };
        let labels = match &of {
            AbsentOf::Vector(Node::Select { selector, .. })
            | AbsentOf::Range(Range::Select { selector, .. }) => {
                implied_labels(&self.selectors[*selector].matchers)
            }
            _ => Labels::default(),
        };
        Ok(Node::Absent { of: Box::new(of), labels })
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, when: Timeline) -> Result<Node, QueryError> {
        let name = aggregate.op.to_string();
        let op = match name.as_str() {
            "sum" => Aggregation::Sum,
            "avg" => Aggregation::Avg,
            "min" => Aggregation::Min,
            "max" => Aggregation::Max,
            "count" => Aggregation::Count,
            "group" => Aggregation::Group,
            "stddev" => Aggregation::Stddev,
            "stdvar" => Aggregation::Stdvar,
            "topk" => Aggregation::Topk,
            "bottomk" => Aggregation::Bottomk,
            "quantile" => Aggregation::Quantile,
            "count_values" => Aggregation::CountValues,
            other => return Err(QueryError::not_supported(format!("the aggregation {other}"))),
        };
        let grouping = match &aggregate.modifier {
            None => Grouping::By(Vec::new()),
            Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
            Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
        };
        let expr = Box::new(self.node(&aggregate.expr, when)?);
        let param = aggregate.param.as_ref().map(|param| self.node(param, when)).transpose()?.map(Box::new);
        Ok(Node::Aggregate { op, expr, param, grouping })
    }

    fn binary(&mut self, binary: &BinaryExpr, when: Timeline) -> Result<Node, QueryError> {
        let text = binary.op.to_string();
        let op =
            Operator::of(&text).ok_or_else(|| QueryError::not_supported(format!("the operator {text}")))?;
        let mut matching = Matching {
            on: false,
            labels: Vec::new(),
            side: Side::Neither,
            include: Vec::new(),
            return_bool: false,
        };
        if let Some(modifier) = &binary.modifier {
            if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
                return Err(QueryError::not_supported("the fill modifier"));
            }
            matching.return_bool = modifier.return_bool;
            if let Some(labels) = &modifier.matching {
                matching.on = labels.is_include();
                matching.labels = labels.labels().labels.clone();
            }
            matching.side = match modifier.card {
                VectorMatchCardinality::ManyToOne(_) => Side::Left,
                VectorMatchCardinality::OneToMany(_) => Side::Right,
                _ => Side::Neither,
            };
            matching.include = modifier.card.labels().map(|l| l.labels.clone()).unwrap_or_default();
        }
        let lhs = Box::new(self.node(&binary.lhs, when)?);
        let rhs = Box::new(self.node(&binary.rhs, when)?);
        Ok(Node::Binary { op, lhs, rhs, matching })
    }
}
