//! P4 visible: a complete read shows everything that was acknowledged, or shown by a complete read, before it was
//! invoked; and a session never sees less than it has seen.
//!
//! Proves every breach in what was read: what nobody read in the meantime may have been invisible unnoticed, so the
//! time to visibility that is reported beside it is an upper bound. Partial answers may lack anything here; whether
//! they may be partial is P5's. What is lost for good is P1's. After Jepsen's `set-full` (an element is known from its
//! acknowledgement or its first sight on, and "stale" or "lost" when a later read lacks it); the session's order is
//! what Elle calls monotonic reads, with which writer sent what known beforehand.

use std::collections::BTreeMap;

use super::gaps::Gap;
use super::p1_durable::since;
use super::words::items;
use super::{Found, ItemRef, Promise, Scene};
use crate::history::ranges::Ranges;

/// Writers that a message names.
const WRITERS_MAX: usize = 4;

pub(crate) fn judge(gap: &Gap, scene: &Scene, found: &mut Found) {
    if !gap.again.is_empty() {
        let again = gap.again_by.as_ref().map(|read| read.words(&scene.start)).unwrap_or_default();
        let what = format!("{}; {again} shows them", words(gap, &gap.again, scene));
        found.add(Promise::P4, gap.read.completed_us, what, first(gap, &gap.again));
    }
    if !gap.missing.is_empty() {
        let what = format!("{}; no later read shows them", words(gap, &gap.missing, scene));
        found.add(Promise::P4, gap.read.completed_us, what, first(gap, &gap.missing));
    }
}

pub(crate) fn more(count: u64, found: &mut Found) {
    let what = format!("{count} more complete answers lack what was due");
    found.add(Promise::P4, 0, what, None);
}

pub(crate) fn words(gap: &Gap, which: &BTreeMap<u32, Ranges>, scene: &Scene) -> String {
    let signal = gap.read.signal;
    let mut named: Vec<String> = Vec::new();
    for (writer, ranges) in which.iter().take(WRITERS_MAX) {
        let since =
            scene.ledger.stocks.get(&(signal, *writer)).map(|stock| since(stock, ranges, &scene.start));
        named.push(format!("{}, {}", items(signal, *writer, ranges), since.unwrap_or_default()));
    }
    if which.len() > WRITERS_MAX {
        named.push(format!("and items of {} more writers", which.len() - WRITERS_MAX));
    }
    format!("{} says that it is complete and lacks {}", gap.read.words(&scene.start), named.join("; "))
}

pub(crate) fn first(gap: &Gap, which: &BTreeMap<u32, Ranges>) -> Option<ItemRef> {
    let (writer, ranges) = which.first_key_value()?;
    let (sequence, _) = ranges.iter().next()?;
    Some(ItemRef { signal: gap.read.signal, writer: *writer, sequence })
}
