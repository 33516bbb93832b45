//! What there is to search for: services, operations, attribute names and values.
//!
//! Services and resource attributes come from the streams of all rows in range. The others are read from spans,
//! newest first, up to a bound; a reply that met a bound says so.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use oteld_store::model::{AnyValue, Attributes, Signal, SpanRow};
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::ast::{AttributeScope, Field, Spanset, kind_name, status_name};
use super::filter::{Filter, Item, items};
use super::trace::{TraceFacts, service_name};
use crate::text::value_text;
use crate::{LeafContext, QueryError};

/// Spans that one leaf looks at for names.
pub const SPANS_INSPECTED_MAX: u64 = 1_000_000;

/// Names that one reply may hold.
pub const NAMES_MAX: usize = 10_000;

/// What names are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamesRequest {
    pub of: NamesOf,
    /// Starts of spans, in nanoseconds since the Unix epoch.
    pub time_unix_nano: Range<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NamesOf {
    Services,
    /// Span names and kinds of one service.
    Operations {
        service: String,
    },
    /// Attribute names in the given scopes (resource, span, event, link, instrumentation).
    Attributes {
        scopes: BTreeSet<AttributeScope>,
    },
    /// Values of a field in the spans that a query selects.
    Values {
        field: Field,
        query: Spanset,
    },
}

/// One name. Which variant a reply has follows from its request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Name {
    /// Empty for resources that name no service.
    Service(String),
    /// With OTLP's `SpanKind`.
    Operation {
        name: String,
        kind: u8,
    },
    Attribute {
        scope: AttributeScope,
        key: String,
    },
    Value {
        kind: ValueKind,
        text: String,
    },
}

/// What a value is, as Tempo tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ValueKind {
    String,
    Int,
    Float,
    Bool,
    Duration,
    /// A status or a span kind.
    Keyword,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamesReply {
    pub names: BTreeSet<Name>,
    /// The bound that was met, where there may be more names.
    pub incomplete: Option<String>,
}

/// Collects one leaf's names.
pub(super) fn leaf(context: &LeafContext<'_>, request: &NamesRequest) -> Result<NamesReply, QueryError> {
    let mut names = Names { reply: NamesReply::default(), spans: 0 };
    let time = &request.time_unix_nano;
    match &request.of {
        NamesOf::Services => names.of_streams(context, time, &mut |stream, add| {
            add(Name::Service(service_name(&stream.resource).to_owned()));
        })?,
        NamesOf::Operations { service } => names.of_traces(context, time, &mut |spans, add| {
            for row in spans.iter().filter(|row| service_name(&row.stream.resource) == service) {
                add(Name::Operation { name: row.span.name.to_string(), kind: row.span.kind });
            }
        })?,
        NamesOf::Attributes { scopes } => attributes(&mut names, context, time, scopes)?,
        NamesOf::Values { field, query } => {
            let of_resource = matches!(field, Field::Attribute { scope: AttributeScope::Resource, .. });
            if of_resource && *query == Spanset::all() {
                resource_values(&mut names, context, time, field)?;
            } else {
                let filter = Filter::new(query)?;
                names.of_traces(context, time, &mut |spans, add| values(spans, &filter, field, add))?;
            }
        }
    }
    Ok(names.reply)
}

/// All leaves' names, each once and in order; at most `limit`, of which the reply then says nothing: the asker knows.
pub fn merge(replies: Vec<NamesReply>, limit: usize) -> NamesReply {
    let mut merged = NamesReply::default();
    for reply in replies {
        merged.names.extend(reply.names);
        merged.incomplete = merged.incomplete.or(reply.incomplete);
    }
    merged.names = merged.names.into_iter().take(limit).collect();
    merged
}

struct Names {
    reply: NamesReply,
    spans: u64,
}

type Add<'a> = &'a mut dyn FnMut(Name);

impl Names {
    fn add(&mut self, name: Name) {
        if self.reply.names.len() < NAMES_MAX {
            self.reply.names.insert(name);
        } else if !self.reply.names.contains(&name) {
            self.reply.incomplete = Some(format!("there are more than {NAMES_MAX} different names"));
        }
    }

