//! The leaves' series by label set, at the front.
//!
//! Several OpenTelemetry series can have the same Prometheus labels (other scopes, other resources without an
//! instance). Cumulative ones are merged by time, and of samples at one time one stays whatever the order of the
//! replies: a value before a stale marker, then the greatest.
//!
//! Increments (delta temporality) are added up: at one time those of all series, and over time from the first one
//! that the query reads, as if a counter had started there from zero. Where a point names a start that is later than
//! the point before, the sum so far also stands at that start, so that a lone increment has a slope. So `rate`,
//! `increase` and what else looks at differences are as for the cumulative counter of the same events, but for one
//! thing: where that counter would have been zero is not known, so the extrapolation to the start of a window stops
//! only at an increment of zero. The value itself counts from the start of what the query reads, and says nothing by
//! itself. Non-monotonic delta sums are handled alike.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::labels::Labels;
use super::leaf::check_limit;
use super::native::NativeHistogram;
use super::{Histograms, LeafReply, LeafSeries, is_stale};
use crate::{Limits, QueryError, QueryErrorKind};

/// One series with all its samples, in order of time, each time once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// The values are sums of increments only.
    pub(crate) delta: bool,
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
    /// As in [`LeafSeries`].
    pub(crate) histograms: Histograms,
}

/// What all leaves found: for each selector its series, by labels.
pub(crate) struct Merged {
    pub(crate) selected: Vec<Vec<Series>>,
    pub(crate) warnings: BTreeSet<String>,
}

/// Merges the replies to one request for `selectors` selectors.
pub(crate) fn merge(
    replies: Vec<LeafReply>,
    selectors: usize,
    limits: &Limits,
) -> Result<Merged, QueryError> {
    let mut grouped: Vec<BTreeMap<Labels, Vec<LeafSeries>>> = vec![BTreeMap::new(); selectors];
    let mut warnings = BTreeSet::new();
    let mut samples = 0_usize;
    for reply in replies {
        let LeafReply::Samples { selected, warnings: more } = reply else {
            return Err(QueryError::new(QueryErrorKind::Internal, "a leaf answered another question"));
        };
        if selected.len() != selectors {
            return Err(QueryError::new(QueryErrorKind::Internal, "a leaf answered for other selectors"));
        }
        warnings.extend(more);
        for (group, series) in grouped.iter_mut().zip(selected) {
            for one in series {
                samples += one.times.len();
                group.entry(one.labels.clone()).or_default().push(one);
            }
        }
        check_limit("samples", samples, limits.samples_max)?;
        check_limit("series", grouped.iter().map(BTreeMap::len).sum(), limits.series_max)?;
    }
    let selected = grouped
        .into_iter()
        .map(|group| group.into_iter().map(|(labels, parts)| merge_series(labels, parts)).collect())
        .collect();
    Ok(Merged { selected, warnings })
}

fn merge_series(labels: Labels, parts: Vec<LeafSeries>) -> Series {
    let delta = parts.iter().all(|part| part.delta);
    let (deltas, mut cumulative): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.delta);
    if !deltas.is_empty() {
        cumulative.push(accumulate(by_time(deltas)));
    }
    let LeafSeries { times, values, histograms, .. } = by_time(cumulative);
    Series { labels, delta, times, values, histograms }
}

/// One series of several of one temporality.
/// `parts` are not empty.
fn by_time(mut parts: Vec<LeafSeries>) -> LeafSeries {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut merged = LeafSeries {
        labels: parts[0].labels.clone(),
        delta: parts[0].delta,
        times: Vec::new(),
        values: Vec::new(),
        histograms: Vec::new(),
    };
    let native = parts.iter().any(|part| !part.histograms.is_empty());
    let mut samples: Vec<(i64, One)> = Vec::new();
    for part in parts {
        let histograms = part.histograms.into_iter().chain(std::iter::repeat(None));
        samples.extend(part.times.into_iter().zip(part.values.into_iter().zip(histograms)));
    }
    samples.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| preference(&a.1, &b.1)));
    for (time, (value, histogram)) in samples {
        match merged.values.last_mut() {
            Some(last) if merged.times.last() == Some(&time) => {
                let kept = merged.histograms.last_mut().and_then(Option::as_mut);
                if merged.delta && !is_stale(value) && !is_stale(*last) {
                    match (kept, histogram) {
                        (Some(kept), Some(more)) => {
                            Arc::make_mut(kept).add(&more, 1.0);
                            *last = kept.count;
                        }
                        (None, None) => *last += value,
                        _ => {}
                    }
                }
            }
            _ => {
                merged.times.push(time);
                merged.values.push(value);
                merged.histograms.extend(native.then_some(histogram));
            }
        }
    }
    merged
}

/// A value, and the histogram where it is one.
type One = (f64, Option<Arc<NativeHistogram>>);

/// Which of two values at one time comes first: values before stale markers, histograms before floats, greater before
/// smaller.
fn preference(a: &One, b: &One) -> Ordering {
    is_stale(a.0).cmp(&is_stale(b.0)).then_with(|| match (&a.1, &b.1) {
        (Some(a), Some(b)) => b.total_cmp(a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => b.0.total_cmp(&a.0),
    })
}

fn accumulate(mut series: LeafSeries) -> LeafSeries {
    let mut sum = 0.0;
    for value in series.values.iter_mut().filter(|value| !is_stale(**value)) {
        sum += *value;
        *value = sum;
    }
    let mut total: Option<NativeHistogram> = None;
    for histogram in series.histograms.iter_mut().flatten() {
        match &mut total {
            Some(total) => total.add(histogram, 1.0),
            None => total = Some((**histogram).clone()),
        }
        *histogram = Arc::new(total.clone().expect("it was set above"));
    }
    series.delta = false;
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::STALE;

    fn part(delta: bool, samples: &[(i64, f64)]) -> LeafSeries {
        LeafSeries {
            labels: Labels::default(),
            delta,
            times: samples.iter().map(|sample| sample.0).collect(),
            values: samples.iter().map(|sample| sample.1).collect(),
            histograms: Vec::new(),
        }
    }

    fn merged(parts: Vec<LeafSeries>) -> Vec<(i64, f64)> {
        let series = merge_series(Labels::default(), parts);
        series.times.into_iter().zip(series.values).collect()
    }

    #[test]
    fn the_order_of_replies_does_not_change_the_merge() {
        let stale = f64::from_bits(STALE);
        let one = part(false, &[(1, 1.0), (3, 3.0), (4, stale)]);
        let other = part(false, &[(1, 2.0), (2, 7.0), (4, 5.0)]);
        let expected = vec![(1, 2.0), (2, 7.0), (3, 3.0), (4, 5.0)];
        assert_eq!(merged(vec![one.clone(), other.clone()]), expected);
        assert_eq!(merged(vec![other, one]), expected);
    }

    #[test]
    fn increments_of_all_series_add_up() {
        let one = part(true, &[(1, 1.0), (2, 1.0)]);
        let other = part(true, &[(2, 5.0), (4, 1.0)]);
        assert_eq!(merged(vec![one, other]), vec![(1, 1.0), (2, 7.0), (4, 8.0)]);
    }
}
