//! Which service calls which: pairs of parent and child spans.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use oteld_store::model::SpanRow;
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::trace::service_name;
use crate::{LeafContext, QueryError, QueryErrorKind};

/// Pairs of services that one reply may hold.
pub const LINKS_MAX: usize = 10_000;

/// A request for the calls between services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DependenciesRequest {
    /// Starts of spans, in nanoseconds since the Unix epoch. Parent and child both start here.
    pub time_unix_nano: Range<u64>,
}

/// Calls by (parent, child) service, empty where a resource names none. Calls within a service do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DependenciesReply {
    pub calls: BTreeMap<(String, String), u64>,
}

/// Counts the calls in one leaf's traces.
pub(super) fn leaf(
    context: &LeafContext<'_>,
    request: &DependenciesRequest,
) -> Result<DependenciesReply, QueryError> {
    let scope = super::scope_of(context, &request.time_unix_nano);
    let mut reply = DependenciesReply::default();
    let mut failure = None;
    context.scan.traces(&scope, context.budget, Order::NewestFirst, &mut |spans| {
        let result = context.budget.spend(0, 0).map_err(QueryError::from);
        match result.and_then(|()| add_calls(&mut reply, spans)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failure.map_or(Ok(reply), Err)
}

fn add_calls(reply: &mut DependenciesReply, spans: &[SpanRow]) -> Result<(), QueryError> {
    let services: BTreeMap<[u8; 8], &str> =
        spans.iter().map(|row| (row.span.span_id, service_name(&row.stream.resource))).collect();
    for row in spans {
        let child = service_name(&row.stream.resource);
        let Some(parent) = services.get(&row.span.parent_span_id).filter(|parent| **parent != child) else {
            continue;
        };
        *reply.calls.entry(((*parent).to_owned(), child.to_owned())).or_default() += 1;
    }
    bounded(reply)
}

fn bounded(reply: &DependenciesReply) -> Result<(), QueryError> {
    if reply.calls.len() <= LINKS_MAX {
        return Ok(());
    }
    Err(QueryError::new(
        QueryErrorKind::Limit,
        format!("there are more calls between services than the limit of {LINKS_MAX} pairs"),
    ))
}

/// The calls of all leaves.
pub fn merge(replies: Vec<DependenciesReply>) -> Result<DependenciesReply, QueryError> {
    let mut merged = DependenciesReply::default();
    for reply in replies {
        for (pair, count) in reply.calls {
            *merged.calls.entry(pair).or_default() += count;
        }
    }
    bounded(&merged)?;
    Ok(merged)
}
