//! Decides what can be decided of operations with an unknown outcome before the search, which would have to try them
//! at every moment until the end of the history.
//!
//! Two arguments, both independent of real time:
//!
//! - *Nobody looks for it.* A compare-and-set that may have set `t` is dropped where no known answer needs the
//!   register to hold `t`, and no other unknown one that stays expects it. Had it taken effect, the register would
//!   hold `t` and no known operation could come after it until some other operation expecting `t` took effect, and
//!   those are dropped too. So it is behind all known operations in any order, and any order is one without it.
//! - *Somebody saw it.* Where only one operation can have set `t`, and a known answer needs the register to have held
//!   `t`, then that operation took effect, and before the one that saw it ended. This decides the operation that set
//!   what it expected as well, and so on.
//!
//! Sessions write every value once, so that this decides every unknown compare-and-set that sets a value. Those that
//! make a register absent, and histories with repeated values, are left to the search.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::{Effect, Operation, effect};
use crate::history::event::MetaOp;

type Value = Option<u64>;

/// The register before its first operation.
pub(super) const INITIAL: Value = None;

pub(super) fn resolve(operations: &[MetaOp]) -> Vec<Operation> {
    let mut resolved: Vec<Operation> = Vec::with_capacity(operations.len());
    for (place, operation) in operations.iter().enumerate() {
        if let Some(effect) = effect(operation) {
            let known = !matches!(effect, Effect::MaySet { .. });
            let until_us = known.then_some(operation.completed_us);
            resolved.push(Operation { place, effect, invoked_us: operation.invoked_us, until_us });
        }
    }
    drop_unsought(&mut resolved);
    promote_seen(&mut resolved);
    resolved
}

fn drop_unsought(operations: &mut Vec<Operation>) {
    // By what they set, what those of unknown outcome expect.
    let mut may_set: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    let mut sought: BTreeSet<Value> = BTreeSet::new();
    for operation in operations.iter() {
        match operation.effect {
            Effect::Saw(value) => sought.extend([value]),
            Effect::Set { expect, to } => sought.extend([expect, to]),
            Effect::MaySet { expect, to } => may_set.entry(to).or_default().push(expect),
            Effect::Impossible => {}
        }
    }
    let mut next: Vec<Value> = sought.iter().copied().collect();
    while let Some(value) = next.pop() {
        for expect in may_set.get(&value).into_iter().flatten() {
            if sought.insert(*expect) {
                next.push(*expect);
            }
        }
    }
    operations.retain(|operation| match operation.effect {
        Effect::MaySet { to, .. } => sought.contains(&to),
        _ => true,
    });
}

fn promote_seen(operations: &mut [Operation]) {
    let mut setters: BTreeMap<Value, Vec<usize>> = BTreeMap::new();
    for (place, operation) in operations.iter().enumerate() {
        if let Effect::Set { to, .. } | Effect::MaySet { to, .. } = operation.effect {
            setters.entry(to).or_default().push(place);
        }
    }
    // The only operation that can have set a value.
    let only = |value: Value| match setters.get(&value).map(Vec::as_slice) {
        Some([place]) if value != INITIAL => Some(*place),
        _ => None,
    };
    // Values that the register held, and when at the latest; the earliest first, which decides.
    let mut held: BinaryHeap<Reverse<(u64, Value)>> = BinaryHeap::new();
    for (place, operation) in operations.iter().enumerate() {
        let until_us = operation.until_us.unwrap_or(u64::MAX);
        match operation.effect {
            Effect::Saw(value) => held.push(Reverse((until_us, value))),
            // Otherwise the register may have held `to` already, and `expect` never.
            Effect::Set { expect, to } if only(to) == Some(place) => held.push(Reverse((until_us, expect))),
            _ => {}
        }
    }
    while let Some(Reverse((until_us, value))) = held.pop() {
        let Some(operation) = only(value).map(|place| &mut operations[place]) else { continue };
        let Effect::MaySet { expect, to } = operation.effect else { continue };
        // One that was seen before it was invoked has no order; the search finds that at the one that saw it.
        let until_us = until_us.max(operation.invoked_us);
        operation.effect = Effect::Set { expect, to };
        operation.until_us = Some(until_us);
        held.push(Reverse((until_us, expect)));
    }
}
