//! The union of sorted rows: each key once, with the greatest canonical value (PROTOCOL, failure 14).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::canonical::{RowRef, value_bytes};
use crate::engine::{Engine, segments_dir};
use crate::error::StoreError;
use crate::floors::{Floors, floor_of};
use crate::flush::write_error;
use crate::leave::Left;
use crate::manifest::SegmentMeta;
use crate::model::{RequestId, Rows, Shard, Tenant};
use crate::segment::{AppliedId, RowKey, SegmentRow, SegmentWriter};
use crate::segments::{self, OpenSegment};

fn row_ref(row: &SegmentRow) -> RowRef<'_> {
    match row {
        SegmentRow::Metric(row) => row.into(),
        SegmentRow::Log(row) => row.into(),
        SegmentRow::Span(row) => row.into(),
    }
}

fn keyed(rows: Rows) -> Vec<(RowKey, SegmentRow)> {
    let rows: Vec<SegmentRow> = match rows {
        Rows::Metrics(rows) => rows.into_iter().map(SegmentRow::Metric).collect(),
        Rows::Logs(rows) => rows.into_iter().map(SegmentRow::Log).collect(),
        Rows::Traces(rows) => rows.into_iter().map(SegmentRow::Span).collect(),
    };
    rows.into_iter().map(|row| (RowKey::of(row_ref(&row)), row)).collect()
}

/// Of two rows with one key, the one that stays.
fn greatest(one: SegmentRow, other: SegmentRow) -> SegmentRow {
    let (kept, new) = (value_bytes(row_ref(&one)), value_bytes(row_ref(&other)));
    if new > kept || new != kept && oteld_env::mutant("equal-keys-by-arrival") { other } else { one }
}

/// Rows of one shard and tenant in any order, to be put in order.
#[derive(Debug, Default)]
pub(crate) struct SortedRows(Vec<(RowKey, SegmentRow)>);

impl SortedRows {
    /// Adds those whose event time `take` wants.
    pub(crate) fn add(&mut self, rows: Rows, take: impl Fn(u64) -> bool) {
        self.0.extend(keyed(rows).into_iter().filter(|(key, _)| take(key.time_unix_nano)));
    }

    /// By key, each once.
    pub(crate) fn into_set(mut self) -> impl Iterator<Item = SegmentRow> {
        self.0.sort_by_key(|(key, _)| *key);
        let mut rows = self.0.into_iter().peekable();
        std::iter::from_fn(move || {
            let (key, mut row) = rows.next()?;
            while let Some((_, repeat)) = rows.next_if(|(next, _)| *next == key) {
                row = greatest(row, repeat);
            }
            Some(row)
        })
    }
}

/// Rows of one shard and tenant of one segment, a page in memory at a time.
struct Source<'a> {
    segment: &'a OpenSegment,
    pages: std::ops::Range<usize>,
    page: std::vec::IntoIter<(RowKey, SegmentRow)>,
    next: Option<(RowKey, SegmentRow)>,
}

impl Source<'_> {
    /// Moves to the next row, and gives the one that it was at.
    fn advance(&mut self) -> Result<Option<SegmentRow>, StoreError> {
        let current = self.next.take().map(|(_, row)| row);
        self.next = self.page.next();
        while self.next.is_none() {
            let Some(page) = self.pages.next() else { break };
            let rows = self.segment.page(page).map_err(|error| StoreError::Damaged {
                what: self.segment.path().display().to_string(),
                reason: error.to_string(),
            })?;
            self.page = keyed(rows).into_iter();
            self.next = self.page.next();
        }
        Ok(current)
    }
}

/// The next row of the union of the sources.
fn next_of(sources: &mut [Source<'_>]) -> Result<Option<(RowKey, SegmentRow)>, StoreError> {
    let least = sources.iter().filter_map(|source| Some(source.next.as_ref()?.0)).min();
    let Some(key) = least else { return Ok(None) };
    let mut row: Option<SegmentRow> = None;
    for source in sources {
        while source.next.as_ref().is_some_and(|(next, _)| *next == key) {
            if let Some(found) = source.advance()? {
                row = Some(match row {
                    Some(row) => greatest(row, found),
                    None => found,
                });
            }
        }
    }
    Ok(row.map(|row| (key, row)))
}

/// What a merge makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub id: u64,
    pub level: u32,
    /// Only rows and ids of these are taken; `None` takes all.
    pub shards: Option<&'a BTreeSet<Shard>>,
    /// What inputs have of shards that were left is not taken.
    pub left: &'a Left,
}

