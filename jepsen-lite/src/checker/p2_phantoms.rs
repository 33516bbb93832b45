//! P2 no phantoms: whatever a read shows was sent, as it was sent, before the read ended.
//!
//! Items verify themselves, so that altered bytes are no item at all, and clients report them as strange. Beyond that,
//! this proves that every item that is shown belongs to a write that had begun, and to what was asked. It cannot see
//! an altered field that neither the identity nor the digest of P7 covers. Writes are recorded when they end, so that
//! an item may be shown before its write stands in the history; it is judged when the write comes, or at the end.
//! After the "unexpected" elements of Jepsen's `set` checker.

use std::collections::BTreeMap;

use super::due::asked;
use super::words::{ReadRef, items};
use super::{Found, ItemRef, Promise, Scene};
use crate::history::event::{Read, Write};
use crate::history::ranges::{Ranges, lacking};
use crate::workload::item::Signal;

/// Ranges of a signal and writer that wait for their write at most; more are only counted.
const AHEAD_MAX: usize = 10_000;

/// Shown, and in no write that is recorded yet.
struct Ahead {
    ranges: Ranges,
    read: ReadRef,
    partial: bool,
}

#[derive(Default)]
pub(crate) struct Phantoms {
    ahead: BTreeMap<(Signal, u32), Vec<Ahead>>,
}

/// Items of a complete read whose write came to be recorded after it.
pub(crate) struct ShownAhead {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) at_us: u64,
    pub(crate) session: u32,
}

impl Phantoms {
    /// Before the ledger knows the write: which of its items complete reads have shown already.
    pub(crate) fn write(&mut self, write: &Write, scene: &Scene, found: &mut Found) -> Vec<ShownAhead> {
        let key = (write.signal, write.writer);
        let Some(waiting) = self.ahead.get_mut(&key) else { return Vec::new() };
        let mut shown = Vec::new();
        for ahead in waiting.iter_mut() {
            let inside: Vec<(u64, u64)> = ahead.ranges.within(write.from, write.to).collect();
            for (from, to) in inside {
                ahead.ranges.remove(from, to);
                if write.invoked_us > ahead.read.completed_us {
                    let early: Ranges = [(from, to)].into_iter().collect();
                    report(key, &early, &ahead.read, "which were sent only later", scene, found);
                } else if !ahead.partial {
                    let (at_us, session) = (ahead.read.completed_us, ahead.read.session);
                    shown.push(ShownAhead { from, to, at_us, session });
                }
            }
        }
        waiting.retain(|ahead| !ahead.ranges.is_empty());
        if waiting.is_empty() {
            self.ahead.remove(&key);
        }
        shown
    }

    pub(crate) fn read(&mut self, read: &Read, scene: &Scene, found: &mut Found) {
        if read.strange_count > 0 || !read.strange.is_empty() {
            let count = read.strange_count.max(read.strange.len() as u32);
            let what = format!(
                "{} shows {count} things that no client sent: {}",
                ReadRef::of(read).words(&scene.start),
                read.strange.join("; ")
            );
            found.add(Promise::P2, read.completed_us, what, None);
        }
        let asked: Ranges = asked(read).into_iter().collect();
        for (writer, seen) in &read.seen {
            let key = (read.signal, *writer);
            let seen: Ranges = seen.iter().copied().collect();
            let inside = read.scope.writers.contains(writer);
            let foreign = if inside { seen.subtract(&asked) } else { seen.clone() };
            if !foreign.is_empty() {
                report(key, &foreign, &ReadRef::of(read), "which it was not asked for", scene, found);
            }
            self.unknown(key, &seen, read, scene);
        }
    }

    fn unknown(&mut self, key: (Signal, u32), seen: &Ranges, read: &Read, scene: &Scene) {
        let mut unknown = Ranges::new();
        match scene.ledger.stocks.get(&key) {
            Some(stock) => {
                for (from, to) in seen.iter() {
                    let sent: Vec<(u64, u64)> = stock.sent.within(from, to).collect();
                    lacking(from, to, &sent, |from, to| unknown.insert(from, to));
                }
            }
            None => unknown = seen.clone(),
        }
        if unknown.is_empty() {
            return;
        }
        let waiting = self.ahead.entry(key).or_default();
        // The first read that shows an item is the hardest to explain; a complete one makes it due.
        for ahead in waiting.iter().filter(|ahead| !ahead.partial || read.partial) {
            unknown = unknown.subtract(&ahead.ranges);
        }
        if !unknown.is_empty() && waiting.len() < AHEAD_MAX {
            waiting.push(Ahead { ranges: unknown, read: ReadRef::of(read), partial: read.partial });
        }
    }

    /// Of a history that was cut off, writes that were under way are missing, so that nothing can be said.
    pub(crate) fn finish(self, whole: bool, scene: &Scene, found: &mut Found) {
        if !whole {
            return;
        }
        for (key, waiting) in self.ahead {
            let mut told = Ranges::new();
            for ahead in waiting {
                let never = ahead.ranges.subtract(&told);
                if !never.is_empty() {
                    report(key, &never, &ahead.read, "which nobody sent", scene, found);
                    told.extend(&never);
                }
            }
        }
    }
}

fn report(
    (signal, writer): (Signal, u32),
    ranges: &Ranges,
    read: &ReadRef,
    why: &str,
    scene: &Scene,
    found: &mut Found,
) {
    let what = format!("{} shows {}, {why}", read.words(&scene.start), items(signal, writer, ranges));
    let first = ranges.iter().next().map(|(sequence, _)| ItemRef { signal, writer, sequence });
    found.add(Promise::P2, read.completed_us, what, first);
}
