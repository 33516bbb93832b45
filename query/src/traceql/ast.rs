//! TraceQL as a tree: spansets that combine span filters. Plain data, so that leaves get it as it is.

use serde::{Deserialize, Serialize};

/// Which spans of a trace a query selects. A trace is found when the spanset is not empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Spanset {
    /// Spans for which the expression holds: `{ … }`.
    Filter(Expr),
    /// All spans of all parts, when no part is empty: `{ … } && { … }`.
    And(Vec<Spanset>),
    /// All spans of all parts: `{ … } || { … }`.
    Or(Vec<Spanset>),
}

impl Spanset {
    /// Every span: `{ }`.
    pub fn all() -> Self {
        Spanset::Filter(Expr::Const(true))
    }

    /// The expressions of all filters, left to right.
    pub fn filters(&self) -> Vec<&Expr> {
        match self {
            Spanset::Filter(expr) => vec![expr],
            Spanset::And(parts) | Spanset::Or(parts) => parts.iter().flat_map(Spanset::filters).collect(),
        }
    }
}

/// A condition on one span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    Const(bool),
    /// False where the span lacks the field, or has it with another type, whatever the operator.
    Compare {
        field: Field,
        op: Op,
        value: Value,
    },
    /// `field != nil`
    Exists(Field),
    /// Whether any attribute `key` of the span, its resource or its events reads as `value`; what tag searches
    /// of Jaeger and Tempo ask. Not TraceQL.
    Text {
        key: String,
        value: String,
    },
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

impl Expr {
    /// Whether the text of `field` has `part` in it.
    pub fn contains(field: Field, part: &str) -> Self {
        let pattern = format!("(?s:.*{}.*)", regex::escape(part));
        Expr::Compare { field, op: Op::Regex, value: Value::Text(pattern) }
    }

    /// Calls `visit` for each field that the expression looks at.
    pub fn fields<'a>(&'a self, visit: &mut dyn FnMut(&'a Field)) {
        match self {
            Expr::Const(_) | Expr::Text { .. } => {}
            Expr::Compare { field, .. } | Expr::Exists(field) => visit(field),
            Expr::Not(expr) => expr.fields(visit),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| part.fields(visit)),
        }
    }
}

/// What an expression looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Field {
    Name,
    Status,
    StatusMessage,
    Kind,
    Duration,
    SpanId,
    ParentId,
    TraceId,
    TraceState,
    /// Whether the span has no parent; TraceQL says `nestedSetParent < 0`.
    IsRoot,
    TraceDuration,
    RootName,
    RootServiceName,
    ScopeName,
    ScopeVersion,
    EventName,
    Attribute {
        scope: AttributeScope,
        key: String,
    },
}

impl Field {
    /// Whether its value depends on all spans of the trace.
    pub fn is_of_trace(&self) -> bool {
        matches!(self, Field::TraceDuration | Field::RootName | Field::RootServiceName)
    }
}

/// Where an attribute is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttributeScope {
    /// `.key`: the span's, else the resource's.
    Any,
    Resource,
    Span,
    /// Any event of the span.
    Event,
    /// Any link of the span.
    Link,
    Instrumentation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Eq,
    Ne,
    /// Anchored on both ends.
    Regex,
    NotRegex,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    /// The operator of the same comparison with its sides exchanged. `None` for regular expressions.
    pub fn flipped(self) -> Option<Op> {
        match self {
            Op::Eq | Op::Ne => Some(self),
            Op::Lt => Some(Op::Gt),
            Op::Le => Some(Op::Ge),
            Op::Gt => Some(Op::Lt),
            Op::Ge => Some(Op::Le),
            Op::Regex | Op::NotRegex => None,
        }
    }
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    Bool(bool),
    /// OTLP's `StatusCode`.
    Status(u8),
    /// OTLP's `SpanKind`.
    Kind(u8),
}

/// The names of status codes, by number.
pub const STATUS_NAMES: [&str; 3] = ["unset", "ok", "error"];

/// The names of span kinds, by number.
pub const KIND_NAMES: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// The name of a span kind; that of `unspecified` for a number that OTLP does not define.
pub fn kind_name(kind: u8) -> &'static str {
    KIND_NAMES.get(usize::from(kind)).copied().unwrap_or(KIND_NAMES[0])
}

/// The name of a status code; that of `unset` for a number that OTLP does not define.
pub fn status_name(code: u8) -> &'static str {
    STATUS_NAMES.get(usize::from(code)).copied().unwrap_or(STATUS_NAMES[0])
}
