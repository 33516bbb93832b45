//! P1 durable: valid items are not refused, and what was acknowledged is in the last reads.
//!
//! Proves the loss of every item that was acknowledged before a last complete read that covers it was invoked, and
//! that no last read shows. Where every last read is partial until the run's bound for healing is over, what none of
//! them shows is as good as lost. It cannot speak of items that no last read asked for: they are counted, and the run is
//! then unknown. An item that some answers lack and others show is hidden and not lost: P4 and P5 look for those. After
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
    /// The same of last reads that were partial when nothing should be partial any more.
    asked: Ranges,
    shown: Ranges,
}

#[derive(Default)]
pub(crate) struct Durable {
    /// When everything must have healed.
    healed_us: Option<u64>,
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

    pub(crate) fn healing(&mut self, at_us: u64, scene: &Scene) {
        self.healed_us = Some(at_us.saturating_add(scene.start.recover_us_max));
    }

    /// Before the ledger knows what the read shows.
    pub(crate) fn read(&mut self, read: &Read, ledger: &Ledger) {
        let is_over = self.healed_us.is_some_and(|healed_us| read.completed_us >= healed_us);
        if !read.last || read.partial && !is_over {
            return;
        }
        for writer in read.scope.writers.clone() {
            let key = (read.signal, writer);
            let Some(stock) = ledger.stocks.get(&key) else { continue };
            let last = self.last.entry(key).or_default();
            let (covered, shown) = match read.partial {
                true => (&mut last.asked, &mut last.shown),
                false => (&mut last.covered, &mut last.seen),
            };
            for (from, to) in asked(read) {
                due_to(read, stock, from, to).for_each(|(from, to, _)| covered.insert(from, to));
            }
            let seen = read.seen.get(&writer).map_or(&[][..], Vec::as_slice);
            seen.iter().for_each(|(from, to)| shown.insert(*from, *to));
        }
    }

    pub(crate) fn finish(self, scene: &Scene, at_us: u64, found: &mut Found) -> Lost {
        let mut result = Lost::default();
        let nothing = Last::default();
        for (key, stock) in &scene.ledger.stocks {
            let last = self.last.get(key).unwrap_or(&nothing);
            let uncovered = stock.acknowledged.subtract(&last.covered);
            result.uncovered += uncovered.count();
            let lost = stock.acknowledged.intersect(&last.covered).subtract(&last.seen);
            let hidden = uncovered.intersect(&last.asked).subtract(&last.shown);
            let (signal, writer) = *key;
            for (ranges, how) in [
                (lost, "are lost: {}, and in none of the last reads"),
                (
                    hidden,
                    "cannot be read any more: {}; all last reads of them failed or are partial, and none shows them",
                ),
            ] {
                let Some((first, _)) = ranges.iter().next() else { continue };
                let how = how.replace("{}", &since(stock, &ranges, &scene.start));
                let what = format!("{} {how}", items(signal, writer, &ranges));
                found.add(Promise::P1, at_us, what, Some(ItemRef { signal, writer, sequence: first }));
                result.items += ranges.count();
                let all: &mut Ranges = result.ranges.entry(*key).or_default();
                ranges.iter().for_each(|(from, to)| all.insert(from, to));
            }
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
