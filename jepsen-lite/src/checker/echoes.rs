//! Identical records that several requests carry: each request's is one, and all of them are kept (P3).
//!
//! An echo is there as often as requests that carry it were acknowledged, at least, and as often as requests were sent,
//! at most. Fewer that stay fewer is over-eager deduplication (P3), or a loss where none is left (P1); fewer that a
//! later read makes good was hidden (P4, and P5 where a fault was in force); a number that no request carried is a
//! phantom (P2). The number of an echo is a sequence, and it is in a read's scope where that sequence is.

use std::collections::BTreeMap;

use super::due::HORIZON_US;
use super::faults::AFTERMATH_US;
use super::words::ReadRef;
use super::{Found, ItemRef, Promise, Scene};
use crate::history::event::{Outcome, Read, Way, Write};
use crate::workload::item::Signal;

/// How often an echo was sent and acknowledged, in eight bits.
const TIMES_MAX: u64 = 15;

#[derive(Clone, Copy)]
struct Sent {
    invoked_us: u64,
    completed_us: u64,
    acknowledged: bool,
}

/// The echoes of one writer.
#[derive(Default)]
struct Book {
    young: BTreeMap<u64, Vec<Sent>>,
    /// Beyond the horizon, ascending: the number, how often acknowledged (4 bits), how often sent (4 bits).
    old: Vec<u64>,
}

struct Short {
    read: ReadRef,
    faults: Vec<usize>,
    due: u32,
    shown: u32,
    /// The most that a later complete read showed.
    since: Option<u32>,
}

struct High {
    read: ReadRef,
    writer: u32,
    number: u64,
    shown: u32,
    sent: u32,
}

#[derive(Default)]
pub(crate) struct Echoes {
    books: BTreeMap<u32, Book>,
    short: BTreeMap<(u32, u64), Short>,
    high: Vec<High>,
    told: std::collections::BTreeSet<(u32, u64)>,
}

impl Book {
    fn find(&self, number: u64) -> Result<usize, usize> {
        self.old.binary_search_by_key(&number, |packed| packed >> 8)
    }

    /// Of a number: how often due before `before_us`, and how often sent.
    fn times(&self, number: u64, before_us: u64) -> (u32, u32) {
        let (mut due, mut sent) = match self.find(number) {
            Ok(place) => ((self.old[place] >> 4 & 15) as u32, (self.old[place] & 15) as u32),
            Err(_) => (0, 0),
        };
        for one in self.young.get(&number).into_iter().flatten() {
            sent += 1;
            due += u32::from(one.acknowledged && one.completed_us < before_us);
        }
        (due, sent)
    }

