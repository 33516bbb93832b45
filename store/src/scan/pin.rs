//! A pinned view of a store: memtables and segments of one moment, as one set of rows.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::pin_rows::{LogSet, PointSet, SpanSet, rank};
use super::pin_source::{Piece, Sources};
use super::{Order, Scan, ScanBudget, ScanError, ScanScope, SeriesPoints};
use crate::engine::State;
use crate::floors::{Floors, floor_of};
use crate::leave::Left;
use crate::memtable::PinnedBucket;
use crate::model::{LogRow, Rows, Series, SeriesId, Signal, SpanRow, Stream, StreamId};
use crate::position::Position;
use crate::segment::PageInfo;
use crate::segments::{OpenSegment, SegmentSet};

/// Everything that was published when it was taken. Cheap; its files stay until it is dropped.
#[derive(Clone, Debug)]
pub struct Pin {
    pub(crate) buckets: Vec<PinnedBucket>,
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) left: Arc<Left>,
    floors: Arc<Floors>,
    position: Position,
}

impl Pin {
    pub(crate) fn new(state: &State) -> Self {
        let frozen = state.frozen.iter().filter(|_| !oteld_env::mutant("frozen-memtable-not-scanned"));
        let frozen = frozen.flat_map(|frozen| frozen.memtable.pin());
        Pin {
            buckets: frozen.chain(state.memtable.pin()).collect(),
            segments: state.segments.clone(),
            left: state.left.clone(),
            floors: state.floors.clone(),
            position: state.position,
        }
    }

    /// Everything up to it is in the view, and nothing after it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What holds rows of `signal` in `scope`; rows below the retention floor are out of it.
    fn sources<'a>(&'a self, signal: Signal, scope: &'a ScanScope, budget: &'a ScanBudget) -> Sources<'a> {
        let floor = floor_of(&self.floors, signal, &scope.tenant);
        let time = scope.time_unix_nano.start.max(floor)..scope.time_unix_nano.end;
        Sources::new(self, signal, scope, time, budget)
    }
}

impl Scan for Pin {
    fn series(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
    ) -> Result<Vec<Arc<Series>>, ScanError> {
        let sources = self.sources(Signal::Metrics, scope, budget);
        // Those that are not taken are forgotten but for their ids.
        let mut asked: BTreeSet<SeriesId> = BTreeSet::new();
        let mut found: BTreeMap<SeriesId, Arc<Series>> = BTreeMap::new();
        sources.each_series(&mut |series| {
            if asked.insert(series.id) && select(series) {
                found.insert(series.id, series.clone());
            }
        })?;
        Ok(found.into_values().collect())
    }

    fn metrics(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
        visit: &mut dyn FnMut(SeriesPoints) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let sources = self.sources(Signal::Metrics, scope, budget);
        let taken = RefCell::new(Taken::new(|series: &Series| select(series)));
        let mut points = PointSet::default();
        sources.each_points(&mut |id, series| taken.borrow_mut().takes(id, series), &mut |row| {
            points.add(row);
            budget.hold_series(points.series_count())
        })?;
        for series in points.into_series() {
            if visit(series).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn streams(
        &self,
        signal: Signal,
        scope: &ScanScope,
        budget: &ScanBudget,
    ) -> Result<Vec<Arc<Stream>>, ScanError> {
        let mut found: BTreeMap<StreamId, Arc<Stream>> = BTreeMap::new();
        if signal != Signal::Metrics {
            let sources = self.sources(signal, scope, budget);
            sources.each_stream(&mut |stream| {
                found.entry(stream.id).or_insert_with(|| stream.clone());
            })?;
        }
        Ok(found.into_values().collect())
    }

    fn logs(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        order: Order,
        select: &mut dyn FnMut(&Stream) -> bool,
        visit: &mut dyn FnMut(LogRow) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let sources = self.sources(Signal::Logs, scope, budget);
        let mut taken = Taken::new(|stream: &Stream| select(stream));
        let mut wanted: BTreeMap<u64, BTreeSet<u128>> = BTreeMap::new();
        let mut pieces = sources.pieces(&mut |segment, page| {
            let ids = wanted.entry(segment.meta.id).or_insert_with(|| {
                sources.wanted_streams(segment, &mut |stream| taken.takes(stream.id, stream))
            });
            ids.range(page.ids.clone()).next().is_some()
        });
        // Pieces are read when their first row may be next, so that a reader who stops early reads little.
        let first_rank = |piece: &Piece<'_>| {
            let (min, max) = piece.times();
            rank(order, if order == Order::OldestFirst { min } else { max })
        };
        pieces.sort_by_key(|piece| Reverse(first_rank(piece)));
        let mut rows = LogSet::new(order);
        loop {
            // A row at the rank of a piece waits for it: the piece may hold its repeat, or one before it.
            while let Some(row) = rows.pop_below(pieces.last().map(first_rank)) {
                if visit(row).is_break() {
                    return Ok(());
                }
            }
            let Some(piece) = pieces.pop() else { return Ok(()) };
            let Rows::Logs(found) = sources.read(&piece)? else { continue };
            for row in found {
                let in_scope = sources.time().contains(&row.record.effective_time_unix_nano());
                if in_scope && taken.takes(row.stream.id, &row.stream) {
                    rows.add(row);
                }
            }
        }
    }

    fn traces_by_id(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        trace_ids: &BTreeSet<[u8; 16]>,
    ) -> Result<Vec<Vec<SpanRow>>, ScanError> {
        let sources = self.sources(Signal::Traces, scope, budget);
        let mut spans = SpanSet::default();
        let time = sources.time();
        let ids: BTreeSet<u128> = trace_ids.iter().map(|id| u128::from_be_bytes(*id)).collect();
        let mut may_hold = |_: &OpenSegment, page: &PageInfo| ids.range(page.ids.clone()).next().is_some();
        sources.each_rows(&mut may_hold, &mut |found| {
            spans.add_all(found, |row| trace_ids.contains(&row.span.trace_id), &time);
        })?;
        let mut traces = spans.into_traces(Order::OldestFirst);
        traces.sort_by_key(|spans| spans[0].span.trace_id);
        Ok(traces)
    }

    fn traces(
        &self,
        scope: &ScanScope,
        budget: &ScanBudget,
        order: Order,
        visit: &mut dyn FnMut(&[SpanRow]) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let sources = self.sources(Signal::Traces, scope, budget);
        let mut spans = SpanSet::default();
        let time: Range<u64> = sources.time();
        sources.each_rows(&mut |_, _| true, &mut |found| spans.add_all(found, |_| true, &time))?;
        for trace in spans.into_traces(order) {
            if visit(&trace).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A caller's choice of series or streams, asked once each.
struct Taken<I, F> {
    asked: BTreeSet<I>,
    taken: BTreeSet<I>,
    select: F,
}

impl<I: Ord + Copy, F> Taken<I, F> {
    fn new(select: F) -> Self {
        Taken { asked: BTreeSet::new(), taken: BTreeSet::new(), select }
    }

    fn takes<T>(&mut self, id: I, what: &T) -> bool
    where
        F: FnMut(&T) -> bool,
    {
        if self.asked.insert(id) && (self.select)(what) {
            self.taken.insert(id);
        }
        self.taken.contains(&id)
    }
}
