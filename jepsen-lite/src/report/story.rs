//! What a report keeps of a history while it streams by: bounded, however long the run was.

use std::collections::BTreeMap;

use super::biography::Life;
use super::buckets::Buckets;
use super::owners::Owners;
use crate::checker::ItemRef;
use crate::history::event::{Died, End, Event, FaultBegan, Outcome, Read, Sample, Start, Write};
use crate::workload::item::Signal;

/// Acknowledged writes that no complete read has shown yet, of each writer and signal; the oldest go first.
const UNSEEN_MAX: usize = 4096;
/// Faults that are kept.
const FAULTS_MAX: usize = 20_000;
/// Deeds of nodes that are kept, the oldest.
const DEEDS_MAX: usize = 100_000;
/// Parts of the names of counters whose growth can have to do with a lost item. Others grow with every sample.
const DEEDS: [&str; 10] =
    ["flush", "compact", "merge", "install", "replay", "read_back", "move", "left", "repair", "seal"];

/// A fault from begin to end.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) began: FaultBegan,
    /// None while it is in force.
    pub(super) ended_us: Option<u64>,
    pub(super) evidence: BTreeMap<String, u64>,
}

/// A counter of a node that grew between two samples: flushes, merges, segments copied, ...
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) at_us: u64,
    pub(super) node: String,
    pub(super) counter: String,
    pub(super) by: u64,
}

/// Sums over the whole run.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) writes: u64,
    pub(super) items: u64,
    pub(super) acknowledged: [u64; 3],
    pub(super) unknown: u64,
    pub(super) rejected: u64,
    /// Writes that were sent more than once before their outcome was known.
    pub(super) retried: u64,
    pub(super) reads: u64,
    pub(super) partial: u64,
    pub(super) counts: u64,
    pub(super) meta: u64,
    pub(super) probes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) start: Start,
    pub(super) end: Option<End>,
    pub(super) last_us: u64,
    pub(super) healing_us: Option<u64>,
    pub(super) totals: Totals,
    pub(super) buckets: Buckets,
    pub(super) faults: Vec<Fault>,
    pub(super) faults_left_out: u64,
    pub(super) died: Vec<Died>,
    pub(super) owners: Owners,
    pub(super) deeds: Vec<Deed>,
    /// What befell the items that the report tells of.
    pub(super) lives: BTreeMap<ItemRef, Life>,
    /// By signal and writer, first sequence of a write to the time of its acknowledgement.
    unseen: BTreeMap<(Signal, u32), BTreeMap<u64, u64>>,
    fault_places: BTreeMap<u32, usize>,
    /// By node: boot and counters of its last sample.
    counters: BTreeMap<String, (u32, BTreeMap<String, u64>)>,
}