    fn within(&self, from: u64, to: u64) -> Vec<u64> {
        let first = self.old.partition_point(|packed| packed >> 8 < from);
        let old = self.old[first..].iter().map(|packed| packed >> 8).take_while(|number| *number < to);
        let mut numbers: Vec<u64> =
            old.chain(self.young.range(from..to.max(from)).map(|(n, _)| *n)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Moves what lies beyond the horizon to where it takes eight bytes.
    fn settle(&mut self, now_us: u64) {
        while let Some(first) = self.young.first_entry()
            && first.get().iter().all(|sent| sent.completed_us + HORIZON_US < now_us)
        {
            let (number, all) = first.remove_entry();
            let (acknowledged, sent) =
                (all.iter().filter(|sent| sent.acknowledged).count() as u64, all.len() as u64);
            match self.find(number) {
                Ok(place) => {
                    let packed = self.old[place];
                    let acknowledged = (acknowledged + (packed >> 4 & 15)).min(TIMES_MAX);
                    self.old[place] = number << 8 | acknowledged << 4 | (sent + (packed & 15)).min(TIMES_MAX);
                }
                Err(place) => {
                    let packed = number << 8 | acknowledged.min(TIMES_MAX) << 4 | sent.min(TIMES_MAX);
                    self.old.insert(place, packed);
                }
            }
        }
    }
}

impl Echoes {
    pub(crate) fn write(&mut self, write: &Write) {
        let Some(number) = write.echo else { return };
        let book = self.books.entry(write.writer).or_default();
        let acknowledged = write.outcome == Outcome::Acknowledged;
        let sent = Sent { invoked_us: write.invoked_us, completed_us: write.completed_us, acknowledged };
        book.young.entry(number).or_default().push(sent);
        book.settle(write.completed_us);
        for high in &mut self.high {
            if (high.writer, high.number) == (write.writer, number)
                && sent.invoked_us <= high.read.completed_us
            {
                high.sent += 1;
            }
        }
        self.high.retain(|high| high.shown > high.sent);
    }

    pub(crate) fn read(&mut self, read: &Read, scene: &Scene, found: &mut Found) {
        if read.signal != Signal::Logs || read.way != Way::Search {
            return;
        }
        for (writer, echoes) in &read.echoes {
            let book = self.books.get(writer);
            for (number, shown) in echoes {
                let sent = book.map_or(0, |book| book.times(*number, 0).1);
                let known = self.high.iter().any(|high| (high.writer, high.number) == (*writer, *number));
                if *shown > sent && !known {
                    let (read, writer, number) = (ReadRef::of(read), *writer, *number);
                    self.high.push(High { read, writer, number, shown: *shown, sent });
                }
            }
        }
        if !read.partial {
            read.scope.writers.clone().for_each(|writer| self.due(writer, read, scene, found));
        }
    }

    fn due(&mut self, writer: u32, read: &Read, scene: &Scene, found: &mut Found) {
        let Some(book) = self.books.get(&writer) else { return };
        let shown: BTreeMap<u64, u32> = read.echoes.get(&writer).into_iter().flatten().copied().collect();
        for number in book.within(read.scope.from, read.scope.to) {
            let (due, _) = book.times(number, read.invoked_us);
            let there = shown.get(&number).copied().unwrap_or(0);
            let key = (writer, number);
            match self.short.get_mut(&key) {
                Some(short) if there >= short.due => {
                    hidden(key, short, read, scene, found);
                    self.short.remove(&key);
                    self.told.insert(key);
                }
                Some(short) => short.since = short.since.max(Some(there)),
                None if there < due && !self.told.contains(&key) => {
                    let faults = scene.faults.touching(read.invoked_us, read.completed_us, AFTERMATH_US);
                    let faults = faults.map(|(place, _)| place).collect();
                    let short = Short { read: ReadRef::of(read), faults, due, shown: there, since: None };
                    self.short.insert(key, short);
                }
                None => {}
            }
        }
    }

    pub(crate) fn suspects(&self) -> usize {
        self.short.len()
    }

    pub(crate) fn finish(self, whole: bool, scene: &Scene, found: &mut Found) {
        for ((writer, number), short) in self.short {
            let (due, read) = (short.due, short.read.words(&scene.start));
            let left = short.since.unwrap_or(short.shown).max(short.shown);
            let promise = if left == 0 { Promise::P1 } else { Promise::P3 };
            let what = format!(
                "the log record that {due} acknowledged requests of writer {writer} carry (echo {number}) is there \
                 {left} times since {read}"
            );
            found.add(promise, short.read.completed_us, what, Some(item(writer, number)));
        }
        for high in self.high.into_iter().filter(|_| whole) {
            let High { read, writer, number, shown, sent } = high;
            let words = read.words(&scene.start);
            let what = format!(
                "{words} shows the log record echo {number} of writer {writer} {shown} times; {sent} requests carry it"
            );
            let promise = if sent == 0 { Promise::P2 } else { Promise::P3 };
            found.add(promise, read.completed_us, what, Some(item(writer, number)));
        }
    }
}

fn item(writer: u32, sequence: u64) -> ItemRef {
    ItemRef { signal: Signal::Logs, writer, sequence }
}

fn hidden((writer, number): (u32, u64), short: &Short, again: &Read, scene: &Scene, found: &mut Found) {
    let what = format!(
        "{} says that it is complete and shows the log record echo {number} of writer {writer} {} times instead of {}, \
         {}; {} shows all again",
        short.read.words(&scene.start),
        short.shown,
        short.due,
        scene.faults.words(&short.faults),
        ReadRef::of(again).words(&scene.start)
    );
    let at_us = short.read.completed_us;
    if !short.faults.is_empty() {
        found.add(Promise::P5, at_us, what.clone(), Some(item(writer, number)));
    }
    found.add(Promise::P4, at_us, what, Some(item(writer, number)));
}
