//! Traces that a query finds, as bounded summaries, newest first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use oteld_store::model::{AnyValue, SpanRow};
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::ast::{Field, Spanset, kind_name, status_name};
use super::filter::{Filter, attributes};
use super::trace::{TraceFacts, duration_nanos, looks_whole};
use crate::{LeafContext, QueryError, QueryErrorKind};

/// Most spans of a trace that a summary shows, whatever the request says.
pub const SPANS_PER_TRACE_MAX: usize = 100;

/// Traces that are read again as a whole in one go. More make a search that is cut short by its limit read more than it
/// needs.
const READ_WHOLE_AT_ONCE: usize = 512;

/// A search for traces that have a span in the time range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRequest {
    pub query: Spanset,
    /// Starts of spans, in nanoseconds since the Unix epoch. A trace is found by what starts here, and judged and
    /// shown as a whole.
    pub time_unix_nano: Range<u64>,
    /// Shortest and longest duration of the whole trace, both included.
    pub trace_duration_nanos: (u64, u64),
    /// How many traces are wanted: those whose latest span in range is newest.
    pub limit: usize,
    /// How many of the selected spans each summary shows.
    pub spans_per_trace: usize,
}

/// What one leaf found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchReply {
    pub traces: Vec<TraceSummary>,
    pub inspected_traces: u64,
    pub inspected_spans: u64,
}

/// A trace that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    pub trace_id: [u8; 16],
    /// `None` where no span without a parent is stored; the service is empty where the root does not name one.
    pub root: Option<RootSpan>,
    pub start_unix_nano: u64,
    pub duration_nanos: u64,
    /// Start of the latest span in the searched range: what "newest first" goes by.
    pub latest_unix_nano: u64,
    /// How many spans the query selected.
    pub matched: u64,
    /// The earliest of them.
    pub spans: Vec<SpanSummary>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootSpan {
    pub service_name: String,
    pub name: String,
}

/// A span that the query selected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanSummary {
    pub span_id: [u8; 8],
    pub name: String,
    pub start_unix_nano: u64,
    pub duration_nanos: u64,
    /// What the query asked about: attributes by key, intrinsics by name.
    pub attributes: Vec<(String, AnyValue)>,
}

/// Searches one leaf. Reads a trace again as a whole where only a part of it may be in the time range.
pub(super) fn leaf(context: &LeafContext<'_>, request: &SearchRequest) -> Result<SearchReply, QueryError> {
    if request.limit > context.limits.entries_max {
        return Err(QueryError::new(
            QueryErrorKind::Limit,
            format!("limit is {}, more than entries_max of {}", request.limit, context.limits.entries_max),
        ));
    }
    let mut search = Search {
        context,
        request,
        filter: Filter::new(&request.query)?,
        shown: shown_fields(&request.query),
        in_part: Vec::new(),
        oldest_unix_nano: u64::MAX,
        reply: SearchReply::default(),
    };
    if request.limit == 0 {
        return Ok(search.reply);
    }
    let mut failure = None;
    let scope = super::scope_of(context, &request.time_unix_nano);
    context.scan.traces(&scope, context.budget, Order::NewestFirst, &mut |spans| {
        search.visit(spans).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    })?;
    match failure {
        Some(error) => Err(error),
        None => {
            search.read_whole()?;
            newest(&mut search.reply.traces, request.limit);
            Ok(search.reply)
        }
    }
}

/// The traces of all leaves together: the newest, at most `limit`.
pub fn merge(replies: Vec<SearchReply>, limit: usize) -> SearchReply {
    let mut merged = SearchReply::default();
    for reply in replies {
        merged.inspected_traces += reply.inspected_traces;
        merged.inspected_spans += reply.inspected_spans;
        merged.traces.extend(reply.traces);
    }
    newest(&mut merged.traces, limit);
    merged
}

fn newest(traces: &mut Vec<TraceSummary>, limit: usize) {
    traces.sort_by_key(|trace| (Reverse(trace.latest_unix_nano), trace.trace_id));
    traces.dedup_by_key(|trace| trace.trace_id);
    traces.truncate(limit);
}

struct Search<'a> {
    context: &'a LeafContext<'a>,
    request: &'a SearchRequest,
    filter: Filter,
    shown: BTreeSet<&'a Field>,
    /// Traces of which only a part may be in the time range, with the start of their latest span there.
    in_part: Vec<([u8; 16], u64)>,
    /// Start of the latest span in range of the oldest trace that was found.
    oldest_unix_nano: u64,
    reply: SearchReply,
}

