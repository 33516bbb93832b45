//! What a LogQL text means, before anything is known about time or data.

use serde::{Deserialize, Serialize};

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Logs(LogQuery),
    Metric(MetricExpr),
}

/// A stream selector and the stages behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogQuery {
    pub selector: Vec<Matcher>,
    pub stages: Vec<Stage>,
}

/// One label rule, of a selector or of a label filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    Equal,
    NotEqual,
    /// Anchored at both ends.
    Regex,
    NotRegex,
}

/// One step of a log pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    Line(LineFilter),
    /// `fields` are (label, path in the document); empty takes every field.
    Json {
        fields: Vec<(String, String)>,
    },
    /// `fields` are (label, key); empty takes every key.
    Logfmt {
        strict: bool,
        keep_empty: bool,
        fields: Vec<(String, String)>,
    },
    /// Takes the fields of a JSON line that Promtail's `pack` made, and its `_entry` as the line.
    Unpack,
    /// Takes ANSI colour codes out of the line.
    Decolorize,
    Pattern(String),
    Regexp(String),
    Filter(LabelFilter),
    LineFormat(Vec<TemplatePart>),
    LabelFormat(Vec<(String, LabelSource)>),
    Drop(Vec<LabelPick>),
    Keep(Vec<LabelPick>),
}

/// `|= "a" or "b"`: a positive filter takes a line that fits one of the values, a negative one a line that fits
/// none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineFilter {
    pub op: LineOp,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineOp {
    Contains,
    NotContains,
    /// Not anchored.
    Match,
    NotMatch,
    /// The whole line against text with `<_>` where anything may stand.
    Pattern,
    NotPattern,
}

/// A condition on labels. `And` and `Or` are flat lists, so that depth is bounded by parentheses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LabelFilter {
    Matches(Matcher),
    Compare { name: String, op: CompareOp, value: Quantity },
    And(Vec<LabelFilter>),
    Or(Vec<LabelFilter>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What a label value is compared with, and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Quantity {
    Number(f64),
    /// In seconds.
    Duration(f64),
    Bytes(f64),
}

/// A piece of a template: text as it is, or the value of a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TemplatePart {
    Text(String),
    Label(String),
    /// `{{ __line__ }}`
    Line,
}

/// Where `label_format` takes a value from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LabelSource {
    Rename(String),
    Template(Vec<TemplatePart>),
}

/// A label that `drop` or `keep` names, perhaps only with some values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelPick {
    pub name: String,
    pub matcher: Option<Matcher>,
}

/// An expression whose values are numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricExpr {
    Range(RangeAggregation),
    Aggregate {
        op: VectorOp,
        parameter: Option<f64>,
        grouping: Option<Grouping>,
        of: Box<MetricExpr>,
    },
    Binary {
        op: BinaryOp,
        returns_bool: bool,
        matching: Matching,
        sides: Box<(MetricExpr, MetricExpr)>,
    },
    LabelReplace {
        rule: LabelReplace,
        of: Box<MetricExpr>,
    },
    Scalar(f64),
    /// `vector(s)`: one sample without labels at every step.
    Vector(f64),
}

/// `op({selector} stages [range] offset o)`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeAggregation {
    pub op: RangeOp,
    /// Which quantile.
    pub parameter: Option<f64>,
    pub query: LogQuery,
    pub unwrap: Option<Unwrap>,
    pub range_nanos: u64,
    pub offset_nanos: i64,
    /// Labels that its series are reduced to.
    pub grouping: Option<Grouping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeOp {
    Count,
    Rate,
    Bytes,
    BytesRate,
    /// These and the following up to `Last` need `unwrap`.
    Sum,
    Avg,
    Min,
    Max,
    StdDev,
    StdVar,
    /// With its parameter.
    Quantile,
    First,
    Last,
    /// 1 where no row is.
    Absent,
}

impl RangeOp {
    /// Whether the samples are values of an unwrapped label.
    pub fn needs_unwrap(self) -> bool {
        matches!(self, RangeOp::Sum | RangeOp::Avg | RangeOp::Min | RangeOp::Max) || self.needs_values()
    }

    /// Whether it needs every sample of a window, so that leaves cannot reduce them.
    pub fn needs_values(self) -> bool {
        matches!(self, RangeOp::StdDev | RangeOp::StdVar | RangeOp::Quantile | RangeOp::First | RangeOp::Last)
    }

    /// Whether the value of two windows together is the sum of their values.
    pub fn adds(self) -> bool {
        matches!(self, RangeOp::Count | RangeOp::Rate | RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Sum)
    }
}

/// `| unwrap label`, with the label filters behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unwrap {
    pub label: String,
    pub conversion: Conversion,
    pub filters: Vec<LabelFilter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversion {
    None,
    /// To seconds.
    Duration,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VectorOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    TopK,
    BottomK,
    /// These two order an instant result and change nothing else.
    Sort,
    SortDesc,
}

/// `label_replace(of, target, replacement, source, regex)`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelReplace {
    pub target: String,
    pub replacement: String,
    pub source: String,
    /// Anchored at both ends.
    pub regex: String,
}

/// `by (labels)`, or `without (labels)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    pub without: bool,
    pub labels: Vec<String>,
}

/// Which labels make two series the same in a binary operation: all of them, `on (labels)` or `ignoring (labels)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    pub on: bool,
    pub labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Compare(CompareOp),
    And,
    Or,
    Unless,
}
