//! A cluster that keeps every promise, as a model: it makes the history of a run under faults from a seed.

use std::collections::BTreeMap;

use jepsen_lite::checker::Promise;
use jepsen_lite::coverage::{self, evidence_of};
use jepsen_lite::history::event::*;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::verdict::{Judge, Verdict};
use jepsen_lite::workload::item::{LANES, Signal, TRACE_SPANS, TRACE_STRIDE};

pub(crate) const S: u64 = 1_000_000;
pub(crate) const WRITERS: u32 = 3;
pub(crate) const CELL: u64 = 256;

/// Work until here; the meta group is without majority in the middle, and no fault is in force after that.
pub(crate) const HEALING_US: u64 = 60 * S;
pub(crate) const META_US: (u64, u64) = (31 * S, 43 * S);
/// A shard is seen moving here, with no fault near.
pub(crate) const MOVE_US: (u64, u64) = (50 * S, 58 * S);

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }
}

/// A write, and since when its items are there: never, where it had no effect.
struct Effect {
    write: Write,
    from_us: Option<u64>,
}

#[derive(Clone)]
pub(crate) struct History {
    pub start: Start,
    pub events: Vec<Event>,
}

/// The history of a run that kept every promise.
pub(crate) fn clean(seed: u64) -> History {
    let mut random = Random::new(seed);
    let effects = effects(&mut random);
    let faults = faults();
    let mut events: Vec<Event> = effects.iter().map(|effect| Event::Write(effect.write.clone())).collect();
    for session in 0..3 {
        let mut at_us = random.within(S / 10, S);
        while at_us < HEALING_US {
            let event = read(&mut random, session, at_us, &effects, &faults);
            at_us = event.at_us().unwrap() + random.within(0, S / 4);
            events.push(event);
        }
    }
    events.extend(last_reads(&effects));
    for (began, ended) in faults {
        events.push(Event::FaultBegan(began));
        events.push(Event::FaultEnded(ended));
    }
    events.extend(samples());
    events.extend(probes());
    events.push(Event::Healing(Moment { at_us: HEALING_US }));
    let coverage = [(coverage::REPLAYED_ROWS, 500), (coverage::LEADER_HIT, 2), (coverage::RESENT, 9)];
    let coverage = coverage.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    events.push(Event::End(End { at_us: 70 * S, failures: Vec::new(), coverage }));
    let nodes = [("front", vec!["front-1", "front-2"]), ("meta", vec!["meta-1", "meta-2", "meta-3"])];
    let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let start = Start {
        format: FORMAT,
        seed,
        driver: "model".into(),
        nodes: nodes.into_iter().map(|(role, names)| (role.to_owned(), named(names))).collect(),
        replication_factor: 3,
        faults: FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Store).collect(),
        recover_us_max: 2 * S,
        resident_bytes_max: 1 << 30,
        ..Start::default()
    };
    let mut history = History { start, events };
    history.sort();
    history
}

fn effects(random: &mut Random) -> Vec<Effect> {
    let mut effects = Vec::new();
    for (signal, writer) in Signal::ALL.into_iter().flat_map(|s| (0..WRITERS).map(move |w| (s, w))) {
        let (mut at_us, mut next, mut echo) = (random.within(1, S / 10), 0, None);
        while at_us < HEALING_US - S {
            let (from, to) = (next, next + random.within(1, 20));
            next = to;
            // Some are sent late, behind their successors.
            let late = if random.one_in(16) { random.within(0, 3 * S) } else { 0 };
            let invoked_us = at_us + late;
            let completed_us = invoked_us + random.within(500, S / 5);
            let outcome = if random.one_in(12) { Outcome::Unknown } else { Outcome::Acknowledged };
            let from_us = match outcome {
                Outcome::Acknowledged => Some(random.within(invoked_us, completed_us)),
                _ if random.one_in(2) => None,
                _ => Some(random.within(invoked_us, completed_us + 5 * S)),
            };
            let again = u32::from(random.one_in(8));
            let this = (signal == Signal::Logs).then(|| echo.take().unwrap_or_else(|| *echo.insert(from)));
            let write = Write {
                signal,
                writer,
                from,
                to,
                echo: this,
                invoked_us,
                completed_us,
                attempts: 1 + again,
                ambiguous: again,
                front: random.within(0, 2) as u32,
                outcome,
                ..Write::default()
            };
            effects.push(Effect { write, from_us });
            at_us += random.within(S / 20, S / 3);
        }
    }
    effects
}

