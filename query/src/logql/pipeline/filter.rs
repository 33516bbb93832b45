//! Label filters: conditions on the labels of a row.

use super::super::ast::{CompareOp, LabelFilter, Quantity};
use super::super::matcher::CompiledMatcher;
use super::super::quantity;
use super::RowLabels;
use super::labels::ERROR;
use crate::QueryError;

/// A label filter with its expressions compiled.
pub(super) enum CompiledFilter {
    Matches(CompiledMatcher),
    Compare { name: String, op: CompareOp, value: Quantity },
    And(Vec<CompiledFilter>),
    Or(Vec<CompiledFilter>),
}

impl CompiledFilter {
    pub(super) fn new(filter: &LabelFilter) -> Result<Self, QueryError> {
        let all = |filters: &[LabelFilter]| filters.iter().map(CompiledFilter::new).collect::<Result<_, _>>();
        Ok(match filter {
            LabelFilter::Matches(matcher) => CompiledFilter::Matches(CompiledMatcher::new(matcher)?),
            LabelFilter::Compare { name, op, value } => {
                CompiledFilter::Compare { name: name.clone(), op: *op, value: *value }
            }
            LabelFilter::And(filters) => CompiledFilter::And(all(filters)?),
            LabelFilter::Or(filters) => CompiledFilter::Or(all(filters)?),
        })
    }

    /// Whether the row goes on. A value that cannot be read lets it pass with an error label, so that a metric
    /// query does not lose it silently.
    pub(super) fn takes(&self, labels: &mut RowLabels) -> bool {
        match self {
            CompiledFilter::Matches(matcher) => matcher.takes(labels.get(&matcher.name).unwrap_or("")),
            CompiledFilter::And(filters) => filters.iter().all(|filter| filter.takes(labels)),
            CompiledFilter::Or(filters) => filters.iter().any(|filter| filter.takes(labels)),
            CompiledFilter::Compare { name, op, value } => {
                if labels.get(ERROR).is_some() {
                    return true;
                }
                let Some(text) = labels.get(name) else { return false };
                match read(text, value) {
                    Some((found, wanted)) => compare(*op, found, wanted),
                    None => {
                        let details = format!("cannot read {text:?} of label {name} as a {}", kind(value));
                        labels.fail("LabelFilterErr", || details);
                        true
                    }
                }
            }
        }
    }
}

/// The label's value and the one that it is compared with.
fn read(text: &str, value: &Quantity) -> Option<(f64, f64)> {
    match value {
        Quantity::Number(wanted) => Some((text.parse().ok()?, *wanted)),
        Quantity::Duration(wanted) => Some((quantity::duration_seconds(text)?, *wanted)),
        Quantity::Bytes(wanted) => Some((quantity::bytes(text)?, *wanted)),
    }
}

fn kind(value: &Quantity) -> &'static str {
    match value {
        Quantity::Number(_) => "number",
        Quantity::Duration(_) => "duration",
        Quantity::Bytes(_) => "size in bytes",
    }
}

/// Whether `left op right` holds; never for NaN, except `!=`.
pub(in super::super) fn compare(op: CompareOp, left: f64, right: f64) -> bool {
    match op {
        CompareOp::Equal => left == right,
        CompareOp::NotEqual => left != right,
        CompareOp::Greater => left > right,
        CompareOp::GreaterOrEqual => left >= right,
        CompareOp::Less => left < right,
        CompareOp::LessOrEqual => left <= right,
    }
}
