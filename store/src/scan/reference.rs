//! The plainest implementation of [`Scan`]: a list of rows. Tests of the store compare with it, tests of the
//! query engines run over it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Order, Scan, ScanBudget, ScanError, ScanScope, SeriesPoints};
use crate::model::{
    LogRow, MetricRow, Point, Rows, Series, SeriesId, Shard, Signal, SpanRow, Stream, Tenant,
};

/// Rows in memory, in any order, with repeats. Equal keys must have equal values here: which of two values wins
/// is the store's rule, not the reference's.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    metrics: Vec<(Tenant, Shard, MetricRow)>,
    logs: Vec<(Tenant, Shard, LogRow)>,
    spans: Vec<(Tenant, Shard, SpanRow)>,
}

impl RowSet {
    /// Adds rows of one tenant and shard.
    pub fn add(&mut self, tenant: &Tenant, shard: Shard, rows: Rows) {
        match rows {
            Rows::Metrics(rows) => {
                self.metrics.extend(rows.into_iter().map(|row| (tenant.clone(), shard, row)));
            }
            Rows::Logs(rows) => self.logs.extend(rows.into_iter().map(|row| (tenant.clone(), shard, row))),
            Rows::Traces(rows) => self.spans.extend(rows.into_iter().map(|row| (tenant.clone(), shard, row))),
        }
    }

    fn in_scope<'a, R>(
        rows: &'a [(Tenant, Shard, R)],
        scope: &'a ScanScope,
        time: impl Fn(&R) -> u64 + 'a,
    ) -> impl Iterator<Item = &'a R> {
        rows.iter()
            .filter(move |(tenant, shard, row)| {
                *tenant == scope.tenant
                    && scope.shards.contains(shard)
                    && scope.time_unix_nano.contains(&time(row))
            })
            .map(|(_, _, row)| row)
    }

    fn points<'a>(&'a self, scope: &'a ScanScope) -> impl Iterator<Item = &'a MetricRow> {
        RowSet::in_scope(&self.metrics, scope, |row| row.point.time_unix_nano)
    }

    fn records<'a>(&'a self, scope: &'a ScanScope) -> impl Iterator<Item = &'a LogRow> {
        RowSet::in_scope(&self.logs, scope, |row| row.record.effective_time_unix_nano())
    }

    fn spans<'a>(&'a self, scope: &'a ScanScope) -> impl Iterator<Item = &'a SpanRow> {
        RowSet::in_scope(&self.spans, scope, |row| row.span.start_time_unix_nano)
    }
}

impl Scan for RowSet {
    fn series(
        &self,
        scope: &ScanScope,
        _: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
    ) -> Result<Vec<Arc<Series>>, ScanError> {
        let all: BTreeMap<SeriesId, &Arc<Series>> =
            self.points(scope).map(|row| (row.series.id, &row.series)).collect();
        Ok(all.into_values().filter(|series| select(series)).cloned().collect())
    }

    fn metrics(
        &self,
        scope: &ScanScope,
        _: &ScanBudget,
        select: &mut dyn FnMut(&Series) -> bool,
        visit: &mut dyn FnMut(SeriesPoints) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut all: BTreeMap<SeriesId, (Arc<Series>, BTreeMap<u64, Point>)> = BTreeMap::new();
        for row in self.points(scope) {
            let entry = all.entry(row.series.id).or_insert_with(|| (row.series.clone(), BTreeMap::new()));
            entry.1.insert(row.point.time_unix_nano, row.point.clone());
        }
        for (series, points) in all.into_values() {
            if select(&series) {
                let points = points.into_values().collect();
                if visit(SeriesPoints { series, points }).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn streams(
        &self,
        signal: Signal,
        scope: &ScanScope,
        _: &ScanBudget,
    ) -> Result<Vec<Arc<Stream>>, ScanError> {
        let all: BTreeMap<_, _> = match signal {
            Signal::Metrics => BTreeMap::new(),
            Signal::Logs => self.records(scope).map(|row| (row.stream.id, row.stream.clone())).collect(),
            Signal::Traces => self.spans(scope).map(|row| (row.stream.id, row.stream.clone())).collect(),
        };
        Ok(all.into_values().collect())
    }

    fn logs(
        &self,
        scope: &ScanScope,
        _: &ScanBudget,
        order: Order,
        select: &mut dyn FnMut(&Stream) -> bool,
        visit: &mut dyn FnMut(LogRow) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut taken: BTreeMap<_, bool> = BTreeMap::new();
        let mut rows = BTreeMap::new();
        for row in self.records(scope) {
            if *taken.entry(row.stream.id).or_insert_with(|| select(&row.stream)) {
                rows.insert((row.record.effective_time_unix_nano(), row.request, row.ordinal), row);
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        if order == Order::NewestFirst {
            rows.sort_by_key(|((time, request, ordinal), _)| (std::cmp::Reverse(*time), *request, *ordinal));
        }
        for (_, row) in rows {
            if visit(row.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn traces_by_id(
        &self,
        scope: &ScanScope,
        _: &ScanBudget,
        trace_ids: &BTreeSet<[u8; 16]>,
    ) -> Result<Vec<Vec<SpanRow>>, ScanError> {
        let of = |id: &[u8; 16]| self.spans(scope).filter(|row| row.span.trace_id == *id).cloned().collect();
        let traces = trace_ids.iter().map(|id| sorted_once(of(id)));
        Ok(traces.filter(|spans| !spans.is_empty()).collect())
    }

    fn traces(
        &self,
        scope: &ScanScope,
        _: &ScanBudget,
        order: Order,
        visit: &mut dyn FnMut(&[SpanRow]) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut traces: BTreeMap<[u8; 16], Vec<SpanRow>> = BTreeMap::new();
        for row in self.spans(scope) {
            traces.entry(row.span.trace_id).or_default().push(row.clone());
        }
        let mut traces: Vec<_> = traces.into_values().map(sorted_once).collect();
        traces.sort_by_key(|spans| spans.last().map(|row| row.span.start_time_unix_nano));
        if order == Order::NewestFirst {
            traces.reverse();
        }
        for spans in traces {
            if visit(&spans).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Spans by (start, span id), each span id once.
fn sorted_once(mut spans: Vec<SpanRow>) -> Vec<SpanRow> {
    let mut seen = BTreeSet::new();
    spans.retain(|row| seen.insert(row.span.span_id));
    spans.sort_by_key(|row| (row.span.start_time_unix_nano, row.span.span_id));
    spans
}