impl Search<'_> {
    fn visit(&mut self, spans: &[SpanRow]) -> Result<ControlFlow<()>, QueryError> {
        self.context.budget.spend(0, 0)?;
        let Some(latest) = spans.last().map(|row| row.span.start_time_unix_nano) else {
            return Ok(ControlFlow::Continue(()));
        };
        let full = self.reply.traces.len() >= self.request.limit;
        // Traces of one start come in no promised order: all of them are looked at, so that the choice is not luck.
        if full && latest < self.oldest_unix_nano {
            return Ok(ControlFlow::Break(()));
        }
        self.reply.inspected_traces += 1;
        self.reply.inspected_spans += spans.len() as u64;
        if looks_whole(spans, &self.request.time_unix_nano) {
            let found = self.summary(spans, latest);
            self.add(found);
        } else if self.filter.may_select(spans) {
            self.in_part.push((spans[0].span.trace_id, latest));
            if self.in_part.len() >= READ_WHOLE_AT_ONCE {
                self.read_whole()?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads again what was seen in part, all of it at once: each look into memory and pages costs the same for one
    /// trace as for many.
    fn read_whole(&mut self) -> Result<(), QueryError> {
        let latest: BTreeMap<[u8; 16], u64> = self.in_part.drain(..).collect();
        if latest.is_empty() {
            return Ok(());
        }
        let scope = super::scope_of(self.context, &(0..u64::MAX));
        let ids = latest.keys().copied().collect();
        let traces = self.context.scan.traces_by_id(&scope, self.context.budget, &ids)?;
        for spans in traces {
            let found = self.summary(&spans, latest[&spans[0].span.trace_id]);
            self.add(found);
        }
        Ok(())
    }

    fn add(&mut self, found: Option<TraceSummary>) {
        let latest = found.iter().map(|trace| trace.latest_unix_nano);
        self.oldest_unix_nano = latest.fold(self.oldest_unix_nano, u64::min);
        self.reply.traces.extend(found);
    }

    fn summary(&self, spans: &[SpanRow], latest_unix_nano: u64) -> Option<TraceSummary> {
        let facts = TraceFacts::of(spans);
        let (shortest, longest) = self.request.trace_duration_nanos;
        if !(shortest..=longest).contains(&facts.duration_nanos()) {
            return None;
        }
        let selected = self.filter.select(spans, &facts);
        let first = &spans[*selected.first()?];
        let shown = self.request.spans_per_trace.min(SPANS_PER_TRACE_MAX);
        Some(TraceSummary {
            trace_id: first.span.trace_id,
            root: facts.root.map(|row| RootSpan {
                service_name: super::trace::service_name(&row.stream.resource).to_owned(),
                name: row.span.name.to_string(),
            }),
            start_unix_nano: facts.start_unix_nano,
            duration_nanos: facts.duration_nanos(),
            latest_unix_nano,
            matched: selected.len() as u64,
            spans: selected.iter().take(shown).map(|index| self.span_summary(&spans[*index])).collect(),
        })
    }

    fn span_summary(&self, row: &SpanRow) -> SpanSummary {
        let mut shown: Vec<(String, AnyValue)> = Vec::new();
        for field in &self.shown {
            let mut text = |name: &str, value: &str| shown.push((name.to_owned(), AnyValue::from(value)));
            match field {
                Field::Status => text("status", status_name(row.span.status_code)),
                Field::StatusMessage => text("statusMessage", &row.span.status_message),
                Field::Kind => text("kind", kind_name(row.span.kind)),
                Field::ScopeName => text("instrumentation:name", &row.stream.scope.name),
                Field::ScopeVersion => text("instrumentation:version", &row.stream.scope.version),
                Field::Attribute { scope, key } => {
                    let mut first = None;
                    attributes(row, *scope, key, &mut |value| first = first.or(Some(value)));
                    let known = shown.iter().any(|(name, _)| name == key);
                    shown.extend(first.filter(|_| !known).map(|value| (key.clone(), value.clone())));
                }
                _ => {}
            }
        }
        SpanSummary {
            span_id: row.span.span_id,
            name: row.span.name.to_string(),
            start_unix_nano: row.span.start_time_unix_nano,
            duration_nanos: duration_nanos(row),
            attributes: shown,
        }
    }
}

fn shown_fields(query: &Spanset) -> BTreeSet<&Field> {
    let mut fields = BTreeSet::new();
    for expr in query.filters() {
        expr.fields(&mut |field| {
            fields.insert(field);
        });
    }
    fields
}
