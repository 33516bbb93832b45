//! Exemplars, on the series that Prometheus would store them with: a sum's or gauge's own, and of a histogram the
//! bucket that the exemplar's value falls in.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use oteld_store::model::{Exemplar, Point, PointValue};
use serde::{Deserialize, Serialize};

use super::LeafReply;
use super::labels::{Labels, Matcher, Matchers};
use super::leaf::{check_limit, scope};
use super::samples::{Names, Part, millis};
use super::translate::{label_name, series_labels};
use crate::text::value_text;
use crate::{LeafContext, Limits, QueryError, QueryErrorKind};

/// Filtered attributes are left out where all labels together would have more characters than this (OpenMetrics).
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

/// Exemplars of one series, by time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExemplarSeries {
    pub labels: Labels,
    pub exemplars: Vec<PromExemplar>,
}

/// A measurement with what it is linked to: `trace_id` and `span_id` in hex, and filtered attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromExemplar {
    pub labels: Labels,
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
}

pub(crate) fn leaf(
    context: &LeafContext<'_>,
    selectors: &[Vec<Matcher>],
    (start_ms, end_ms): (i64, i64),
) -> Result<Vec<ExemplarSeries>, QueryError> {
    let selectors: Vec<Matchers> = selectors.iter().map(|m| Matchers::new(m)).collect::<Result<_, _>>()?;
    let mut all: BTreeMap<Labels, Vec<PromExemplar>> = BTreeMap::new();
    let mut count = 0;
    let mut failed = None;
    context.scan.metrics(
        &scope(context, start_ms, end_ms),
        context.budget,
        &mut |series| {
            let Some(names) = Names::of(&series.metric) else { return false };
            selectors.iter().any(|matchers| names.all().iter().any(|name| matchers.take_name(name)))
        },
        &mut |found| {
            let names = Names::of(&found.series.metric).expect("a selected series has a name");
            let base = series_labels(&found.series);
            for point in &found.points {
                for exemplar in &point.exemplars {
                    let Some(value) = number(&exemplar.value) else { continue };
                    let labels = names.labels(&base, part_of(point, value));
                    let time_ms = millis(exemplar.time_unix_nano);
                    let in_time = time_ms > start_ms && time_ms <= end_ms;
                    if in_time && selectors.iter().any(|matchers| matchers.take(&labels)) {
                        let exemplar = PromExemplar { labels: exemplar_labels(exemplar), value, time_ms };
                        all.entry(labels).or_default().push(exemplar);
                        count += 1;
                    }
                }
            }
            failed = check_limit("exemplars", count, context.limits.samples_max).err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => Ok(in_order(all)),
    }
}

fn number(value: &PointValue) -> Option<f64> {
    match value {
        PointValue::Int(value) => Some(*value as f64),
        PointValue::Double(value) => Some(*value),
        _ => None,
    }
}

fn part_of(point: &Point, value: f64) -> Part {
    match &point.value {
        PointValue::Histogram(histogram) => {
            let bound = histogram.explicit_bounds.iter().copied().find(|bound| value <= *bound);
            Part::Bucket { upper_bound: bound.unwrap_or(f64::INFINITY).to_bits() }
        }
        PointValue::ExponentialHistogram(_) => Part::Native,
        PointValue::Summary(_) => Part::Count,
        PointValue::None | PointValue::Int(_) | PointValue::Double(_) => Part::Value,
    }
}

fn exemplar_labels(exemplar: &Exemplar) -> Labels {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut labels = Vec::new();
    if exemplar.trace_id != [0; 16] {
        labels.push(("trace_id".to_owned(), hex(&exemplar.trace_id)));
    }
    if exemplar.span_id != [0; 8] {
        labels.push(("span_id".to_owned(), hex(&exemplar.span_id)));
    }
    let filtered: Vec<(String, String)> = exemplar
        .filtered_attributes
        .iter()
        .filter_map(|(key, value)| Some((label_name(key)?, value_text(value).into_owned())))
        .collect();
    let characters = |labels: &[(String, String)]| {
        labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum::<usize>()
    };
    if characters(&labels) + characters(&filtered) <= EXEMPLAR_CHARACTERS_MAX {
        labels.extend(filtered);
    }
    labels.into_iter().collect()
}

fn in_order(all: BTreeMap<Labels, Vec<PromExemplar>>) -> Vec<ExemplarSeries> {
    let sorted = all.into_iter().map(|(labels, mut exemplars)| {
        exemplars.sort_by(|a, b| {
            a.time_ms
                .cmp(&b.time_ms)
                .then_with(|| a.labels.cmp(&b.labels))
                .then_with(|| a.value.total_cmp(&b.value))
        });
        // Cumulative points repeat an exemplar until there is a newer one.
        exemplars.dedup();
        ExemplarSeries { labels, exemplars }
    });
    sorted.collect()
}

/// What all leaves found together. Errors as of [`super::merge_catalogs`].
pub fn merge_exemplars(replies: Vec<LeafReply>, limits: &Limits) -> Result<Vec<ExemplarSeries>, QueryError> {
    let mut all: BTreeMap<Labels, Vec<PromExemplar>> = BTreeMap::new();
    let mut count = 0;
    for reply in replies {
        let LeafReply::Exemplars(found) = reply else {
            return Err(QueryError::new(QueryErrorKind::Internal, "a leaf answered another question"));
        };
        for series in found {
            count += series.exemplars.len();
            all.entry(series.labels).or_default().extend(series.exemplars);
        }
    }
    check_limit("exemplars", count, limits.samples_max)?;
    Ok(in_order(all))
}