impl Story {
    pub(super) fn new(items: impl IntoIterator<Item = ItemRef>) -> Self {
        let lives = items.into_iter().map(|item| (item, Life::default())).collect();
        Story { lives, ..Story::default() }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Start(start) => self.start = start.clone(),
            Event::Write(write) => self.write(write),
            Event::Read(read) => self.read(read),
            Event::Count(count) => {
                self.totals.counts += 1;
                self.answered(count.completed_us, count.partial);
            }
            Event::Meta(op) => {
                self.totals.meta += 1;
                self.seen_until(op.completed_us);
            }
            Event::Probe(probe) => {
                self.totals.probes += 1;
                self.seen_until(probe.completed_us);
            }
            Event::FaultBegan(began) => self.fault(began),
            Event::FaultEnded(ended) => {
                self.seen_until(ended.at_us);
                if let Some(place) = self.fault_places.get(&ended.id) {
                    self.faults[*place].ended_us = Some(ended.at_us);
                    self.faults[*place].evidence = ended.evidence.clone();
                }
            }
            Event::Sample(sample) => self.sample(sample),
            Event::Died(died) => {
                self.seen_until(died.at_us);
                if self.died.len() < FAULTS_MAX {
                    self.died.push(died.clone());
                }
            }
            Event::Healing(moment) => {
                self.seen_until(moment.at_us);
                self.healing_us = Some(moment.at_us);
            }
            Event::End(end) => {
                self.seen_until(end.at_us);
                self.end = Some(end.clone());
            }
        }
    }

    fn seen_until(&mut self, us: u64) {
        self.last_us = self.last_us.max(us);
    }

    fn write(&mut self, write: &Write) {
        self.seen_until(write.completed_us);
        let items = write.to.saturating_sub(write.from) + u64::from(write.echo.is_some());
        self.totals.writes += 1;
        self.totals.items += items;
        self.totals.retried += u64::from(write.attempts > 1);
        let bucket = self.buckets.at(write.completed_us);
        bucket.ambiguous += u64::from(write.ambiguous);
        match write.outcome {
            Outcome::Acknowledged => {
                bucket.acknowledged[write.signal as usize] += items;
                bucket.latency.add(write.completed_us.saturating_sub(write.invoked_us));
                self.totals.acknowledged[write.signal as usize] += items;
                let unseen = self.unseen.entry((write.signal, write.writer)).or_default();
                unseen.insert(write.from, write.completed_us);
                if unseen.len() > UNSEEN_MAX {
                    unseen.pop_first();
                }
            }
            Outcome::Unknown => {
                bucket.unknown += 1;
                self.totals.unknown += 1;
            }
            Outcome::Rejected => {
                bucket.rejected += 1;
                self.totals.rejected += 1;
            }
        }
        for (item, life) in &mut self.lives {
            life.write(*item, write);
        }
    }

    fn answered(&mut self, completed_us: u64, partial: bool) {
        self.seen_until(completed_us);
        let bucket = self.buckets.at(completed_us);
        match partial {
            true => bucket.partial += 1,
            false => bucket.complete += 1,
        }
    }

    fn read(&mut self, read: &Read) {
        self.totals.reads += 1;
        self.totals.partial += u64::from(read.partial);
        self.answered(read.completed_us, read.partial);
        if !read.partial {
            self.shown(read);
        }
        for (item, life) in &mut self.lives {
            life.read(*item, read);
        }
    }

    /// A write is visible when a complete read shows its first item; a read may have asked for a part of it only.
    fn shown(&mut self, read: &Read) {
        for (writer, ranges) in &read.seen {
            let Some(unseen) = self.unseen.get_mut(&(read.signal, *writer)) else { continue };
            for (from, to) in ranges {
                let shown: Vec<(u64, u64)> = unseen.range(from..to).map(|(at, us)| (*at, *us)).collect();
                for (first, acknowledged_us) in shown {
                    unseen.remove(&first);
                    let lag = read.completed_us.saturating_sub(acknowledged_us);
                    self.buckets.at(acknowledged_us).visible.add(lag);
                }
            }
        }
    }

    fn fault(&mut self, began: &FaultBegan) {
        self.seen_until(began.at_us);
        if self.faults.len() == FAULTS_MAX {
            self.faults_left_out += 1;
            return;
        }
        self.fault_places.insert(began.id, self.faults.len());
        self.faults.push(Fault { began: began.clone(), ended_us: None, evidence: BTreeMap::new() });
    }

    fn sample(&mut self, sample: &Sample) {
        self.seen_until(sample.at_us);
        self.owners.sample(sample);
        let before = self.counters.insert(sample.node.clone(), (sample.boot, sample.counters.clone()));
        // The first sample of a boot has no sample before it to compare with.
        let Some((boot, before)) = before else { return };
        if boot != sample.boot {
            return;
        }
        let told = |counter: &str| DEEDS.iter().any(|part| counter.contains(part));
        for (counter, now) in sample.counters.iter().filter(|(counter, _)| told(counter)) {
            let by = now.saturating_sub(before.get(counter).copied().unwrap_or(*now));
            if by > 0 && self.deeds.len() < DEEDS_MAX {
                let (node, counter) = (sample.node.clone(), counter.clone());
                self.deeds.push(Deed { at_us: sample.at_us, node, counter, by });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::item::Signal;

    fn write(from: u64, completed_us: u64) -> Event {
        Event::Write(Write { from, to: from + 10, completed_us, attempts: 1, ..Write::default() })
    }

    fn read(seen: (u64, u64), completed_us: u64, partial: bool) -> Event {
        let seen = [(0, vec![seen])].into();
        Event::Read(Read { completed_us, partial, seen, ..Read::default() })
    }

    #[test]
    fn a_write_is_visible_with_the_first_complete_read_that_shows_it() {
        let mut story = Story::new([]);
        for event in [
            write(0, 1_000),
            write(10, 2_000),
            read((0, 5), 3_000, true),
            read((0, 5), 4_000, false),
            read((0, 20), 9_000, false),
        ] {
            story.event(&event);
        }
        let whole = story.buckets.whole();
        assert_eq!((whole.visible.quantile(0.01), whole.visible.max()), (Some(3_071), Some(7_000)));
        assert_eq!((whole.complete, whole.partial), (2, 1));
        assert_eq!(story.totals.acknowledged[Signal::Metrics as usize], 20);
    }

    #[test]
    fn a_counter_that_starts_again_is_no_deed() {
        let mut story = Story::new([]);
        for (at_us, boot, flushes) in [(1, 1, 5), (2, 1, 7), (3, 2, 0), (4, 2, 1)] {
            let counters = [("flushes".to_owned(), flushes)].into();
            let node = "s1".to_owned();
            story.event(&Event::Sample(Sample { at_us, node, boot, counters, ..Sample::default() }));
        }
        let deeds: Vec<(u64, u64)> = story.deeds.iter().map(|deed| (deed.at_us, deed.by)).collect();
        assert_eq!(deeds, [(2, 2), (4, 1)]);
    }
}
