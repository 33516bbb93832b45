//! Label names, label values, series and metric metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use oteld_store::model::{Metric, MetricKind, Series};
use oteld_store::scan::ScanScope;
use serde::{Deserialize, Serialize};

use super::labels::{Labels, METRIC_NAME, Matcher, Matchers};
use super::leaf::{check_limit, scope};
use super::samples::{Names, PART_LABELS, Part, parts_of};
use super::translate::{TARGET_INFO, series_labels, target_info_labels};
use super::{CatalogWhat, LeafReply};
use crate::{LeafContext, Limits, QueryError, QueryErrorKind};

/// The answer to a catalog request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Catalog {
    /// Label names or label values.
    Strings(BTreeSet<String>),
    Series(BTreeSet<Labels>),
    /// By metric family.
    Metadata(BTreeMap<String, BTreeSet<MetadataEntry>>),
}

/// What Prometheus tells of a metric family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetadataEntry {
    /// `counter`, `gauge`, `histogram`, `summary` or `info`.
    #[serde(rename = "type")]
    pub kind: String,
    pub help: String,
    pub unit: String,
}

impl Catalog {
    fn empty(what: &CatalogWhat) -> Self {
        match what {
            CatalogWhat::LabelNames | CatalogWhat::LabelValues(_) => Catalog::Strings(BTreeSet::new()),
            CatalogWhat::Series => Catalog::Series(BTreeSet::new()),
            CatalogWhat::Metadata(_) => Catalog::Metadata(BTreeMap::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Catalog::Strings(strings) => strings.len(),
            Catalog::Series(series) => series.len(),
            Catalog::Metadata(families) => families.len(),
        }
    }

    fn add(&mut self, what: &CatalogWhat, labels: Labels) {
        match (self, what) {
            (Catalog::Strings(names), CatalogWhat::LabelNames) => {
                names.extend(labels.iter().map(|(name, _)| name.to_owned()));
            }
            (Catalog::Strings(values), CatalogWhat::LabelValues(label)) => {
                let value = labels.get(label);
                if !value.is_empty() {
                    values.insert(value.to_owned());
                }
            }
            (Catalog::Series(series), _) => {
                series.insert(labels);
            }
            _ => {}
        }
    }
}

pub(crate) fn leaf(
    context: &LeafContext<'_>,
    selectors: &[Vec<Matcher>],
    (start_ms, end_ms): (i64, i64),
    what: &CatalogWhat,
) -> Result<Catalog, QueryError> {
    let selectors: Vec<Matchers> = selectors.iter().map(|m| Matchers::new(m)).collect::<Result<_, _>>()?;
    let taken =
        |labels: &Labels| selectors.is_empty() || selectors.iter().any(|matchers| matchers.take(labels));
    let mut catalog = Catalog::empty(what);
    let scope = scope(context, start_ms, end_ms);

    // Bounds and quantiles are in the points: those are read only where they matter.
    let by_points = match what {
        CatalogWhat::Series => true,
        CatalogWhat::LabelValues(label) => PART_LABELS.contains(&label.as_str()),
        _ => PART_LABELS.iter().any(|label| selectors.iter().any(|matchers| matchers.look_at(label))),
    };
    let names_only = selectors.is_empty() && *what == CatalogWhat::LabelValues(METRIC_NAME.to_owned());
    let mut add = |series: &Series| {
        if names_only {
            add_names(&mut catalog, series);
            return Ok(());
        }
        if let CatalogWhat::Metadata(only) = what {
            add_metadata(&mut catalog, series, only.as_deref());
            return Ok(());
        }
        if let Some(labels) = target_info_labels(&series.resource).filter(&taken) {
            catalog.add(what, labels);
        }
        let Some(names) = Names::of(&series.metric) else { return Ok(()) };
        if by_points && names.part_label().is_some() {
            return Ok(());
        }
        let base = series_labels(series);
        for labels in
            usual_parts(series.metric.kind).iter().map(|part| names.labels(&base, *part)).filter(&taken)
        {
            catalog.add(what, labels);
        }
        check_limit("series", catalog.len(), context.limits.series_max)
    };
    let mut reached = Ok(());
    // Each is added as it is found, and none is kept.
    context.scan.series(&scope, context.budget, &mut |series| {
        if reached.is_ok() {
            reached = add(series);
        }
        false
    })?;
    reached?;
    if by_points {
        add_by_points(context, &scope, &selectors, what, &mut catalog)?;
    }
    Ok(catalog)
}

/// Adds the series of histograms and summaries, by the bounds and quantiles of their points.
fn add_by_points(
    context: &LeafContext<'_>,
    scope: &ScanScope,
    selectors: &[Matchers],
    what: &CatalogWhat,
    catalog: &mut Catalog,
) -> Result<(), QueryError> {
    let taken = |labels: &Labels| taken(selectors, labels);
    let mut failed = None;
    context.scan.metrics(
        scope,
        context.budget,
        &mut |series| {
            let Some(names) = Names::of(&series.metric) else { return false };
            let named = |matchers: &Matchers| names.all().iter().any(|name| matchers.take_name(name));
            names.part_label().is_some() && (selectors.is_empty() || selectors.iter().any(named))
        },
        &mut |found| {
            let names = Names::of(&found.series.metric).expect("a selected series has a name");
            let mut parts = BTreeSet::new();
            for point in &found.points {
                parts_of(point, &mut |part, _| {
                    parts.insert(part);
                });
            }
            let base = series_labels(&found.series);
            for labels in parts.into_iter().map(|part| names.labels(&base, part)).filter(&taken) {
                catalog.add(what, labels);
            }
            failed = check_limit("series", catalog.len(), context.limits.series_max).err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    failed.map_or(Ok(()), Err)
}

/// Whether labels are asked for: without selectors all are.
fn taken(selectors: &[Matchers], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|matchers| matchers.take(labels))
}

/// One part of each name that a metric of this kind has; the value of a bound or quantile is arbitrary.
fn usual_parts(kind: MetricKind) -> &'static [Part] {
    const UPPER: Part = Part::Bucket { upper_bound: f64::INFINITY.to_bits() };
    const QUANTILE: Part = Part::Quantile { quantile: 0.5_f64.to_bits() };
    match kind {
        MetricKind::Gauge | MetricKind::Sum { .. } => &[Part::Value],
        MetricKind::Histogram { .. } => &[UPPER, Part::Count, Part::Sum],
        MetricKind::ExponentialHistogram { .. } => &[Part::Native, Part::Count, Part::Sum],
        MetricKind::Summary => &[QUANTILE, Part::Count, Part::Sum],
    }
}

/// The short way to what is asked most: all metric names.
fn add_names(catalog: &mut Catalog, series: &Series) {
    let Catalog::Strings(all) = catalog else { return };
    all.extend(Names::of(&series.metric).iter().flat_map(Names::all));
    if !all.contains(TARGET_INFO) && target_info_labels(&series.resource).is_some() {
        all.insert(TARGET_INFO.to_owned());
    }
}

fn add_metadata(catalog: &mut Catalog, series: &Series, only: Option<&str>) {
    let Catalog::Metadata(families) = catalog else { return };
    let mut add = |family: &str, entry: MetadataEntry| {
        if only.is_none_or(|only| only == family) {
            families.entry(family.to_owned()).or_default().insert(entry);
        }
    };
    if let Some(names) = Names::of(&series.metric) {
        add(&names.family, metadata_of(&series.metric));
    }
    if target_info_labels(&series.resource).is_some() {
        let kind = "info".to_owned();
        add(TARGET_INFO, MetadataEntry { kind, help: "Target metadata".to_owned(), unit: String::new() });
    }
}

fn metadata_of(metric: &Metric) -> MetadataEntry {
    let kind = match metric.kind {
        MetricKind::Sum { monotonic: true, .. } => "counter",
        MetricKind::Gauge | MetricKind::Sum { .. } => "gauge",
        MetricKind::Histogram { .. } | MetricKind::ExponentialHistogram { .. } => "histogram",
        MetricKind::Summary => "summary",
    };
    MetadataEntry {
        kind: kind.to_owned(),
        help: metric.description.to_string(),
        unit: metric.unit.to_string(),
    }
}

/// What all leaves found together.
///
/// Errors: [`QueryErrorKind::Limit`] for more series, and [`QueryErrorKind::Internal`] for replies to another
/// question.
pub fn merge_catalogs(
    replies: Vec<LeafReply>,
    what: &CatalogWhat,
    limits: &Limits,
) -> Result<Catalog, QueryError> {
    let mut all = Catalog::empty(what);
    for reply in replies {
        match (&mut all, reply) {
            (Catalog::Strings(all), LeafReply::Catalog(Catalog::Strings(more))) => all.extend(more),
            (Catalog::Series(all), LeafReply::Catalog(Catalog::Series(more))) => all.extend(more),
            (Catalog::Metadata(all), LeafReply::Catalog(Catalog::Metadata(more))) => {
                for (family, entries) in more {
                    all.entry(family).or_default().extend(entries);
                }
            }
            _ => return Err(QueryError::new(QueryErrorKind::Internal, "a leaf answered another question")),
        }
    }
    check_limit("series", all.len(), limits.series_max)?;
    if let (Catalog::Strings(names), CatalogWhat::LabelNames) = (&mut all, what) {
        // Every series has a name.
        if !names.is_empty() {
            names.insert(METRIC_NAME.to_owned());
        }
    }
    Ok(all)
}
