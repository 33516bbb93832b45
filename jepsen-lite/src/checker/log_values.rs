//! What operations on one register saw, against the log indexes that they returned: a value is there from the index at
//! which it was set until the index of the next change. Nothing is searched for, so that it tells more plainly than a
//! missing order does what went wrong; it knows only values that one operation can have set, and that one for sure.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::linearizable::describe;
use crate::history::event::{MetaCall, MetaOp, MetaOutcome};

/// The first operation that saw what the log does not have at its index: when it ended, and what is wrong.
pub fn check(operations: &[MetaOp]) -> Option<(u64, String)> {
    let mut changes: BTreeMap<u64, &MetaOp> = BTreeMap::new();
    // By value, the index at which it was set; `None` where that is not known.
    let mut set_at: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for operation in operations {
        let MetaCall::CompareAndSet { to, .. } = operation.call else { continue };
        let index = match operation.outcome {
            MetaOutcome::Applied { index } => Some(index),
            MetaOutcome::Unknown => None,
            _ => continue,
        };
        if let Some(index) = index {
            changes.insert(index, operation);
        }
        if let Some(value) = to {
            set_at.entry(value).and_modify(|known| *known = None).or_insert(index);
        }
    }
    operations.iter().find_map(|operation| {
        // What it saw, and the last index that it can have seen.
        let (value, last) = match (operation.call, operation.outcome) {
            (_, MetaOutcome::Value { value: Some(value), index }) => (value, index),
            (_, MetaOutcome::Differs { actual: Some(value), index }) => (value, index.checked_sub(1)?),
            // One whose `to` was there already was applied too, and saw nothing of what it expected.
            (
                MetaCall::CompareAndSet { expect: Some(value), to: Some(to) },
                MetaOutcome::Applied { index },
            ) if set_at.get(&to) == Some(&Some(index)) => (value, index.checked_sub(1)?),
            _ => return None,
        };
        let set = (*set_at.get(&value)?)?;
        let wrong = if set > last {
            format!("{} saw {value}, which was set later, at log index {set}", describe(operation))
        } else {
            let (_, next) = changes.range((Bound::Excluded(set), Bound::Included(last))).next()?;
            format!("{} saw {value}, which was gone: {}", describe(operation), describe(next))
        };
        Some((operation.completed_us, wrong))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(call: MetaCall, outcome: MetaOutcome) -> MetaOp {
        // All at once: real time says nothing here.
        MetaOp { session: 0, key: 0, call, outcome, invoked_us: 0, completed_us: 1 }
    }

    fn cas(expect: Option<u64>, to: u64, outcome: MetaOutcome) -> MetaOp {
        operation(MetaCall::CompareAndSet { expect, to: Some(to) }, outcome)
    }

    fn get(value: u64, index: u64) -> MetaOp {
        operation(MetaCall::Get, MetaOutcome::Value { value: Some(value), index })
    }

    fn history(last: MetaOp) -> Vec<MetaOp> {
        let applied = |index| MetaOutcome::Applied { index };
        vec![
            cas(None, 1, applied(10)),
            cas(Some(1), 2, applied(20)),
            cas(Some(2), 3, MetaOutcome::Unknown),
            cas(Some(3), 4, applied(40)),
            last,
        ]
    }

    #[test]
    fn what_the_log_has_at_an_index_may_be_seen_there() {
        let differs = |actual, index| cas(None, 9, MetaOutcome::Differs { actual: Some(actual), index });
        let fits = [get(1, 10), get(1, 19), get(2, 20), get(2, 39), get(3, 30), get(4, 41), differs(1, 20)];
        for last in fits {
            assert_eq!(check(&history(last.clone())), None, "{last:?}");
        }
    }

    #[test]
    fn what_was_absent_already_can_be_removed_by_all_who_ask() {
        let remove = |index| {
            let call = MetaCall::CompareAndSet { expect: Some(1), to: None };
            operation(call, MetaOutcome::Applied { index })
        };
        let set = cas(None, 1, MetaOutcome::Applied { index: 10 });
        assert_eq!(check(&[set, remove(20), remove(21)]), None);
    }

    #[test]
    fn what_was_set_later_or_is_gone_is_found_though_all_overlap() {
        let differs = |actual, index| cas(None, 9, MetaOutcome::Differs { actual: Some(actual), index });
        let wrong = [get(1, 9), get(1, 20), get(2, 40), get(4, 39), differs(2, 20), differs(1, 21)];
        for last in wrong {
            assert!(check(&history(last.clone())).is_some(), "{last:?}");
        }
        let again = cas(Some(1), 9, MetaOutcome::Applied { index: 30 });
        let (_, what) = check(&history(again)).expect("1 was gone at 20");
        assert!(what.contains("was gone: a compare-and-set from 1 to 2"), "{what}");
    }
}
