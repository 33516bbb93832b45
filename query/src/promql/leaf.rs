//! One node's part of a query: select, translate and extract.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use oteld_store::model::{Metric, MetricKind};
use oteld_store::scan::ScanScope;

use super::labels::{Labels, METRIC_NAME, Matchers};
use super::native::NativeHistogram;
use super::samples::{self, Names, PART_LABELS};
use super::translate::{TARGET_INFO, series_labels, target_info_labels};
use super::{LeafReply, LeafRequest, LeafSeries, Selector, exemplars, metadata};
use crate::{LeafContext, QueryError, QueryErrorKind};

/// `target_info` has one sample in each stretch of this length in which its resource reported.
const TARGET_INFO_STEP_MS: i64 = 15_000;

/// Answers one request from one node's rows. Blocks and computes: not for the reactor.
///
/// Errors: [`QueryErrorKind::Limit`] when more series or samples are selected than the limits allow, and those of
/// the scan.
pub fn leaf(context: &LeafContext<'_>, request: &LeafRequest) -> Result<LeafReply, QueryError> {
    match request {
        LeafRequest::Samples(selectors) => {
            let mut used = Used::default();
            let mut warnings = BTreeSet::new();
            let selected = selectors
                .iter()
                .map(|selector| select(context, selector, &mut used, &mut warnings))
                .collect::<Result<_, _>>()?;
            Ok(LeafReply::Samples { selected, warnings })
        }
        LeafRequest::Catalog { selectors, start_ms, end_ms, what } => {
            metadata::leaf(context, selectors, (*start_ms, *end_ms), what).map(LeafReply::Catalog)
        }
        LeafRequest::Exemplars { selectors, start_ms, end_ms } => {
            exemplars::leaf(context, selectors, (*start_ms, *end_ms)).map(LeafReply::Exemplars)
        }
    }
}

/// What all selectors of a request have used together.
#[derive(Default)]
struct Used {
    series: usize,
    samples: usize,
}

impl Used {
    fn add(&mut self, context: &LeafContext<'_>, series: &LeafSeries) -> Result<(), QueryError> {
        self.series += 1;
        let buckets = |histogram: &Arc<NativeHistogram>| histogram.positive.len() + histogram.negative.len();
        let buckets: usize = series.histograms.iter().flatten().map(buckets).sum();
        self.samples += series.times.len() + buckets;
        check_limit("series", self.series, context.limits.series_max)?;
        check_limit("samples", self.samples, context.limits.samples_max)
    }
}

/// An error that names the limit, when it is passed.
pub(crate) fn check_limit(what: &str, used: usize, limit: usize) -> Result<(), QueryError> {
    if used <= limit {
        return Ok(());
    }
    Err(QueryError::new(
        QueryErrorKind::Limit,
        format!("the query reached its limit of {limit} {what}: select fewer series or a shorter time"),
    ))
}

/// The scope of everything after `start_ms`, up to and with `end_ms`.
pub(crate) fn scope(context: &LeafContext<'_>, start_ms: i64, end_ms: i64) -> ScanScope {
    let nanos = |ms: i64| u64::try_from(ms.saturating_add(1)).unwrap_or(0).saturating_mul(1_000_000);
    let time_unix_nano: Range<u64> = nanos(start_ms)..nanos(end_ms);
    ScanScope { tenant: context.tenant.clone(), shards: context.shards.clone(), time_unix_nano }
}

/// What matchers say of metrics by their names, remembered: a store has many series of few metrics.
struct Families<'a> {
    matchers: &'a Matchers,
    known: HashMap<(Arc<str>, Arc<str>, MetricKind), Family>,
}

#[derive(Clone)]
struct Family {
    taken: bool,
    /// The name of an exponential histogram that is asked for classic buckets.
    without_buckets: Option<Arc<str>>,
}

impl Families<'_> {
    fn of(&mut self, metric: &Metric) -> Family {
        let matchers = self.matchers;
        let key = (metric.name.clone(), metric.unit.clone(), metric.kind);
        let look = || {
            let Some(names) = Names::of(metric) else {
                return Family { taken: false, without_buckets: None };
            };
            let without_buckets = names.asks_for_buckets(matchers).then(|| names.family.as_str().into());
            let taken = without_buckets.is_some() || names.all().iter().any(|name| matchers.take_name(name));
            Family { taken, without_buckets }
        };
        self.known.entry(key).or_insert_with(look).clone()
    }
}

fn select(
    context: &LeafContext<'_>,
    selector: &Selector,
    used: &mut Used,
    warnings: &mut BTreeSet<String>,
) -> Result<Vec<LeafSeries>, QueryError> {
    let matchers = Matchers::new(&selector.matchers)?;
    let windows = &selector.windows;
    let scope = scope(context, windows.start_ms(), windows.last_ms);
    let mut selected = Vec::new();
    let mut failed = None;
    let mut families = Families { matchers: &matchers, known: HashMap::new() };
    // The name and what only a part has are checked with each part.
    let open = [&[METRIC_NAME][..], &PART_LABELS[..]].concat();
    context.scan.metrics(
        &scope,
        &context.budget.with_series_max(context.limits.series_max),
        &mut |series| {
            let family = families.of(&series.metric);
            if !family.taken || !matchers.take_open(&series_labels(series), &open) {
                return false;
            }
            warnings.extend(family.without_buckets.as_deref().map(bucket_warning));
            true
        },
        &mut |found| {
            let names = Names::of(&found.series.metric).expect("a selected series has a name");
            let base = series_labels(&found.series);
            for series in samples::extract(&names, &base, &found.points, &matchers, windows) {
                if let Err(error) = used.add(context, &series) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                selected.push(series);
            }
            ControlFlow::Continue(())
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    if matchers.take_name(TARGET_INFO) {
        for series in target_info(context, &matchers, selector, &scope)? {
            used.add(context, &series)?;
            selected.push(series);
        }
    }
    Ok(selected)
}

fn bucket_warning(family: &str) -> String {
    format!("{family:?} is a native histogram and has no series {family}_bucket: query {family} itself")
}

/// `target_info` of the resources that `matchers` takes: 1 at the last point in each stretch in which any of the
/// resource's series has one.
fn target_info(
    context: &LeafContext<'_>,
    matchers: &Matchers,
    selector: &Selector,
    scope: &ScanScope,
) -> Result<Vec<LeafSeries>, QueryError> {
    let windows = &selector.windows;
    let mut seen: BTreeMap<Labels, BTreeMap<i64, i64>> = BTreeMap::new();
    let mut stretches = 0;
    let mut failed = None;
    context.scan.metrics(
        scope,
        context.budget,
        &mut |series| target_info_labels(&series.resource).is_some_and(|labels| matchers.take(&labels)),
        &mut |found| {
            let Some(labels) = target_info_labels(&found.series.resource) else {
                return ControlFlow::Continue(());
            };
            let times = seen.entry(labels).or_default();
            let before = times.len();
            for time_ms in found.points.iter().map(|point| samples::millis(point.time_unix_nano)) {
                if windows.take(time_ms) {
                    let latest = times.entry(time_ms.div_euclid(TARGET_INFO_STEP_MS)).or_insert(time_ms);
                    *latest = time_ms.max(*latest);
                }
            }
            stretches += times.len() - before;
            failed = check_limit("samples", stretches, context.limits.samples_max).err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    let series = seen.into_iter().filter(|(_, times)| !times.is_empty()).map(|(labels, times)| {
        let times: Vec<i64> = times.into_values().collect();
        LeafSeries { labels, delta: false, values: vec![1.0; times.len()], times, histograms: Vec::new() }
    });
    Ok(series.collect())
}
