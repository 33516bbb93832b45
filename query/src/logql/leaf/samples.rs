//! Partial values of a range aggregation, so that the front only adds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use oteld_store::model::LogRow;
use oteld_store::scan::Order;
use serde::{Deserialize, Serialize};

use super::super::ast::{Grouping, RangeAggregation, RangeOp};
use super::super::matcher::CompiledSelector;
use super::super::pipeline::{CompiledUnwrap, ERROR, Pipeline, RowLabels, reads};
use super::super::plan::Steps;
use super::super::view::Labels;
use super::{Views, scope, selects, too_many_series};
use crate::{LeafContext, QueryError, QueryErrorKind};

/// The partial values of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesPartials {
    pub labels: Labels,
    /// By step, only those with rows.
    pub steps: Vec<(u32, Partial)>,
}

/// What the rows of one window come to: their number; sum, least and greatest of their samples. A row's sample
/// is its unwrapped label, the bytes of its line for `bytes_*`, else 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    pub rows: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// Every sample with its time in nanoseconds, for the operations that need them; else empty.
    pub values: Vec<(u64, f64)>,
}

pub(super) fn samples(
    context: &LeafContext<'_>,
    range: &RangeAggregation,
    steps: Steps,
) -> Result<Vec<SeriesPartials>, QueryError> {
    let selector = CompiledSelector::new(&range.query.selector)?;
    let mut collector = Collector::new(context, range, steps)?;
    let mut failed = None;
    context.scan.logs(
        &scope(context, steps.covered(range.range_nanos, range.offset_nanos)),
        context.budget,
        Order::OldestFirst,
        &mut |stream| selects(&selector, stream),
        &mut |row| match collector.row(&row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => collector.finish(),
    }
}

struct Collector<'a> {
    context: &'a LeafContext<'a>,
    range: &'a RangeAggregation,
    steps: Steps,
    pipeline: Pipeline,
    unwrap: Option<CompiledUnwrap>,
    /// Labels that stages read or series can have, when that is known before any row is seen.
    wanted: Option<BTreeSet<String>>,
    views: Views,
    series: BTreeMap<Labels, Windows>,
    partials: usize,
}

/// The windows of one series.
enum Windows {
    /// Rows and sums that change at a step, for whole numbers: a row costs the same however many windows hold
    /// it, and the sums stay exact.
    Changes(BTreeMap<u32, (i64, i64)>),
    /// For unwrapped samples.
    Values(BTreeMap<u32, Partial>),
}

impl<'a> Collector<'a> {
    fn new(
        context: &'a LeafContext<'a>,
        range: &'a RangeAggregation,
        steps: Steps,
    ) -> Result<Self, QueryError> {
        let pipeline = Pipeline::new(&range.query.stages)?;
        let unwrap = range.unwrap.as_ref().map(CompiledUnwrap::new).transpose()?;
        let wanted = match &range.grouping {
            Some(Grouping { without: false, labels }) => {
                let mut wanted = reads(&range.query.stages, range.unwrap.as_ref());
                wanted.extend(labels.iter().cloned());
                Some(wanted)
            }
            _ => None,
        };
        Ok(Collector {
            context,
            range,
            steps,
            pipeline,
            unwrap,
            wanted,
            views: Views::default(),
            series: BTreeMap::new(),
            partials: 0,
        })
    }

    fn row(&mut self, row: &LogRow) -> Result<(), QueryError> {
        let time = row.record.effective_time_unix_nano();
        let windows = self.steps.holding(time, self.range.range_nanos, self.range.offset_nanos);
        if windows.is_empty() {
            return Ok(());
        }
        let view = self.views.of(row);
        let Some(mut passed) = self.pipeline.run(row, &view, self.wanted.as_ref()) else { return Ok(()) };
        let bytes = passed.line.len();
        let sample = match &self.unwrap {
            Some(unwrap) => match unwrap.sample(&mut passed.labels) {
                Some(sample) => Sample::Value(sample),
                None => return Ok(()),
            },
            None => Sample::Whole(match self.range.op {
                RangeOp::Bytes | RangeOp::BytesRate => bytes as i64,
                _ => 1,
            }),
        };
        refuse_error(&passed.labels)?;
        let labels = reduced(&passed.labels, self.range.grouping.as_ref());
        self.add(labels, windows, time, sample)
    }