/// Each kind once, one after the other; the loss of the meta majority by itself.
fn faults() -> Vec<(FaultBegan, FaultEnded)> {
    let kinds = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Store);
    let timed = kinds.enumerate().map(|(place, kind)| {
        let (began, ended) = match kind {
            FaultKind::Meta => META_US,
            _ => (5 * S + place as u64 * 2 * S, 5 * S + place as u64 * 2 * S + 3 * S / 2),
        };
        let id = place as u32;
        let (what, nodes) = (format!("{kind} of storage-1"), vec!["storage-1".to_owned()]);
        let evidence = [(evidence_of(kind)[0].to_owned(), 1000)].into();
        let began = FaultBegan { id, kind, what, nodes, at_us: began };
        (began, FaultEnded { id, at_us: ended, evidence })
    });
    timed.collect()
}

/// A read of something; partial now and then while a fault other than the loss of the meta majority is in force.
fn read(
    random: &mut Random,
    session: u32,
    invoked_us: u64,
    effects: &[Effect],
    faults: &[(FaultBegan, FaultEnded)],
) -> Event {
    let completed_us = invoked_us + random.within(1000, S / 10);
    let snapshot_us = random.within(invoked_us, completed_us);
    let signal = Signal::ALL[random.within(0, 3) as usize];
    let end = effects.iter().filter(|effect| effect.write.signal == signal);
    let end = end.filter(|effect| effect.write.invoked_us < invoked_us).map(|effect| effect.write.to);
    let end = end.max().unwrap_or(1);
    let cell = random.within(0, end.div_ceil(CELL)) * CELL;
    let one = random.within(0, WRITERS.into()) as u32;
    let writers = if random.one_in(3) { one..one + 1 } else { 0..WRITERS };
    let scope = Scope { writers, from: cell, to: cell + CELL };
    let front = random.within(0, 2) as u32;
    let struck = faults.iter().any(|(began, ended)| {
        began.kind != FaultKind::Meta && began.at_us < snapshot_us && snapshot_us < ended.at_us
    });
    let partial = struck && random.one_in(2);
    if random.one_in(5) && signal != Signal::Traces {
        let of = match signal {
            Signal::Logs => CountOf::Lines,
            _ if random.one_in(2) => CountOf::Histograms,
            _ => CountOf::Sums,
        };
        let total = total(of, &scope, snapshot_us, effects);
        let total = if partial { total / 2 } else { total };
        return Event::Count(Count { session, of, scope, invoked_us, completed_us, front, partial, total });
    }
    let mut read =
        Read { session, signal, scope, invoked_us, completed_us, front, partial, ..Read::default() };
    if signal == Signal::Traces && random.one_in(2) {
        let from = random.within(0, end) / (TRACE_STRIDE * TRACE_SPANS) * (TRACE_STRIDE * TRACE_SPANS);
        let from = from + random.within(0, TRACE_STRIDE);
        read.way = Way::TraceById;
        read.scope = Scope { writers: one..one + 1, from, to: from + (TRACE_SPANS - 1) * TRACE_STRIDE + 1 };
    }
    show(&mut read, snapshot_us, effects);
    Event::Read(read)
}