    fn of_streams(
        &mut self,
        context: &LeafContext<'_>,
        time: &Range<u64>,
        collect: &mut dyn FnMut(&oteld_store::model::Stream, Add<'_>),
    ) -> Result<(), QueryError> {
        let scope = super::scope_of(context, time);
        for stream in context.scan.streams(Signal::Traces, &scope, context.budget)? {
            collect(&stream, &mut |name| self.add(name));
        }
        Ok(())
    }

    fn of_traces(
        &mut self,
        context: &LeafContext<'_>,
        time: &Range<u64>,
        collect: &mut dyn FnMut(&[SpanRow], Add<'_>),
    ) -> Result<(), QueryError> {
        let scope = super::scope_of(context, time);
        let mut failure = None;
        context.scan.traces(&scope, context.budget, Order::NewestFirst, &mut |spans| {
            if let Err(error) = context.budget.spend(0, 0) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            if self.spans >= SPANS_INSPECTED_MAX {
                let text = format!("names are those of the newest {SPANS_INSPECTED_MAX} spans only");
                self.reply.incomplete.get_or_insert(text);
                return ControlFlow::Break(());
            }
            self.spans += spans.len() as u64;
            collect(spans, &mut |name| self.add(name));
            if self.reply.incomplete.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn attributes(
    names: &mut Names,
    context: &LeafContext<'_>,
    time: &Range<u64>,
    scopes: &BTreeSet<AttributeScope>,
) -> Result<(), QueryError> {
    let add_keys = |scope: AttributeScope, attributes: &Attributes, add: Add<'_>| {
        if scopes.contains(&scope) {
            attributes.iter().for_each(|(key, _)| add(Name::Attribute { scope, key: key.to_owned() }));
        }
    };
    names.of_streams(context, time, &mut |stream, add| {
        add_keys(AttributeScope::Resource, &stream.resource.attributes, add);
        add_keys(AttributeScope::Instrumentation, &stream.scope.attributes, add);
    })?;
    let of_spans = [AttributeScope::Span, AttributeScope::Event, AttributeScope::Link];
    if !of_spans.iter().any(|scope| scopes.contains(scope)) {
        return Ok(());
    }
    names.of_traces(context, time, &mut |spans, add| {
        for SpanRow { span, .. } in spans {
            add_keys(AttributeScope::Span, &span.attributes, add);
            span.events.iter().for_each(|event| add_keys(AttributeScope::Event, &event.attributes, add));
            span.links.iter().for_each(|link| add_keys(AttributeScope::Link, &link.attributes, add));
        }
    })
}

fn resource_values(
    names: &mut Names,
    context: &LeafContext<'_>,
    time: &Range<u64>,
    field: &Field,
) -> Result<(), QueryError> {
    let Field::Attribute { key, .. } = field else { return Ok(()) };
    names.of_streams(context, time, &mut |stream, add| {
        stream.resource.attributes.get(key).into_iter().for_each(|value| add(value_name(value)));
    })
}

fn value_name(value: &AnyValue) -> Name {
    let kind = match value {
        AnyValue::Bool(_) => ValueKind::Bool,
        AnyValue::Int(_) => ValueKind::Int,
        AnyValue::Double(_) => ValueKind::Float,
        _ => ValueKind::String,
    };
    Name::Value { kind, text: value_text(value).into_owned() }
}

fn values(spans: &[SpanRow], filter: &Filter, field: &Field, add: Add<'_>) {
    let facts = TraceFacts::of(spans);
    for index in filter.select(spans, &facts) {
        items(&spans[index], Some(&facts), field, &mut |item| {
            let (kind, text) = match item {
                Item::Text(text) => (ValueKind::String, text.to_owned()),
                Item::Bool(value) => (ValueKind::Bool, value.to_string()),
                Item::Int(value) => (ValueKind::Int, value.to_string()),
                Item::Float(value) => (ValueKind::Float, value.to_string()),
                Item::Duration(value) => (ValueKind::Duration, value.to_string()),
                Item::Status(code) => (ValueKind::Keyword, status_name(code).to_owned()),
                Item::Kind(kind) => (ValueKind::Keyword, kind_name(kind).to_owned()),
            };
            add(Name::Value { kind, text });
        });
    }
}
