//! P1 durable: valid items are not refused, and what was acknowledged is in the last reads.
//!
//! Proves the loss of every item that was acknowledged before a last complete read that covers it was invoked, and
//! that no last read shows. It cannot speak of items that no last read covers: they are counted, and the run is then
//! unknown. An item that some answers lack and others show is hidden and not lost: P4 and P5 look for those. After
//! Jepsen's `set` checker, with several final reads instead of one, and ranges instead of elements.

use std::collections::BTreeMap;

use super::due::{By, Ledger, Stock, asked, due_to};
use super::words::{front, items, seconds};
use super::{Found, ItemRef, Promise, Scene};
use crate::history::event::{Outcome, Read, Start, Write};
use crate::history::ranges::Ranges;
use crate::workload::item::Signal;

/// Acknowledgements that a message names.
const NAMED_MAX: usize = 3;

#[derive(Default)]
struct Last {
    /// Due to a last read.
    covered: Ranges,
    seen: Ranges,
}

#[derive(Default)]
pub(crate) struct Durable {
    last: BTreeMap<(Signal, u32), Last>,
}

/// What the last reads come to.
#[derive(Default)]
pub(crate) struct Lost {
    pub(crate) ranges: BTreeMap<(Signal, u32), Ranges>,
    pub(crate) items: u64,
    /// Acknowledged items that no last read covers.
    pub(crate) uncovered: u64,
}

impl Durable {
    pub(crate) fn write(&mut self, write: &Write, scene: &Scene, found: &mut Found) {
        if write.outcome != Outcome::Rejected {
            return;
        }
        let ranges: Ranges = [(write.from, write.to)].into_iter().collect();
        let what = format!(
            "{} were refused at {} by {}, and they are valid: {}",
            items(write.signal, write.writer, &ranges),
            seconds(write.completed_us),
            front(&scene.start, write.front),
            write.why.as_deref().unwrap_or("no reason given")
        );
        let item = ItemRef { signal: write.signal, writer: write.writer, sequence: write.from };
        found.add(Promise::P1, write.completed_us, what, Some(item));
    }

    /// Before the ledger knows what the read shows.
    pub(crate) fn read(&mut self, read: &Read, ledger: &Ledger) {
        if !read.last || read.partial {
            return;
        }
        for writer in read.scope.writers.clone() {
            let key = (read.signal, writer);
            let Some(stock) = ledger.stocks.get(&key) else { continue };
            let last = self.last.entry(key).or_default();
            for (from, to) in asked(read) {
                due_to(read, stock, from, to).for_each(|(from, to, _)| last.covered.insert(from, to));
            }
            let seen = read.seen.get(&writer).map_or(&[][..], Vec::as_slice);
            seen.iter().for_each(|(from, to)| last.seen.insert(*from, *to));
        }
    }

    pub(crate) fn finish(self, scene: &Scene, at_us: u64, found: &mut Found) -> Lost {
        let mut result = Lost::default();
        let nothing = Last::default();
        for (key, stock) in &scene.ledger.stocks {
            let last = self.last.get(key).unwrap_or(&nothing);
            result.uncovered += stock.acknowledged.subtract(&last.covered).count();
            let lost = stock.acknowledged.intersect(&last.covered).subtract(&last.seen);
            let Some((first, _)) = lost.iter().next() else { continue };
            let (signal, writer) = *key;
            let what = format!(
                "{} are lost: {}, and in none of the last reads",
                items(signal, writer, &lost),
                since(stock, &lost, &scene.start)
            );
            found.add(Promise::P1, at_us, what, Some(ItemRef { signal, writer, sequence: first }));
            result.items += lost.count();
            result.ranges.insert(*key, lost);
        }
        result
    }
}

/// Since when items are due, and by what.
pub(crate) fn since(stock: &Stock, ranges: &Ranges, start: &Start) -> String {
    let spans = ranges.iter().flat_map(|(from, to)| stock.due.within(from, to));
    let mut named: Vec<String> = Vec::new();
    for (_, _, span) in spans {
        let at = seconds(span.at_us);
        let one = match span.by {
            By::Front(place) => format!("acknowledged at {at} by {}", front(start, place)),
            By::Shown(session) => format!("shown to session {session} at {at}"),
            By::Several => format!("acknowledged or shown until {at}"),
        };
        if !named.contains(&one) {
            if named.len() == NAMED_MAX {
                named.push("and so on".to_owned());
                break;
            }
            named.push(one);
        }
    }
    named.join(", ")
}
