//! Whole traces by their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use oteld_store::model::{Resource, Scope, Span, SpanRow, Stream, StreamId};
use serde::{Deserialize, Serialize};

use crate::{LeafContext, QueryError, QueryErrorKind};

/// Spans that one reply may hold.
pub const SPANS_MAX: usize = 200_000;

/// A request for the spans of some traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracesRequest {
    pub trace_ids: BTreeSet<[u8; 16]>,
    /// Starts of spans, in nanoseconds since the Unix epoch.
    pub time_unix_nano: Range<u64>,
}

/// The spans of one leaf. Streams are written once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TracesReply {
    streams: Vec<(StreamId, Arc<Resource>, Arc<Scope>)>,
    /// Spans, each with the index of its stream.
    spans: Vec<(u32, Span)>,
}

/// Reads the traces that this leaf holds.
pub(super) fn leaf(context: &LeafContext<'_>, request: &TracesRequest) -> Result<TracesReply, QueryError> {
    let scope = super::scope_of(context, &request.time_unix_nano);
    let mut reply = TracesReply::default();
    let mut stream_indexes = BTreeMap::new();
    context.budget.spend(0, 0)?;
    for rows in context.scan.traces_by_id(&scope, context.budget, &request.trace_ids)? {
        if reply.spans.len() + rows.len() > SPANS_MAX {
            return Err(too_many());
        }
        for SpanRow { stream, span } in rows {
            let index = *stream_indexes.entry(stream.id).or_insert_with(|| {
                reply.streams.push((stream.id, stream.resource.clone(), stream.scope.clone()));
                reply.streams.len() as u32 - 1
            });
            reply.spans.push((index, span));
        }
    }
    Ok(reply)
}

/// The traces of all leaves, each span once, by (start, span id).
pub fn merge(replies: Vec<TracesReply>) -> Result<BTreeMap<[u8; 16], Vec<SpanRow>>, QueryError> {
    let mut streams: BTreeMap<StreamId, Arc<Stream>> = BTreeMap::new();
    let mut spans: BTreeMap<_, SpanRow> = BTreeMap::new();
    for reply in replies {
        let known: Vec<Arc<Stream>> = reply
            .streams
            .into_iter()
            .map(|(id, resource, scope)| {
                streams.entry(id).or_insert_with(|| Arc::new(Stream { id, resource, scope })).clone()
            })
            .collect();
        for (index, span) in reply.spans {
            let Some(stream) = known.get(index as usize).cloned() else {
                return Err(QueryError::new(
                    QueryErrorKind::Internal,
                    "a leaf sent a span whose stream it did not send",
                ));
            };
            spans.insert((span.trace_id, span.start_time_unix_nano, span.span_id), SpanRow { stream, span });
        }
    }
    if spans.len() > SPANS_MAX {
        return Err(too_many());
    }
    let mut traces: BTreeMap<_, Vec<SpanRow>> = BTreeMap::new();
    for ((trace_id, ..), row) in spans {
        traces.entry(trace_id).or_default().push(row);
    }
    Ok(traces)
}

fn too_many() -> QueryError {
    QueryError::new(
        QueryErrorKind::Limit,
        format!("the traces have more spans than the limit of {SPANS_MAX} spans a reply"),
    )
}
