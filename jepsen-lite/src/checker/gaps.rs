//! Complete answers that lack what they had to show, and what became of it: the common ground of P1, P4 and P5.
//!
//! What an answer lacks is one of three things, and only later reads tell which. Never seen again, and acknowledged,
//! and in none of the last reads: it is lost, which is P1's to say and nobody else's. Never seen again otherwise: P4.
//! Seen again: it was hidden. That is always a breach of P4, and of P5 too where the answer should have said that it
//! is partial: because a fault kept replicas out of reach, or because the items had been shown before and so were not
//! merely late. Every item is reported once a promise, with the first answer that lacks it.

use std::collections::BTreeMap;

use super::due::Ledger;
use super::faults::AFTERMATH_US;
use super::p1_durable::Lost;
use super::words::ReadRef;
use super::{Found, Scene, p4_visible, p5_complete};
use crate::history::event::Read;
use crate::history::ranges::Ranges;
use crate::workload::item::Signal;

/// Answers that are kept to see what becomes of what they lack.
const GAPS_MAX: usize = 2_000;

/// What one complete answer lacks.
pub(crate) struct Gap {
    pub(crate) read: ReadRef,
    /// Places of the faults in force.
    pub(crate) faults: Vec<usize>,
    /// Whether complete reads had shown it before.
    pub(crate) shown_before: bool,
    /// By writer, and not seen again yet.
    pub(crate) missing: BTreeMap<u32, Ranges>,
    /// Seen again, and first by which read.
    pub(crate) again: BTreeMap<u32, Ranges>,
    pub(crate) again_by: Option<ReadRef>,
}

impl Gap {
    /// Whether the answer should have said that it is partial.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.shown_before || !self.faults.is_empty()
    }
}

#[derive(Default)]
struct Told {
    /// Items that are in a gap already: those that are unsaid, and others.
    unsaid: Ranges,
    late: Ranges,
    /// Not seen again yet.
    open: Ranges,
}

#[derive(Default)]
pub(crate) struct Gaps {
    gaps: Vec<Gap>,
    told: BTreeMap<(Signal, u32), Told>,
    dropped: u64,
}

impl Gaps {
    /// Before the ledger knows what the read shows.
    pub(crate) fn read(&mut self, read: &Read, scene: &Scene) {
        self.again(read);
        if read.partial {
            return;
        }
        let lacks = scene.ledger.lacking(read);
        if lacks.is_empty() {
            return;
        }
        let faults = scene.faults.touching(read.invoked_us, read.completed_us, AFTERMATH_US);
        let faults: Vec<usize> = faults.map(|(place, _)| place).collect();
        for shown_before in [true, false] {
            self.add(read, &lacks, &faults, shown_before, &scene.ledger);
        }
    }

    fn add(
        &mut self,
        read: &Read,
        lacks: &BTreeMap<u32, Ranges>,
        faults: &[usize],
        shown_before: bool,
        ledger: &Ledger,
    ) {
        let mut gap = Gap {
            read: ReadRef::of(read),
            faults: faults.to_vec(),
            shown_before,
            missing: BTreeMap::new(),
            again: BTreeMap::new(),
            again_by: None,
        };
        for (writer, lacks) in lacks {
            let key = (read.signal, *writer);
            let Some(stock) = ledger.stocks.get(&key) else { continue };
            let of_kind =
                if shown_before { lacks.intersect(&stock.shown) } else { lacks.subtract(&stock.shown) };
            let told = self.told.entry(key).or_default();
            let before = if gap.is_unsaid() { &mut told.unsaid } else { &mut told.late };
            let new = of_kind.subtract(before);
            if new.is_empty() {
                continue;
            }
            before.extend(&new);
            told.open.extend(&new);
            gap.missing.insert(*writer, new);
        }
        if gap.missing.is_empty() {
            return;
        }
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        } else {
            self.dropped += 1;
        }
    }

    /// Any answer shows that what it has is there, also a partial one.
    fn again(&mut self, read: &Read) {
        if self.gaps.is_empty() {
            return;
        }
        for (writer, seen) in &read.seen {
            let Some(told) = self.told.get_mut(&(read.signal, *writer)) else { continue };
            let pieces = seen.iter().flat_map(|(from, to)| told.open.within(*from, *to));
            let back: Ranges = pieces.collect();
            if back.is_empty() {
                continue;
            }
            told.open = told.open.subtract(&back);
            for gap in self.gaps.iter_mut().filter(|gap| gap.read.signal == read.signal) {
                let Some(missing) = gap.missing.get_mut(writer) else { continue };
                let here = missing.intersect(&back);
                if !here.is_empty() {
                    *missing = missing.subtract(&here);
                    gap.again.entry(*writer).or_default().extend(&here);
                    gap.again_by.get_or_insert_with(|| ReadRef::of(read));
                }
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.gaps.len() + self.dropped as usize
    }

    /// The newest in words.
    pub(crate) fn newest(&self, scene: &Scene) -> Option<String> {
        self.gaps.last().map(|gap| p4_visible::words(gap, &gap.missing, scene))
    }

    pub(crate) fn finish(self, lost: &Lost, scene: &Scene, found: &mut Found) {
        for mut gap in self.gaps {
            for (writer, missing) in &mut gap.missing {
                if let Some(lost) = lost.ranges.get(&(gap.read.signal, *writer)) {
                    *missing = missing.subtract(lost);
                }
            }
            gap.missing.retain(|_, missing| !missing.is_empty());
            p4_visible::judge(&gap, scene, found);
            p5_complete::judge(&gap, scene, found);
        }
        if self.dropped > 0 {
            p4_visible::more(self.dropped, found);
        }
    }
}
