//! The same question answered in the plainest way: every order is tried. For small histories, to compare with.

use crate::history::event::{MetaCall, MetaOp, MetaOutcome};

/// Whether some order of the operations explains all answers.
pub(super) fn is_linearizable(history: &[MetaOp]) -> bool {
    let mut waiting: Vec<&MetaOp> = history.iter().collect();
    waiting.retain(|operation| operation.outcome != MetaOutcome::Failed);
    continues(&waiting, None)
}

/// Whether the operations can follow on a register with this value.
fn continues(waiting: &[&MetaOp], value: Option<u64>) -> bool {
    let known = |operation: &MetaOp| operation.outcome != MetaOutcome::Unknown;
    if !waiting.iter().any(|operation| known(operation)) {
        return true;
    }
    (0..waiting.len()).any(|chosen| {
        let operation = waiting[chosen];
        let is_late = waiting.iter().any(|other| known(other) && other.completed_us < operation.invoked_us);
        if is_late {
            return false;
        }
        let Some(after) = after(operation, value) else { return false };
        let mut rest = waiting.to_vec();
        rest.remove(chosen);
        continues(&rest, after)
    })
}

/// The register after the operation, or `None` where the answer does not fit.
fn after(operation: &MetaOp, value: Option<u64>) -> Option<Option<u64>> {
    let MetaCall::CompareAndSet { expect, to } = operation.call else {
        let fits = match operation.outcome {
            MetaOutcome::Value { value: seen, .. } => seen == value,
            MetaOutcome::Unknown => true,
            _ => false,
        };
        return fits.then_some(value);
    };
    let done = set(value, expect, to);
    let fits = match operation.outcome {
        MetaOutcome::Applied { .. } => done.is_ok(),
        MetaOutcome::Differs { actual, .. } => done == Err(actual),
        MetaOutcome::Unknown => true,
        _ => false,
    };
    fits.then_some(done.unwrap_or(value))
}

/// The compare-and-set of settings: the new value, or the one that it found.
pub(super) fn set(
    value: Option<u64>,
    expect: Option<u64>,
    to: Option<u64>,
) -> Result<Option<u64>, Option<u64>> {
    if value == to || value == expect { Ok(to) } else { Err(value) }
}
