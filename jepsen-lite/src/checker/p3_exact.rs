//! P3 exact counts: nothing is there twice, however often it was sent, and counts are counts.
//!
//! Proves that no read shows an item more than once, that identical records of different requests are each there
//! (see [`super::echoes`]), and that what the cluster counts lies between what was due before the count was invoked
//! and what had been sent when it ended, so that a duplicate that reads fold together still shows. A count is not
//! attributed to items: one that is too low may also be a loss, which P1 then names. Jepsen's own `set-full` does not
//! report duplicates; its `set` asks nothing of how often either.

use std::collections::{BTreeMap, VecDeque};

use super::due::HORIZON_US;
use super::words::{ReadRef, front, items, seconds};
use super::{Found, ItemRef, Promise, Scene};
use crate::history::event::{Count, CountOf, Read, Write};
use crate::history::ranges::{Ranges, lacking, lanes_within};
use crate::workload::item::Signal;

const SUM_LANES: &[u64] = &[4, 5];
const HISTOGRAM_LANES: &[u64] = &[6, 7];
const ALL_LANES: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7];

/// Signal and lanes of what is counted.
fn counted(of: CountOf) -> (Signal, &'static [u64]) {
    match of {
        CountOf::Sums => (Signal::Metrics, SUM_LANES),
        CountOf::Histograms => (Signal::Metrics, HISTOGRAM_LANES),
        CountOf::Lines => (Signal::Logs, ALL_LANES),
    }
}

/// A count above all writes that are recorded: writes that were under way may explain it.
struct High {
    count: Count,
    /// How many more than what was sent.
    excess: u64,
}

#[derive(Default)]
pub(crate) struct Exact {
    told: BTreeMap<(Signal, u32), Ranges>,
    high: VecDeque<High>,
}

impl Exact {
    /// Before the ledger knows the write.
    pub(crate) fn write(&mut self, write: &Write, scene: &Scene, found: &mut Found) {
        if self.high.is_empty() {
            return;
        }
        let sent = scene.ledger.stocks.get(&(write.signal, write.writer)).map(|stock| &stock.sent);
        for high in &mut self.high {
            let (signal, lanes) = counted(high.count.of);
            let scope = &high.count.scope;
            let early = write.invoked_us <= high.count.completed_us;
            if signal != write.signal || !early || !scope.writers.contains(&write.writer) {
                continue;
            }
            let (from, to) = (write.from.max(scope.from), write.to.min(scope.to));
            let known: Vec<(u64, u64)> = sent.map(|sent| sent.within(from, to).collect()).unwrap_or_default();
            let mut new = 0;
            lacking(from, to.max(from), &known, |from, to| new += lanes_within(lanes, from, to));
            high.excess = high.excess.saturating_sub(new);
        }
        self.high.retain(|high| high.excess > 0);
        while let Some(high) = self.high.front()
            && high.count.completed_us + HORIZON_US < write.completed_us
        {
            too_many(high, scene, found);
            self.high.pop_front();
        }
    }

    pub(crate) fn read(&mut self, read: &Read, scene: &Scene, found: &mut Found) {
        let mut twice: BTreeMap<u32, (Ranges, u32)> = BTreeMap::new();
        for (writer, sequence, times) in read.repeated.iter().filter(|(_, _, times)| *times > 1) {
            let told = self.told.entry((read.signal, *writer)).or_default();
            if !told.contains(*sequence) {
                told.insert(*sequence, sequence + 1);
                let (ranges, most) = twice.entry(*writer).or_default();
                ranges.insert(*sequence, sequence + 1);
                *most = (*most).max(*times);
            }
        }
        for (writer, (ranges, most)) in twice {
            let read_words = ReadRef::of(read).words(&scene.start);
            let named = items(read.signal, writer, &ranges);
            let what = format!("{read_words} shows {named} more than once, up to {most} times");
            let first = ranges.iter().next();
            let item = first.map(|(sequence, _)| ItemRef { signal: read.signal, writer, sequence });
            found.add(Promise::P3, read.completed_us, what, item);
        }
    }

    pub(crate) fn count(&mut self, count: &Count, scene: &Scene, found: &mut Found) {
        let (signal, lanes) = counted(count.of);
        let scope = &count.scope;
        let (mut least, mut most) = (0, 0);
        if scope.writers.start < scope.writers.end {
            let writers = (signal, scope.writers.start)..(signal, scope.writers.end);
            for stock in scene.ledger.stocks.range(writers).map(|(_, stock)| stock) {
                most += stock.sent.count_lanes(lanes, scope.from, scope.to);
                let due = stock.due.within(scope.from, scope.to);
                let due = due.filter(|(_, _, span)| span.at_us < count.invoked_us);
                least += due.map(|(from, to, _)| lanes_within(lanes, from, to)).sum::<u64>();
            }
        }
        if count.total > most {
            self.high.push_back(High { count: count.clone(), excess: count.total - most });
        }
        if count.total < least && !count.partial {
            let what = format!("{}; at least {least} were due", words(count, scene));
            found.add(Promise::P3, count.completed_us, what, None);
        }
    }

    pub(crate) fn finish(self, whole: bool, scene: &Scene, found: &mut Found) {
        if whole {
            self.high.iter().for_each(|high| too_many(high, scene, found));
        }
    }
}

fn too_many(high: &High, scene: &Scene, found: &mut Found) {
    let count = &high.count;
    let what = format!("{}; that is {} more than were sent", words(count, scene), high.excess);
    found.add(Promise::P3, count.completed_us, what, None);
}

fn words(count: &Count, scene: &Scene) -> String {
    let of = match count.of {
        CountOf::Sums => "delta sums",
        CountOf::Histograms => "histograms",
        CountOf::Lines => "log lines",
    };
    let scope = &count.scope;
    format!(
        "the count of {of} of writers {}..{} and sequences {}..{} by {} from {} to {} is {}",
        scope.writers.start,
        scope.writers.end,
        scope.from,
        scope.to,
        front(&scene.start, count.front),
        seconds(count.invoked_us),
        seconds(count.completed_us),
        count.total
    )
}
