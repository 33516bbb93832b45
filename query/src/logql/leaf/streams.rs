//! Which streams there are, and how much is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use oteld_store::model::Signal;
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::super::ast::Matcher;
use super::super::matcher::CompiledSelector;
use super::super::view::{self, Labels, StreamView};
use super::{Views, scope, selects, too_many_series};
use crate::{LeafContext, QueryError};

/// What one stream holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamVolume {
    pub labels: Labels,
    pub entries: u64,
    /// Bytes of its lines.
    pub bytes: u64,
}

/// Label sets of the streams with rows in the range. Several of the store's streams can have the same labels.
pub(super) fn streams(
    context: &LeafContext<'_>,
    selectors: &[Vec<Matcher>],
    time_unix_nano: Range<u64>,
) -> Result<Vec<Labels>, QueryError> {
    let selectors: Vec<_> =
        selectors.iter().map(|selector| CompiledSelector::new(selector)).collect::<Result<_, _>>()?;
    let streams = context.scan.streams(Signal::Logs, &scope(context, time_unix_nano), context.budget)?;
    let mut found = BTreeSet::new();
    for stream in streams {
        let view = StreamView::new(&stream);
        if selectors.is_empty() || selectors.iter().any(|selector| selector.takes(&view.labels)) {
            found.insert(view.labels);
        }
        if found.len() > context.limits.series_max {
            return Err(too_many_series(context.limits));
        }
    }
    Ok(found.into_iter().map(|labels| (*labels).clone()).collect())
}

/// Entries and bytes of the streams that fit, counted row by row.
pub(super) fn volumes(
    context: &LeafContext<'_>,
    selector: &[Matcher],
    time_unix_nano: Range<u64>,
) -> Result<Vec<StreamVolume>, QueryError> {
    let selector = CompiledSelector::new(selector)?;
    let mut views = Views::default();
    let mut volumes = BTreeMap::new();
    let mut over_limit = false;
    context.scan.logs(
        &scope(context, time_unix_nano),
        context.budget,
        Order::OldestFirst,
        &mut |stream| selects(&selector, stream),
        &mut |row| {
            let bytes = view::line(&row.record.body).len() as u64;
            let volume = volumes.entry(views.of(&row).labels.clone()).or_insert((0_u64, 0_u64));
            *volume = (volume.0 + 1, volume.1 + bytes);
            over_limit = volumes.len() > context.limits.series_max;
            if over_limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    if over_limit {
        return Err(too_many_series(context.limits));
    }
    let volumes = volumes.into_iter();
    Ok(volumes
        .map(|(labels, (entries, bytes))| StreamVolume { labels: (*labels).clone(), entries, bytes })
        .collect())
}
