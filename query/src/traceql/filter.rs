//! Which spans a query selects: its tree with regular expressions compiled, over the rows of one trace.

use std::cmp::Ordering;

use oteld_store::model::{AnyValue, Attributes, SpanRow};
use regex::{Regex, RegexBuilder};

use super::ast::{AttributeScope, Expr, Field, Op, Spanset, Value};
use super::trace::{TraceFacts, duration_nanos};
use crate::QueryError;
use crate::text::value_text;

/// Bytes that a compiled regular expression may take.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// A regular expression that has to match a whole value, as TraceQL's do.
pub(super) fn anchored_regex(pattern: &str) -> Result<Regex, QueryError> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|error| QueryError::bad(format!("invalid regular expression {pattern:?}: {error}")))
}

/// A query, ready to be asked.
#[derive(Debug)]
pub(super) struct Filter {
    root: Set,
}

#[derive(Debug)]
enum Set {
    Filter(Condition),
    And(Vec<Set>),
    Or(Vec<Set>),
}

#[derive(Debug)]
enum Condition {
    Const(bool),
    Compare { field: Field, op: Op, value: Value },
    Regex { field: Field, regex: Regex, negated: bool },
    Exists(Field),
    Text { key: String, value: String },
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

impl Filter {
    /// Fails on an invalid regular expression.
    pub(super) fn new(query: &Spanset) -> Result<Self, QueryError> {
        Ok(Filter { root: Set::new(query)? })
    }

    /// The spans, by index and in order, that a whole trace gives; none when it is not found.
    pub(super) fn select(&self, spans: &[SpanRow], facts: &TraceFacts<'_>) -> Vec<usize> {
        self.root.select(spans, facts)
    }

    /// Whether the whole trace could be found for one of `spans`, which may be a part of it.
    pub(super) fn may_select(&self, spans: &[SpanRow]) -> bool {
        self.root.may_select(spans)
    }
}

impl Set {
    fn new(query: &Spanset) -> Result<Self, QueryError> {
        let all = |parts: &[Spanset]| parts.iter().map(Set::new).collect::<Result<Vec<_>, _>>();
        Ok(match query {
            Spanset::Filter(expr) => Set::Filter(Condition::new(expr)?),
            Spanset::And(parts) => Set::And(all(parts)?),
            Spanset::Or(parts) => Set::Or(all(parts)?),
        })
    }

    fn select(&self, spans: &[SpanRow], facts: &TraceFacts<'_>) -> Vec<usize> {
        let mut selected = match self {
            Set::Filter(condition) => {
                let holds = |index: &usize| condition.holds(&spans[*index], Some(facts)) == Some(true);
                return (0..spans.len()).filter(holds).collect();
            }
            Set::And(parts) => {
                let mut selected = Vec::new();
                for part in parts {
                    let of_part = part.select(spans, facts);
                    if of_part.is_empty() {
                        return Vec::new();
                    }
                    selected.extend(of_part);
                }
                selected
            }
            Set::Or(parts) => parts.iter().flat_map(|part| part.select(spans, facts)).collect(),
        };
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    fn may_select(&self, spans: &[SpanRow]) -> bool {
        match self {
            Set::Filter(condition) => spans.iter().any(|row| condition.holds(row, None) != Some(false)),
            Set::And(parts) | Set::Or(parts) => parts.iter().any(|part| part.may_select(spans)),
        }
    }
}

impl Condition {
    fn new(expr: &Expr) -> Result<Self, QueryError> {
        let all = |parts: &[Expr]| parts.iter().map(Condition::new).collect::<Result<Vec<_>, _>>();
        Ok(match expr {
            Expr::Const(value) => Condition::Const(*value),
            Expr::Compare { field, op: op @ (Op::Regex | Op::NotRegex), value } => {
                let Value::Text(pattern) = value else {
                    return Err(QueryError::bad("a regular expression has to be a string"));
                };
                let regex = anchored_regex(pattern)?;
                Condition::Regex { field: field.clone(), regex, negated: *op == Op::NotRegex }
            }
            Expr::Compare { field, op, value } => {
                Condition::Compare { field: field.clone(), op: *op, value: value.clone() }
            }
            Expr::Exists(field) => Condition::Exists(field.clone()),
            Expr::Text { key, value } => Condition::Text { key: key.clone(), value: value.clone() },
            Expr::Not(inner) => Condition::Not(Box::new(Condition::new(inner)?)),
            Expr::And(parts) => Condition::And(all(parts)?),
            Expr::Or(parts) => Condition::Or(all(parts)?),
        })
    }