impl Target<'_> {
    fn takes(&self, segment: &OpenSegment, shard: Shard) -> bool {
        self.shards.is_none_or(|shards| shards.contains(&shard)) && !self.left.has(segment.meta.id, shard)
    }
}

/// Writes the union of segments of one window, without rows below the floors; nothing where no row is left. The
/// caller syncs the directory.
pub(crate) fn write(
    engine: &Engine,
    target: &Target<'_>,
    inputs: &[Arc<OpenSegment>],
    floors: &Floors,
) -> Result<Option<Arc<OpenSegment>>, StoreError> {
    let path = segments::path(&segments_dir(&engine.options), target.id);
    let written = write_file(engine, target, &path, inputs, floors);
    if !matches!(written, Ok(Some(_))) {
        engine.trash.lock().insert(path);
    }
    written
}

fn write_file(
    engine: &Engine,
    target: &Target<'_>,
    path: &Path,
    inputs: &[Arc<OpenSegment>],
    floors: &Floors,
) -> Result<Option<Arc<OpenSegment>>, StoreError> {
    let (signal, window) = inputs.first().expect("a merge has inputs").key();
    let mut writer = SegmentWriter::create(&*engine.env.disk, path, signal, window)
        .map_err(|error| write_error(&error))?;
    let mut count = 0_u64;
    for (shard, tenant) in groups(inputs, target) {
        engine.is_not_closed()?;
        let floor = floor_of(floors, signal, &tenant);
        let mut sources = sources(inputs, target, shard, &tenant)?;
        while let Some((key, row)) = next_of(&mut sources)? {
            if key.time_unix_nano >= floor {
                writer.push(shard, &tenant, row).map_err(|error| write_error(&error))?;
                count += 1;
            }
        }
    }
    if count == 0 {
        return Ok(None);
    }
    let info = writer.finish(&united_ids(inputs, target)?).map_err(|error| write_error(&error))?;
    engine.adopt(SegmentMeta { id: target.id, level: target.level, info }, path).map(Some)
}

fn groups(inputs: &[Arc<OpenSegment>], target: &Target<'_>) -> BTreeSet<(Shard, Tenant)> {
    let groups =
        inputs.iter().flat_map(|segment| segment.segment.groups().iter().map(move |group| (segment, group)));
    let taken = groups.filter(|(segment, group)| target.takes(segment, group.shard));
    taken.map(|(_, group)| (group.shard, group.tenant.clone())).collect()
}

fn sources<'a>(
    inputs: &'a [Arc<OpenSegment>],
    target: &Target<'_>,
    shard: Shard,
    tenant: &Tenant,
) -> Result<Vec<Source<'a>>, StoreError> {
    let mut sources = Vec::new();
    for segment in inputs.iter().filter(|segment| target.takes(segment, shard)) {
        let group = segment.segment.groups().iter().find(|g| g.shard == shard && g.tenant == *tenant);
        if let Some(group) = group {
            let mut pages = group.pages.clone();
            if oteld_env::mutant("merge-drops-last-block") {
                pages.end -= 1;
            }
            let mut source = Source { segment, pages, page: Vec::new().into_iter(), next: None };
            source.advance()?;
            sources.push(source);
        }
    }
    Ok(sources)
}

fn united_ids(inputs: &[Arc<OpenSegment>], target: &Target<'_>) -> Result<Vec<AppliedId>, StoreError> {
    let mut united: BTreeMap<(RequestId, u64), BTreeSet<Shard>> = BTreeMap::new();
    for segment in inputs {
        let ids = segment.ids().map_err(|error| StoreError::Damaged {
            what: segment.path().display().to_string(),
            reason: error.to_string(),
        })?;
        for id in ids {
            let mut shards = id.shards.into_iter().filter(|shard| target.takes(segment, *shard)).peekable();
            if shards.peek().is_some() {
                united.entry((id.request, id.digest)).or_default().extend(shards);
            }
        }
    }
    let ids = united.into_iter().map(|((request, digest), shards)| AppliedId {
        request,
        digest,
        shards: shards.into_iter().collect(),
    });
    Ok(ids.collect())
}
