//! Log entries: select, filter, stop at the limit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use oteld_store::model::RequestId;
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::super::matcher::CompiledSelector;
use super::super::pipeline::Pipeline;
use super::super::plan::{Direction, EntriesRequest};
use super::super::view::Labels;
use super::{Views, scope, selects};
use crate::{LeafContext, QueryError, QueryErrorKind};

/// Bytes of lines and labels that one reply may hold: the front holds the replies of all leaves at once.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// Entries in the order that was asked, ties by (request, ordinal).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EntriesReply {
    /// Stream labels; entries name them by index.
    pub streams: Vec<Arc<Labels>>,
    pub entries: Vec<LeafEntry>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeafEntry {
    /// Index in [`EntriesReply::streams`].
    pub stream: u32,
    pub time_unix_nano: u64,
    /// With `ordinal` the row's key: the order among equal times.
    pub request: RequestId,
    pub ordinal: u32,
    pub line: String,
    /// Structured metadata.
    pub metadata: Labels,
    /// What the pipeline extracted.
    pub parsed: Labels,
}

pub(super) fn entries(
    context: &LeafContext<'_>,
    request: &EntriesRequest,
) -> Result<EntriesReply, QueryError> {
    let selector = CompiledSelector::new(&request.query.selector)?;
    let pipeline = Pipeline::new(&request.query.stages)?;
    let order = match request.direction {
        Direction::Forward => Order::OldestFirst,
        Direction::Backward => Order::NewestFirst,
    };
    let limit = request.limit.min(context.limits.entries_max);
    let mut reply = EntriesReply::default();
    let mut places: BTreeMap<Arc<Labels>, u32> = BTreeMap::new();
    let mut views = Views::default();
    let mut bytes = 0;
    context.scan.logs(
        &scope(context, request.time_unix_nano.clone()),
        context.budget,
        order,
        &mut |stream| selects(&selector, stream),
        &mut |row| {
            if reply.entries.len() >= limit {
                return ControlFlow::Break(());
            }
            let view = views.of(&row);
            let Some(passed) = pipeline.run(&row, &view, None) else { return ControlFlow::Continue(()) };
            let stream = *places.entry(passed.labels.stream.clone()).or_insert_with(|| {
                reply.streams.push(passed.labels.stream.clone());
                reply.streams.len() as u32 - 1
            });
            bytes += passed.bytes();
            if bytes > REPLY_BYTES_MAX {
                return ControlFlow::Break(());
            }
            reply.entries.push(LeafEntry {
                stream,
                time_unix_nano: row.record.effective_time_unix_nano(),
                request: row.request,
                ordinal: row.ordinal,
                line: passed.line.into_owned(),
                metadata: passed.labels.metadata,
                parsed: passed.labels.parsed,
            });
            match reply.entries.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        },
    )?;
    if bytes > REPLY_BYTES_MAX {
        return Err(QueryError::new(
            QueryErrorKind::Limit,
            format!("the query reached its limit of {REPLY_BYTES_MAX} bytes of lines; ask for fewer lines"),
        ));
    }
    Ok(reply)
}