/// Fills in what a read sees at a moment. A partial one misses two lanes of eight.
fn show(read: &mut Read, at_us: u64, effects: &[Effect]) {
    let mut items: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut echoes: BTreeMap<u32, BTreeMap<u64, u32>> = BTreeMap::new();
    let scope = read.scope.clone();
    let asked = |sequence: u64| match read.way {
        Way::Search => true,
        Way::TraceById => (sequence - scope.from).is_multiple_of(TRACE_STRIDE),
    };
    let here = |sequence: u64| {
        (scope.from..scope.to).contains(&sequence)
            && !(read.partial && sequence % LANES < 2)
            && asked(sequence)
    };
    let there = effects.iter().filter(|effect| effect.from_us.is_some_and(|from_us| from_us <= at_us));
    for Effect { write, .. } in there {
        if write.signal != read.signal || !scope.writers.contains(&write.writer) {
            continue;
        }
        let sequences = (write.from..write.to).filter(|sequence| here(*sequence));
        items.entry(write.writer).or_default().extend(sequences);
        if let Some(echo) = write.echo.filter(|echo| here(*echo)) {
            *echoes.entry(write.writer).or_default().entry(echo).or_default() += 1;
        }
    }
    for (writer, mut sequences) in items {
        sequences.sort_unstable();
        read.seen.insert(writer, sequences.into_iter().map(|sequence| (sequence, sequence + 1)).collect());
    }
    read.echoes = echoes.into_iter().map(|(writer, echoes)| (writer, echoes.into_iter().collect())).collect();
    normalise(read);
}

/// Joins ranges that touch, and computes the digest anew.
pub(crate) fn normalise(read: &mut Read) {
    let mut digest: u64 = 1;
    for (writer, ranges) in &mut read.seen {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges.iter().copied() {
            for sequence in from..to {
                digest = digest.wrapping_add(Random::new(sequence << 8 | u64::from(*writer)).next());
            }
            match joined.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => joined.push((from, to)),
            }
        }
        *ranges = joined;
    }
    read.seen.retain(|_, ranges| !ranges.is_empty());
    for (writer, echoes) in &read.echoes {
        for (echo, count) in echoes {
            let one = Random::new(1 << 60 | echo << 8 | u64::from(*writer)).next();
            digest = digest.wrapping_add(one.wrapping_mul(u64::from(*count)));
        }
    }
    read.digest = digest;
}

fn total(of: CountOf, scope: &Scope, at_us: u64, effects: &[Effect]) -> u64 {
    let (signal, lanes) = match of {
        CountOf::Sums => (Signal::Metrics, 4..6),
        CountOf::Histograms => (Signal::Metrics, 6..8),
        CountOf::Lines => (Signal::Logs, 0..8),
    };
    let there = effects.iter().filter(|effect| effect.from_us.is_some_and(|from_us| from_us <= at_us));
    let there =
        there.filter(|effect| effect.write.signal == signal && scope.writers.contains(&effect.write.writer));
    let sequences = there.flat_map(|effect| effect.write.from..effect.write.to);
    let inside = sequences.filter(|sequence| (scope.from..scope.to).contains(sequence));
    inside.filter(|sequence| lanes.contains(&(sequence % LANES))).count() as u64
}

fn last_reads(effects: &[Effect]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at_us = HEALING_US + 5 * S;
    for signal in Signal::ALL {
        let end = effects.iter().filter(|effect| effect.write.signal == signal);
        let end = end.map(|effect| effect.write.to).max().unwrap();
        for from in (0..end).step_by(CELL as usize) {
            let scope = Scope { writers: 0..WRITERS, from, to: from + CELL };
            let (invoked_us, completed_us) = (at_us, at_us + 1000);
            let mut read =
                Read { session: 9, signal, scope, invoked_us, completed_us, last: true, ..Read::default() };
            show(&mut read, at_us, effects);
            events.push(Event::Read(read));
            at_us += 2000;
        }
    }
    events
}