    /// `None` when it depends on the whole trace, and `facts` are not known.
    fn holds(&self, row: &SpanRow, facts: Option<&TraceFacts<'_>>) -> Option<bool> {
        let unknown = |field: &Field| facts.is_none() && field.is_of_trace();
        match self {
            Condition::Const(value) => Some(*value),
            Condition::Compare { field, .. } | Condition::Regex { field, .. } | Condition::Exists(field)
                if unknown(field) =>
            {
                None
            }
            Condition::Compare { field, op, value } => {
                let test = |item: Item<'_>| Some(ordered(*op, item.compare(value)?));
                Some(quantified(row, facts, field, *op == Op::Ne, &test))
            }
            Condition::Regex { field, regex, negated } => {
                let test = |item: Item<'_>| match item {
                    Item::Text(text) => Some(regex.is_match(text) != *negated),
                    _ => None,
                };
                Some(quantified(row, facts, field, *negated, &test))
            }
            Condition::Exists(field) => {
                let mut found = false;
                items(row, facts, field, &mut |_| found = true);
                Some(found)
            }
            Condition::Text { key, value } => Some(has_text(row, key, value)),
            Condition::Not(inner) => inner.holds(row, facts).map(|holds| !holds),
            Condition::And(parts) => kleene(parts, row, facts, false),
            Condition::Or(parts) => kleene(parts, row, facts, true),
        }
    }
}

/// `absorbing` as soon as one part is, unknown if any part is, else its opposite.
fn kleene(
    parts: &[Condition],
    row: &SpanRow,
    facts: Option<&TraceFacts<'_>>,
    absorbing: bool,
) -> Option<bool> {
    let mut result = Some(!absorbing);
    for part in parts {
        match part.holds(row, facts) {
            Some(value) if value == absorbing => return Some(absorbing),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

/// Whether the test holds for any item of a field, or for every one; never where no item has a fitting type.
fn quantified(
    row: &SpanRow,
    facts: Option<&TraceFacts<'_>>,
    field: &Field,
    for_every: bool,
    test: &dyn Fn(Item<'_>) -> Option<bool>,
) -> bool {
    let mut result = None;
    items(row, facts, field, &mut |item| {
        if let Some(holds) = test(item) {
            result = Some(match result {
                None => holds,
                Some(before) if for_every => before && holds,
                Some(before) => before || holds,
            });
        }
    });
    result == Some(true)
}

/// One value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(u64),
    Status(u8),
    Kind(u8),
}

impl Item<'_> {
    fn compare(self, value: &Value) -> Option<Ordering> {
        match (self, value) {
            (Item::Text(left), Value::Text(right)) => Some(left.cmp(right)),
            (Item::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Item::Status(left), Value::Status(right)) | (Item::Kind(left), Value::Kind(right)) => {
                Some(left.cmp(right))
            }
            (Item::Int(left), Value::Int(right) | Value::Duration(right)) => Some(left.cmp(right)),
            (Item::Duration(left), Value::Int(right) | Value::Duration(right)) => {
                Some(i128::from(left).cmp(&i128::from(*right)))
            }
            (item, value) => item.number()?.partial_cmp(&match value {
                Value::Int(value) | Value::Duration(value) => *value as f64,
                Value::Float(value) => *value,
                _ => return None,
            }),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Item::Int(value) => Some(value as f64),
            Item::Float(value) => Some(value),
            Item::Duration(value) => Some(value as f64),
            _ => None,
        }
    }
}

fn ordered(op: Op, ordering: Ordering) -> bool {
    match op {
        Op::Eq => ordering.is_eq(),
        Op::Ne => ordering.is_ne(),
        Op::Lt => ordering.is_lt(),
        Op::Le => ordering.is_le(),
        Op::Gt => ordering.is_gt(),
        Op::Ge => ordering.is_ge(),
        Op::Regex | Op::NotRegex => unreachable!("regular expressions are compiled conditions"),
    }
}

/// Calls `visit` with each value of `field`; an array attribute gives each of its elements. Fields of the trace
/// have no value where `facts` are not known.
pub(super) fn items(
    row: &SpanRow,
    facts: Option<&TraceFacts<'_>>,
    field: &Field,
    visit: &mut dyn FnMut(Item<'_>),
) {
    let span = &row.span;
    match field {
        Field::Name => visit(Item::Text(&span.name)),
        Field::Status => visit(Item::Status(span.status_code)),
        Field::StatusMessage => visit(Item::Text(&span.status_message)),
        Field::Kind => visit(Item::Kind(span.kind)),
        Field::Duration => visit(Item::Duration(duration_nanos(row))),
        Field::SpanId => visit(Item::Text(&hex(&span.span_id))),
        Field::ParentId if span.parent_span_id != [0; 8] => visit(Item::Text(&hex(&span.parent_span_id))),
        Field::ParentId => {}
        Field::TraceId => visit(Item::Text(&hex(&span.trace_id))),
        Field::TraceState => visit(Item::Text(&span.trace_state)),
        Field::IsRoot => visit(Item::Bool(span.parent_span_id == [0; 8])),
        Field::TraceDuration => {
            facts.into_iter().for_each(|facts| visit(Item::Duration(facts.duration_nanos())))
        }
        Field::RootName => {
            facts.and_then(TraceFacts::root_name).into_iter().for_each(|t| visit(Item::Text(t)))
        }
        Field::RootServiceName => {
            facts.and_then(TraceFacts::root_service_name).into_iter().for_each(|t| visit(Item::Text(t)))
        }
        Field::ScopeName => visit(Item::Text(&row.stream.scope.name)),
        Field::ScopeVersion => visit(Item::Text(&row.stream.scope.version)),
        Field::EventName => span.events.iter().for_each(|event| visit(Item::Text(&event.name))),
        Field::Attribute { scope, key } => {
            attributes(row, *scope, key, &mut |value| value_items(value, visit));
        }
    }
}

/// Calls `visit` with each attribute of the scope that has the key.
pub(super) fn attributes<'a>(
    row: &'a SpanRow,
    scope: AttributeScope,
    key: &str,
    visit: &mut dyn FnMut(&'a AnyValue),
) {
    let span = &row.span;
    match scope {
        AttributeScope::Any => {
            let value = span.attributes.get(key).or_else(|| row.stream.resource.attributes.get(key));
            value.into_iter().for_each(visit);
        }
        AttributeScope::Resource => row.stream.resource.attributes.get(key).into_iter().for_each(visit),
        AttributeScope::Span => span.attributes.get(key).into_iter().for_each(visit),
        AttributeScope::Event => span.events.iter().filter_map(|e| e.attributes.get(key)).for_each(visit),
        AttributeScope::Link => span.links.iter().filter_map(|l| l.attributes.get(key)).for_each(visit),
        AttributeScope::Instrumentation => row.stream.scope.attributes.get(key).into_iter().for_each(visit),
    }
}

fn value_items(value: &AnyValue, visit: &mut dyn FnMut(Item<'_>)) {
    match value {
        AnyValue::String(text) => visit(Item::Text(text)),
        AnyValue::Bool(value) => visit(Item::Bool(*value)),
        AnyValue::Int(value) => visit(Item::Int(*value)),
        AnyValue::Double(value) => visit(Item::Float(*value)),
        AnyValue::Array(values) => {
            values.iter().filter(|v| !matches!(v, AnyValue::Array(_))).for_each(|v| value_items(v, visit));
        }
        AnyValue::Empty | AnyValue::Bytes(_) | AnyValue::KeyValues(_) => {}
    }
}

fn has_text(row: &SpanRow, key: &str, wanted: &str) -> bool {
    let has =
        |attributes: &Attributes| attributes.iter().any(|(k, value)| k == key && value_text(value) == wanted);
    has(&row.span.attributes)
        || has(&row.stream.resource.attributes)
        || row.span.events.iter().any(|event| has(&event.attributes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
