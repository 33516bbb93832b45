//! Vector aggregations: `sum`, `avg`, `min`, `max`, `count`, `topk`, `bottomk`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::ast::{Grouping, VectorOp};
use super::super::view::Labels;
use super::Values;

/// Reduces series to one a group and step; `topk` and `bottomk` keep theirs as they are, and sorting is for who
/// shows the result.
pub(super) fn aggregate(
    op: VectorOp,
    parameter: Option<f64>,
    grouping: &Grouping,
    series: BTreeMap<Labels, Values>,
) -> BTreeMap<Labels, Values> {
    if let VectorOp::Sort | VectorOp::SortDesc = op {
        return series;
    }
    if let VectorOp::TopK | VectorOp::BottomK = op {
        let k = parameter.map_or(0, |k| k as usize);
        return select(op == VectorOp::TopK, k, grouping, series);
    }
    let mut groups: BTreeMap<Labels, BTreeMap<u32, (f64, u64)>> = BTreeMap::new();
    for (labels, values) in series {
        let group = groups.entry(group_of(&labels, grouping)).or_default();
        for (step, value) in values {
            let state = group.entry(step);
            state
                .and_modify(|(so_far, count)| {
                    *so_far = combine(op, *so_far, value);
                    *count += 1;
                })
                .or_insert((value, 1));
        }
    }
    let finish = |(value, count): (f64, u64)| match op {
        VectorOp::Count => count as f64,
        VectorOp::Avg => value / count as f64,
        _ => value,
    };
    let finish_all =
        |steps: BTreeMap<u32, _>| steps.into_iter().map(|(step, state)| (step, finish(state))).collect();
    groups.into_iter().map(|(labels, steps)| (labels, finish_all(steps))).collect()
}

fn combine(op: VectorOp, so_far: f64, value: f64) -> f64 {
    match op {
        // These two pass over NaN, as Prometheus' do.
        VectorOp::Min => so_far.min(value),
        VectorOp::Max => so_far.max(value),
        _ => so_far + value,
    }
}

/// The labels of the group that a series belongs to.
fn group_of(labels: &Labels, grouping: &Grouping) -> Labels {
    let named = |name: &String| grouping.labels.binary_search(name).is_ok();
    let kept = labels.iter().filter(|(name, _)| named(name) != grouping.without);
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The `k` greatest or least of every group and step; among equal values the first by labels.
fn select(
    greatest: bool,
    k: usize,
    grouping: &Grouping,
    series: BTreeMap<Labels, Values>,
) -> BTreeMap<Labels, Values> {
    let series: Vec<_> = series.into_iter().collect();
    let mut places: BTreeMap<Labels, Vec<usize>> = BTreeMap::new();
    for (place, (labels, _)) in series.iter().enumerate() {
        places.entry(group_of(labels, grouping)).or_default().push(place);
    }
    let mut kept: Vec<Values> = vec![Values::new(); series.len()];
    for places in places.into_values() {
        let mut steps: BTreeMap<u32, Vec<(f64, usize)>> = BTreeMap::new();
        for place in places {
            for (step, value) in &series[place].1 {
                steps.entry(*step).or_default().push((*value, place));
            }
        }
        for (step, mut values) in steps {
            values.sort_by(|a, b| rank(greatest, a.0, b.0).then(a.1.cmp(&b.1)));
            for (value, place) in values.into_iter().take(k) {
                kept[place].push((step, value));
            }
        }
    }
    let labels = series.into_iter().map(|(labels, _)| labels);
    labels.zip(kept).filter(|(_, values)| !values.is_empty()).collect()
}

/// NaN comes last either way.
fn rank(greatest: bool, a: f64, b: f64) -> Ordering {
    let order = if greatest { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
    order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