    fn add(
        &mut self,
        labels: Labels,
        windows: Range<u32>,
        time: u64,
        sample: Sample,
    ) -> Result<(), QueryError> {
        let limits = self.context.limits;
        if !self.series.contains_key(&labels) && self.series.len() >= limits.series_max {
            return Err(too_many_series(limits));
        }
        let series = self.series.entry(labels).or_insert_with(|| match sample {
            Sample::Whole(_) => Windows::Changes(BTreeMap::new()),
            Sample::Value(_) => Windows::Values(BTreeMap::new()),
        });
        match (series, sample) {
            (Windows::Changes(changes), Sample::Whole(value)) => {
                let before = changes.len();
                for (step, sign) in [(windows.start, 1), (windows.end, -1)] {
                    let change = changes.entry(step).or_default();
                    *change = (change.0 + sign, change.1 + sign * value);
                }
                self.partials += changes.len() - before;
            }
            (Windows::Values(values), Sample::Value(value)) => {
                let before = values.len();
                for step in windows {
                    let partial = values.entry(step).or_insert_with(Partial::default);
                    partial.add(value);
                    if self.range.op.needs_values() {
                        partial.values.push((time, value));
                        self.partials += 1;
                    }
                }
                self.partials += values.len() - before;
            }
            _ => unreachable!("a range aggregation unwraps always or never"),
        }
        if self.partials > limits.samples_max { Err(too_many_samples(limits.samples_max)) } else { Ok(()) }
    }

    fn finish(self) -> Result<Vec<SeriesPartials>, QueryError> {
        let count = self.steps.count() as u32;
        let mut left = self.context.limits.samples_max;
        let mut all = Vec::with_capacity(self.series.len());
        for (labels, windows) in self.series {
            let steps = match windows {
                Windows::Values(values) => values.into_iter().collect(),
                Windows::Changes(changes) => running(&changes, count),
            };
            left = left
                .checked_sub(steps.len())
                .ok_or_else(|| too_many_samples(self.context.limits.samples_max))?;
            all.push(SeriesPartials { labels, steps });
        }
        Ok(all)
    }
}

#[derive(Clone, Copy)]
enum Sample {
    Whole(i64),
    Value(f64),
}

impl Default for Partial {
    /// No rows.
    fn default() -> Self {
        Partial { rows: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, values: Vec::new() }
    }
}

impl Partial {
    fn add(&mut self, value: f64) {
        self.rows += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

/// Sums of the changes up to every step that has rows.
fn running(changes: &BTreeMap<u32, (i64, i64)>, count: u32) -> Vec<(u32, Partial)> {
    let mut steps = Vec::new();
    let (mut rows, mut sum) = (0_i64, 0_i64);
    let mut ends = changes.keys().skip(1).copied().chain([count]);
    for (&start, change) in changes {
        rows += change.0;
        sum += change.1;
        debug_assert!(rows >= 0 && sum >= 0, "every change down follows its change up");
        let end = ends.next().unwrap_or(count).min(count);
        if rows > 0 {
            let partial = Partial { rows: rows as u64, sum: sum as f64, ..Partial::default() };
            steps.extend((start..end).map(|step| (step, partial.clone())));
        }
    }
    steps
}

/// The labels of the series that a row belongs to.
fn reduced(labels: &RowLabels, grouping: Option<&Grouping>) -> Labels {
    match grouping {
        None => labels.all(),
        Some(Grouping { without: true, labels: names }) => {
            let mut all = labels.all();
            all.retain(|name, _| names.binary_search(name).is_err());
            all
        }
        Some(Grouping { without: false, labels: names }) => {
            let found = names.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.to_owned())));
            found.filter(|(_, value)| !value.is_empty()).collect()
        }
    }
}

/// A row whose stages failed would make the number wrong, so it stops the query, as in Loki.
fn refuse_error(labels: &RowLabels) -> Result<(), QueryError> {
    let Some(error) = labels.get(ERROR) else { return Ok(()) };
    Err(QueryError::bad(format!(
        "pipeline error: '{error}' for series: '{:?}'. Use a label filter to intentionally skip this error. (e.g | \
         __error__!=\"{error}\"). To skip all potential errors you can match empty errors. (e.g __error__=\"\")",
        labels.stream
    )))
}

pub(in super::super) fn too_many_samples(samples_max: usize) -> QueryError {
    QueryError::new(
        QueryErrorKind::Limit,
        format!("the query reached its limit of {samples_max} samples in memory"),
    )
}
