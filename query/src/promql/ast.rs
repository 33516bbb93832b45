//! The checked expression: only what can be evaluated, names resolved, selectors numbered.

use super::labels::{Labels, Matcher};

/// What an expression gives at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Vector,
    String,
}

/// Where a selector looks, relative to the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    /// The `@` modifier, in milliseconds; it replaces the step's time.
    pub(crate) at_ms: Option<i64>,
    /// Milliseconds back in time; negative is forward.
    pub(crate) offset_ms: i64,
}

impl Shift {
    /// The time that is looked at from a step.
    pub(crate) fn apply(self, step_ms: i64) -> i64 {
        self.at_ms.unwrap_or(step_ms).saturating_sub(self.offset_ms)
    }
}

#[derive(Debug)]
pub(crate) enum Node {
    Number(f64),
    String(String),
    /// An instant selector, by its number in the plan.
    Select {
        selector: usize,
        shift: Shift,
    },
    /// `timestamp()` of an instant selector: the times of the samples themselves.
    SelectTimestamp {
        selector: usize,
        shift: Shift,
    },
    /// A function of a range vector. `args` are the scalar arguments in order.
    OverRange {
        function: RangeFunction,
        range: Range,
        args: Vec<Node>,
    },
    /// A function of vectors and scalars, of known name.
    Call {
        function: &'static str,
        args: Vec<Node>,
    },
    /// `absent` and `absent_over_time`, with the labels that the selector implies.
    Absent {
        of: Box<AbsentOf>,
        labels: Labels,
    },
    Negate(Box<Node>),
    Aggregate {
        op: Aggregation,
        expr: Box<Node>,
        param: Option<Box<Node>>,
        grouping: Grouping,
    },
    Binary {
        op: Operator,
        lhs: Box<Node>,
        rhs: Box<Node>,
        matching: Matching,
    },
}

#[derive(Debug)]
pub(crate) enum AbsentOf {
    Vector(Node),
    Range(Range),
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Node::Number(_) => Kind::Scalar,
            Node::String(_) => Kind::String,
            Node::Call { function: "scalar" | "time" | "pi", .. } => Kind::Scalar,
            Node::Negate(inner) => inner.kind(),
            Node::Binary { lhs, rhs, .. } if lhs.kind() == Kind::Scalar && rhs.kind() == Kind::Scalar => {
                Kind::Scalar
            }
            _ => Kind::Vector,
        }
    }
}

/// A range vector.
#[derive(Debug)]
pub(crate) enum Range {
    Select { selector: usize, shift: Shift, range_ms: i64 },
    Subquery { expr: Box<Node>, shift: Shift, range_ms: i64, step_ms: i64 },
}

impl Range {
    pub(crate) fn shift(&self) -> Shift {
        match self {
            Range::Select { shift, .. } | Range::Subquery { shift, .. } => *shift,
        }
    }

    pub(crate) fn range_ms(&self) -> i64 {
        match self {
            Range::Select { range_ms, .. } | Range::Subquery { range_ms, .. } => *range_ms,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Quantile,
    Stddev,
    Stdvar,
    Last,
    Present,
    Changes,
    Resets,
    Deriv,
    PredictLinear,
}

impl RangeFunction {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => RangeFunction::Rate,
            "increase" => RangeFunction::Increase,
            "delta" => RangeFunction::Delta,
            "irate" => RangeFunction::Irate,
            "idelta" => RangeFunction::Idelta,
            "avg_over_time" => RangeFunction::Avg,
            "min_over_time" => RangeFunction::Min,
            "max_over_time" => RangeFunction::Max,
            "sum_over_time" => RangeFunction::Sum,
            "count_over_time" => RangeFunction::Count,
            "quantile_over_time" => RangeFunction::Quantile,
            "stddev_over_time" => RangeFunction::Stddev,
            "stdvar_over_time" => RangeFunction::Stdvar,
            "last_over_time" => RangeFunction::Last,
            "present_over_time" => RangeFunction::Present,
            "changes" => RangeFunction::Changes,
            "resets" => RangeFunction::Resets,
            "deriv" => RangeFunction::Deriv,
            "predict_linear" => RangeFunction::PredictLinear,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
}

/// Which labels make a group.
#[derive(Clone, Debug)]
pub(crate) enum Grouping {
    By(Vec<String>),
    /// The metric's name is dropped too.
    Without(Vec<String>),
}

impl Grouping {
    pub(crate) fn key(&self, labels: &Labels) -> Labels {
        match self {
            Grouping::By(names) => labels.only(names),
            Grouping::Without(names) => labels.without_name().without(names),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    pub(crate) fn of(text: &str) -> Option<Self> {
        Some(match text {
            "+" => Operator::Add,
            "-" => Operator::Sub,
            "*" => Operator::Mul,
            "/" => Operator::Div,
            "%" => Operator::Mod,
            "^" => Operator::Pow,
            "atan2" => Operator::Atan2,
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            "<=" => Operator::LessOrEqual,
            ">=" => Operator::GreaterOrEqual,
            "and" => Operator::And,
            "or" => Operator::Or,
            "unless" => Operator::Unless,
            _ => return None,
        })
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }

    pub(crate) fn is_comparison(self) -> bool {
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Less | Greater | LessOrEqual | GreaterOrEqual)
    }
}

/// How series of two vectors find each other.
#[derive(Clone, Debug)]
pub(crate) struct Matching {
    /// `on` when true, else `ignoring`.
    pub(crate) on: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) side: Side,
    /// Labels that `group_left` or `group_right` copies from the side with one series.
    pub(crate) include: Vec<String>,
    pub(crate) return_bool: bool,
}

impl Matching {
    /// What must be equal for two series to match.
    pub(crate) fn key(&self, labels: &Labels) -> Labels {
        if self.on { labels.only(&self.labels) } else { labels.without_name().without(&self.labels) }
    }
}

/// Which side may have many series a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Neither,
    /// `group_left`.
    Left,
    /// `group_right`.
    Right,
}

/// Labels that an absent selector's series would surely have: those that equality matchers name, once each.
pub(crate) fn implied_labels(matchers: &[Matcher]) -> Labels {
    use super::labels::{METRIC_NAME, MatchOp};
    let once = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    matchers
        .iter()
        .filter(|matcher| matcher.op == MatchOp::Equal && matcher.name != METRIC_NAME && once(&matcher.name))
        .map(|matcher| (matcher.name.as_str(), matcher.value.as_str()))
        .collect()
}
