//! Where a pin's rows are: memtable parts and segment pages that may hold rows in scope, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::pin::Pin;
use super::{ScanBudget, ScanError, ScanScope};
use crate::memtable::MemParts;
use crate::model::{MetricRow, Rows, Series, SeriesId, Shard, Signal, Stream};
use crate::segment::PageInfo;
use crate::segments::OpenSegment;

/// What is decoded at once: parts of a batch, or one page of a segment.
pub(super) enum Piece<'a> {
    Parts(&'a MemParts),
    Page { segment: &'a OpenSegment, index: usize, page: &'a PageInfo },
}

impl Piece<'_> {
    /// Least and greatest event time of its rows.
    pub(super) fn times(&self) -> (u64, u64) {
        match self {
            Piece::Parts(parts) => {
                let min = parts.headers().map(|part| part.min_time_unix_nano).min();
                let max = parts.headers().map(|part| part.max_time_unix_nano).max();
                (min.unwrap_or_default(), max.unwrap_or_default())
            }
            Piece::Page { page, .. } => (*page.time_unix_nano.start(), *page.time_unix_nano.end()),
        }
    }
}

/// Parts and segments with rows of one signal in one scope.
pub(super) struct Sources<'a> {
    scope: &'a ScanScope,
    budget: &'a ScanBudget,
    time: Range<u64>,
    parts: Vec<MemParts>,
    segments: Vec<&'a OpenSegment>,
    /// The shards in scope of segments that lack some of them: the store left those.
    narrowed: BTreeMap<u64, BTreeSet<Shard>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        pin: &'a Pin,
        signal: Signal,
        scope: &'a ScanScope,
        time: Range<u64>,
        budget: &'a ScanBudget,
    ) -> Self {
        let mut parts = Vec::new();
        let buckets = pin.buckets.iter().filter(|pinned| pinned.signal == signal);
        for pinned in buckets.filter(|pinned| pinned.window.start_unix_nano() < time.end) {
            parts.extend(pinned.bucket.select(pinned.len, |header| {
                header.tenant == scope.tenant
                    && scope.shards.contains(&header.shard)
                    && overlaps(&time, header.min_time_unix_nano, header.max_time_unix_nano)
            }));
        }
        let mut narrowed = BTreeMap::new();
        for segment in &pin.segments.0 {
            let gone = pin.left.of(segment);
            if !gone.is_disjoint(&scope.shards) {
                narrowed.insert(segment.meta.id, scope.shards.difference(&gone).copied().collect());
            }
        }
        let segments = pin.segments.0.iter().map(|segment| &**segment).filter(|segment| {
            let info = &segment.meta.info;
            info.signal == signal
                && overlaps(&time, info.min_time_unix_nano, info.max_time_unix_nano)
                && segment
                    .segment
                    .groups_of(&scope.tenant, shards_in(&narrowed, scope, segment))
                    .next()
                    .is_some()
        });
        let segments = segments.collect();
        Sources { scope, budget, time, parts, segments, narrowed }
    }

    /// The shards in scope that a segment has rows of.
    fn shards(&self, segment: &OpenSegment) -> &BTreeSet<Shard> {
        shards_in(&self.narrowed, self.scope, segment)
    }

    /// Event times in scope, at or above the retention floor.
    pub(super) fn time(&self) -> Range<u64> {
        self.time.clone()
    }

    /// Parts, and those pages that `may_hold` says are worth reading, that may have rows in scope.
    pub(super) fn pieces(
        &'a self,
        may_hold: &mut dyn FnMut(&OpenSegment, &PageInfo) -> bool,
    ) -> Vec<Piece<'a>> {
        let mut pieces: Vec<Piece<'a>> = self.parts.iter().map(Piece::Parts).collect();
        for segment in &self.segments {
            for (index, page) in segment.segment.pages_of(&self.scope.tenant, self.shards(segment)) {
                let times = &page.time_unix_nano;
                if overlaps(&self.time, *times.start(), *times.end()) && may_hold(segment, page) {
                    pieces.push(Piece::Page { segment, index, page });
                }
            }
        }
        pieces
    }

    /// The rows of a piece, those outside the scope's time included.
    pub(super) fn read(&self, piece: &Piece<'_>) -> Result<Rows, ScanError> {
        match piece {
            Piece::Parts(parts) => {
                self.budget.spend(parts.row_count(), parts.byte_count())?;
                parts.batch.decode_parts(&parts.parts).map_err(|error| ScanError::Damaged {
                    what: "a batch in memory".to_owned(),
                    reason: error.to_string(),
                })
            }
            Piece::Page { segment, index, page } => {
                self.budget.spend(page.rows, page.bytes)?;
                segment.page(*index).map_err(|error| ScanError::Damaged {
                    what: segment.path().display().to_string(),
                    reason: error.to_string(),
                })
            }
        }
    }

    /// Rows of every piece.
    pub(super) fn each_rows(
        &self,
        may_hold: &mut dyn FnMut(&OpenSegment, &PageInfo) -> bool,
        visit: &mut dyn FnMut(Rows),
    ) -> Result<(), ScanError> {
        for piece in self.pieces(may_hold) {
            visit(self.read(&piece)?);
        }
        Ok(())
    }

    /// Points in scope of series that `take` wants.
    pub(super) fn each_points(
        &self,
        take: &mut dyn FnMut(SeriesId, &Series) -> bool,
        visit: &mut dyn FnMut(MetricRow) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        let mut wanted: BTreeMap<u64, BTreeSet<u128>> = BTreeMap::new();
        for segment in &self.segments {
            let series = segment.segment.series(&self.scope.tenant, self.shards(segment));
            let ids = series.filter(|series| take(series.id, series)).map(|series| series.id.0);
            wanted.insert(segment.meta.id, ids.collect());
        }
        let mut may_hold = |segment: &OpenSegment, page: &PageInfo| {
            wanted.get(&segment.meta.id).is_some_and(|ids| ids.range(page.ids.clone()).next().is_some())
        };
        for piece in self.pieces(&mut may_hold) {
            let Rows::Metrics(rows) = self.read(&piece)? else { continue };
            for row in rows {
                if self.time.contains(&row.point.time_unix_nano) && take(row.series.id, &row.series) {
                    visit(row)?;
                }
            }
        }
        Ok(())
    }

    /// Series with a point in scope, some of them more than once. Segments that are in scope whole name them
    /// without a look at their pages.
    pub(super) fn each_series(&self, visit: &mut dyn FnMut(&Arc<Series>)) -> Result<(), ScanError> {
        for segment in self.segments.iter().filter(|segment| self.has_whole(segment)) {
            self.budget.spend(0, 0)?;
            segment.segment.series(&self.scope.tenant, self.shards(segment)).for_each(&mut *visit);
        }
        let mut is_partial = |segment: &OpenSegment, _: &PageInfo| !self.has_whole(segment);
        self.each_rows(&mut is_partial, &mut |rows| {
            let Rows::Metrics(rows) = rows else { return };
            for row in rows.iter().filter(|row| self.time.contains(&row.point.time_unix_nano)) {
                visit(&row.series);
            }
        })
    }

    /// Streams with a row in scope, some of them more than once. Segments that are in scope whole name them
    /// without a look at their pages.
    pub(super) fn each_stream(&self, visit: &mut dyn FnMut(&Arc<Stream>)) -> Result<(), ScanError> {
        for segment in self.segments.iter().filter(|segment| self.has_whole(segment)) {
            self.budget.spend(0, 0)?;
            segment.segment.streams(&self.scope.tenant, self.shards(segment)).for_each(&mut *visit);
        }
        let mut is_partial = |segment: &OpenSegment, _: &PageInfo| !self.has_whole(segment);
        self.each_rows(&mut is_partial, &mut |rows| {
            for index in 0..rows.len() {
                if !self.time.contains(&rows.event_time_unix_nano(index)) {
                    continue;
                }
                match &rows {
                    Rows::Metrics(_) => {}
                    Rows::Logs(rows) => visit(&rows[index].stream),
                    Rows::Traces(rows) => visit(&rows[index].stream),
                }
            }
        })
    }

    /// The streams of a segment that `take` wants, by id.
    pub(super) fn wanted_streams(
        &self,
        segment: &OpenSegment,
        take: &mut dyn FnMut(&Stream) -> bool,
    ) -> BTreeSet<u128> {
        let streams = segment.segment.streams(&self.scope.tenant, self.shards(segment));
        streams.filter(|stream| take(stream)).map(|stream| stream.id.0).collect()
    }

    /// Whether all rows of a segment are in scope by their time.
    fn has_whole(&self, segment: &OpenSegment) -> bool {
        let info = &segment.meta.info;
        self.time.contains(&info.min_time_unix_nano) && self.time.contains(&info.max_time_unix_nano)
    }
}

fn shards_in<'a>(
    narrowed: &'a BTreeMap<u64, BTreeSet<Shard>>,
    scope: &'a ScanScope,
    segment: &OpenSegment,
) -> &'a BTreeSet<Shard> {
    narrowed.get(&segment.meta.id).unwrap_or(&scope.shards)
}

/// Whether [`min`, `max`] has something in `time`.
fn overlaps(time: &Range<u64>, min: u64, max: u64) -> bool {
    min < time.end && max >= time.start
}
