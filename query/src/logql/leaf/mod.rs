//! What one node says about its own rows.

mod entries;
mod samples;
mod streams;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use oteld_store::model::{LogRow, Stream, StreamId};
use oteld_store::scan::ScanScope;
use serde::{Deserialize, Serialize};

use super::matcher::CompiledSelector;
use super::plan::LeafRequest;
use super::view::{Labels, StreamView};
use crate::{LeafContext, Limits, QueryError, QueryErrorKind};

pub use entries::{EntriesReply, LeafEntry};
pub use samples::{Partial, SeriesPartials};
pub use streams::StreamVolume;

pub(super) use samples::too_many_samples;

/// What a leaf found; of the same variant as its request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LeafReply {
    Entries(EntriesReply),
    /// One list a range aggregation of the request, each in order of labels.
    Samples(Vec<Vec<SeriesPartials>>),
    /// In order, each once.
    Streams(Vec<Labels>),
    /// In order of labels.
    Volumes(Vec<StreamVolume>),
}

/// Answers one request over the rows of `context`.
pub fn leaf(context: &LeafContext<'_>, request: &LeafRequest) -> Result<LeafReply, QueryError> {
    Ok(match request {
        LeafRequest::Entries(request) => LeafReply::Entries(entries::entries(context, request)?),
        LeafRequest::Samples(request) => {
            let ranges = request.ranges.iter();
            let samples = ranges.map(|range| samples::samples(context, range, request.steps));
            LeafReply::Samples(samples.collect::<Result<_, _>>()?)
        }
        LeafRequest::Streams { selectors, time_unix_nano } => {
            LeafReply::Streams(streams::streams(context, selectors, time_unix_nano.clone())?)
        }
        LeafRequest::Volumes { selector, time_unix_nano } => {
            LeafReply::Volumes(streams::volumes(context, selector, time_unix_nano.clone())?)
        }
    })
}

fn scope(context: &LeafContext<'_>, time_unix_nano: Range<u64>) -> ScanScope {
    ScanScope { tenant: context.tenant.clone(), shards: context.shards.clone(), time_unix_nano }
}

/// The streams that a scan has met, each looked at once.
#[derive(Default)]
struct Views {
    views: BTreeMap<StreamId, Arc<StreamView>>,
    last: Option<(StreamId, Arc<StreamView>)>,
}

impl Views {
    /// The view of a row's stream. Rows of one stream tend to come together.
    fn of(&mut self, row: &LogRow) -> Arc<StreamView> {
        let id = row.stream.id;
        if let Some((last, view)) = &self.last
            && *last == id
        {
            return view.clone();
        }
        let view = self.views.entry(id).or_insert_with(|| Arc::new(StreamView::new(&row.stream))).clone();
        self.last = Some((id, view.clone()));
        view
    }
}

/// Whether a selector takes a stream.
fn selects(selector: &CompiledSelector, stream: &Stream) -> bool {
    selector.takes(&StreamView::new(stream).labels)
}

pub(super) fn too_many_series(limits: &Limits) -> QueryError {
    let message = format!("maximum number of series ({}) reached for a single query", limits.series_max);
    QueryError::new(QueryErrorKind::Limit, message)
}