fn samples() -> Vec<Event> {
    let sample = |second: u64, node: &str| {
        let set = |last: u64| vec!["storage-1".to_owned(), "storage-2".to_owned(), format!("storage-{last}")];
        let moving = (MOVE_US.0..MOVE_US.1).contains(&(second * S));
        let epoch = if second * S < MOVE_US.1 { 7 } else { 8 };
        let shard = ShardSample { epoch, set: set(epoch - 4), new: moving.then(|| set(4)) };
        let term = if second * S < META_US.1 { 2 } else { 3 };
        Event::Sample(Sample {
            at_us: second * S,
            node: node.to_owned(),
            boot: 1,
            shards: [(5, shard)].into(),
            seen_by: Some(format!("meta-{term}")),
            leader: Some(format!("meta-{term}")),
            term,
            resident_bytes: 500 << 20,
            ..Sample::default()
        })
    };
    (1..60).flat_map(|second| ["front-1", "meta-1", "storage-2"].map(|node| sample(second, node))).collect()
}

fn probes() -> Vec<Event> {
    let probe = |second: u64| {
        let (kind, expect) = if second.is_multiple_of(2) {
            ("truncated protobuf", vec![400])
        } else {
            ("overload", vec![200, 429])
        };
        let status = expect.last().copied();
        let (invoked_us, completed_us) = (second * S + 10, second * S + 1010);
        let kind = kind.to_owned();
        Event::Probe(Probe {
            kind,
            expect,
            status,
            explained: true,
            retry_after: true,
            front: 0,
            invoked_us,
            completed_us,
        })
    };
    (1..60).map(probe).collect()
}

impl History {
    pub(crate) fn sort(&mut self) {
        let place = |event: &Event| match event {
            Event::FaultBegan(_) => 0,
            Event::End(_) => 2,
            _ => 1,
        };
        self.events.sort_by_key(|event| (event.at_us(), place(event)));
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let mut judge = Judge::new(&self.start);
        self.events.iter().for_each(|event| judge.event(event));
        judge.finish()
    }

    /// Which promises are broken, each once.
    pub(crate) fn broken(&self) -> Vec<Promise> {
        let mut promises: Vec<Promise> =
            self.verdict().violations.iter().map(|found| found.promise).collect();
        promises.dedup();
        promises
    }

    pub(crate) fn writes(&mut self) -> impl Iterator<Item = &mut Write> {
        self.events.iter_mut().filter_map(|event| match event {
            Event::Write(write) => Some(write),
            _ => None,
        })
    }

    pub(crate) fn reads(&mut self) -> impl Iterator<Item = &mut Read> {
        self.events.iter_mut().filter_map(|event| match event {
            Event::Read(read) => Some(read),
            _ => None,
        })
    }

    pub(crate) fn counts(&mut self) -> impl Iterator<Item = &mut Count> {
        self.events.iter_mut().filter_map(|event| match event {
            Event::Count(count) => Some(count),
            _ => None,
        })
    }

    pub(crate) fn samples(&mut self) -> impl Iterator<Item = &mut Sample> {
        self.events.iter_mut().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample),
            _ => None,
        })
    }

    pub(crate) fn probes(&mut self) -> impl Iterator<Item = &mut Probe> {
        self.events.iter_mut().filter_map(|event| match event {
            Event::Probe(probe) => Some(probe),
            _ => None,
        })
    }
}

/// Takes an item out of what a read shows; whether it was there.
pub(crate) fn hide(read: &mut Read, writer: u32, sequence: u64) -> bool {
    let Some(ranges) = read.seen.get_mut(&writer) else { return false };
    let Some(place) = ranges.iter().position(|(from, to)| (*from..*to).contains(&sequence)) else {
        return false;
    };
    let (from, to) = ranges.remove(place);
    ranges.insert(place, (sequence + 1, to));
    ranges.insert(place, (from, sequence));
    ranges.retain(|(from, to)| from < to);
    normalise(read);
    true
}
