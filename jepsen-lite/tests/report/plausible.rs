//! Histories as a run might have made them, from a seed: a cluster under faults and moves, with what it broke.

use std::collections::BTreeMap;

use jepsen_lite::checker::{ItemRef, Promise, Violation};
use jepsen_lite::history::event::{
    Died, End, Event, FaultBegan, FaultEnded, Moment, Outcome, Read, Sample, Scope, ShardSample, Start, Write,
};
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::verdict::{CoverageLine, Judgement, Summary, Verdict};
use jepsen_lite::workload::item::Signal;

pub(crate) const SECOND: u64 = 1_000_000;
const WRITERS: u32 = 4;
/// Items of a write.
const ITEMS: u64 = 40;

/// What is lost in a plausible run: shown once, and then no more.
pub(crate) const LOST: ItemRef = ItemRef { signal: Signal::Logs, writer: 2, sequence: 5_613 };
/// What is shown twice.
pub(crate) const DOUBLED: ItemRef = ItemRef { signal: Signal::Metrics, writer: 1, sequence: 8_120 };

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub seed: u64,
    pub seconds: u64,
    /// Between two writes of a writer and a signal.
    pub write_every_ms: u64,
    pub fault_every_s: u64,
    pub move_every_s: u64,
    pub shards: u32,
}

pub(crate) const TEN_MINUTES: Shape =
    Shape { seed: 7, seconds: 600, write_every_ms: 1_000, fault_every_s: 22, move_every_s: 31, shards: 64 };

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn storage(place: u64) -> String {
    format!("storage-{}", place + 1)
}

pub(crate) fn start(shape: Shape) -> Start {
    let names = |role: &str, count| (1..=count).map(|n| format!("{role}-{n}")).collect::<Vec<_>>();
    Start {
        format: 1,
        seed: shape.seed,
        driver: "local".into(),
        command: format!(
            "jepsen-lite run --driver local --nodes 5 --rf 3 --time {}s --rate 20k --seed {}",
            shape.seconds, shape.seed
        ),
        tested: "oteld 0.9.0, debug build".into(),
        nodes: [("front", 2), ("meta", 3), ("storage", 5)]
            .map(|(role, count)| (role.to_owned(), names(role, count)))
            .into(),
        replication_factor: 3,
        faults: FaultKind::ALL[..7].to_vec(),
        recover_us_max: 30 * SECOND,
        ..Start::default()
    }
}

/// Faults as (begin, end, kind).
fn schedule(shape: Shape, random: &mut Random) -> Vec<(u64, u64, FaultKind)> {
    let mut faults = Vec::new();
    let mut at = 15;
    while at + 30 < shape.seconds * 9 / 10 {
        let kind = FaultKind::ALL[random.below(10) as usize];
        let long = 3 * SECOND + random.below(15) * SECOND;
        let begin = at * SECOND + random.below(SECOND);
        faults.push((begin, begin + long, kind));
        at += random.below(2 * shape.fault_every_s) + 1;
    }
    faults
}

fn fault_events(faults: &[(u64, u64, FaultKind)], random: &mut Random) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for (id, (begin, end, kind)) in faults.iter().enumerate() {
        let nodes: Vec<String> = (0..1 + random.below(2)).map(|_| storage(random.below(5))).collect();
        let (id, what) = (id as u32, format!("{kind} of {}", nodes.join(" and ")));
        events.push((*begin, Event::FaultBegan(FaultBegan { id, kind: *kind, what, nodes, at_us: *begin })));
        let evidence: BTreeMap<String, u64> = match random.below(10) {
            0 => BTreeMap::new(),
            _ => [("killed".to_owned(), 1), ("unsynced_bytes".to_owned(), random.below(100_000))].into(),
        };
        events.push((*end, Event::FaultEnded(FaultEnded { id, at_us: *end, evidence })));
    }
    events
}

fn write_events(shape: Shape, faults: &[(u64, u64, FaultKind)], random: &mut Random) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for number in 0..shape.seconds * 1000 / shape.write_every_ms {
        for (writer, signal) in (0..WRITERS).flat_map(|writer| Signal::ALL.map(|signal| (writer, signal))) {
            let invoked_us = number * shape.write_every_ms * 1000 + random.below(shape.write_every_ms * 900);
            let struck = faults.iter().any(|(from, to, _)| (*from..*to).contains(&invoked_us));
            let slow = if struck && random.below(3) == 0 { 20 + random.below(60) } else { 1 };
            let completed_us = invoked_us + (3_000 + random.below(9_000)) * slow;
            let ambiguous = u32::from(slow > 20 && random.below(3) == 0);
            let outcome = match random.below(400) {
                0 if struck => Outcome::Unknown,
                1 if struck && signal == Signal::Traces => Outcome::Rejected,
                _ => Outcome::Acknowledged,
            };
            events.push((
                completed_us,
                Event::Write(Write {
                    signal,
                    writer,
                    from: number * ITEMS,
                    to: (number + 1) * ITEMS,
                    invoked_us,
                    completed_us,
                    attempts: 1 + ambiguous,
                    ambiguous,
                    front: (number % 2) as u32,
                    outcome,
                    ..Write::default()
                }),
            ));
        }
    }
    events
}

fn read_events(shape: Shape, faults: &[(u64, u64, FaultKind)], random: &mut Random) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let per_second = ITEMS * 1000 / shape.write_every_ms;
    for number in 1..shape.seconds {
        let signal = Signal::ALL[(number % 3) as usize];
        let invoked_us = number * SECOND + random.below(SECOND / 2);
        let completed_us = invoked_us + 20_000 + random.below(80_000);
        let to = number * per_second / ITEMS * ITEMS;
        // Every second look is at all of it.
        let from = if number % 2 == 0 { to.saturating_sub(per_second * 10) } else { 0 };
        let struck = faults.iter().any(|(from, to, _)| (*from..*to).contains(&invoked_us));
        let partial = struck && random.below(2) == 0;
        let mut read = Read {
            session: (number % 4) as u32,
            signal,
            scope: Scope { writers: 0..WRITERS, from, to },
            invoked_us,
            completed_us,
            front: (number % 2) as u32,
            partial,
            seen: (0..WRITERS).map(|writer| (writer, vec![(from, to)])).collect(),
            ..Read::default()
        };
        if partial {
            read.seen.insert(0, Vec::new());
        }
        let at = LOST.sequence;
        if signal == LOST.signal && (from..to).contains(&at) && invoked_us > 200 * SECOND {
            read.seen.insert(LOST.writer, vec![(from, at), (at + 1, to)]);
        }
        if signal == DOUBLED.signal && (from..to).contains(&DOUBLED.sequence) && invoked_us > 330 * SECOND {
            read.repeated = vec![(DOUBLED.writer, DOUBLED.sequence, 2)];
        }
        events.push((completed_us, Event::Read(read)));
    }
    events
}

/// Shards that move, a few at a time: joint for some seconds, and then the new set.
fn sample_events(shape: Shape, random: &mut Random) -> Vec<(u64, Event)> {
    let set = |first: u64| (0..3).map(|n| storage((first + n) % 5)).collect::<Vec<_>>();
    let mut shards: BTreeMap<u32, ShardSample> = (0..shape.shards)
        .map(|shard| (shard, ShardSample { epoch: 1, set: set(u64::from(shard) % 5), new: None }))
        .collect();
    let (mut events, mut term, mut leader) = (Vec::new(), 1, 0);
    let every = (shape.seconds / 4_000).max(2);
    for second in (0..shape.seconds).step_by(every as usize) {
        for shard in shards.values_mut().filter(|shard| shard.new.is_some()) {
            if random.below(3) == 0 {
                *shard = ShardSample {
                    epoch: shard.epoch + 1,
                    set: shard.new.take().expect("the move began before"),
                    new: None,
                };
            }
        }
        if second % shape.move_every_s < every && second > 30 {
            let first = random.below(shape.shards.into()) as u32;
            let new = set(random.below(5));
            for shard in first..(first + 3).min(shape.shards) {
                let shard = shards.get_mut(&shard).expect("the map has all shards");
                *shard =
                    ShardSample { epoch: shard.epoch + 1, set: shard.set.clone(), new: Some(new.clone()) };
            }
        }
        let election = random.below(60) == 0;
        if election {
            (term, leader) = (term + 1, random.below(3) + 1);
        }
        let at_us = second * SECOND + 500_000;
        let counters = [("flushes".to_owned(), second / 14), ("segments_installed".to_owned(), second / 90)];
        events.push((
            at_us,
            Event::Sample(Sample {
                at_us,
                node: storage(second / every % 5),
                boot: 1,
                shards: shards.clone(),
                seen_by: Some(format!("meta-{}", leader.max(1))),
                leader: (!election).then(|| format!("meta-{}", leader.max(1))),
                term,
                resident_bytes: 100 << 20,
                counters: counters.into(),
                ..Sample::default()
            }),
        ));
    }
    events
}

/// A run and its verdict. Runs of more than six minutes lose an item and double one.
pub(crate) fn run(shape: Shape) -> (Vec<Event>, Verdict) {
    let mut random = Random(shape.seed);
    let faults = schedule(shape, &mut random);
    let mut events = fault_events(&faults, &mut random);
    events.extend(write_events(shape, &faults, &mut random));
    events.extend(read_events(shape, &faults, &mut random));
    events.extend(sample_events(shape, &mut random));
    let healing_us = shape.seconds * SECOND * 9 / 10;
    events.push((healing_us, Event::Healing(Moment { at_us: healing_us })));
    if shape.seconds > 360 {
        let died = Died { at_us: 411 * SECOND, node: storage(3), how: "SIGSEGV".into() };
        events.push((died.at_us, Event::Died(died)));
    }
    events.sort_by_key(|(at_us, _)| *at_us);
    let mut all = vec![Event::Start(start(shape))];
    all.extend(events.into_iter().map(|(_, event)| event));
    let at_us = shape.seconds * SECOND + SECOND;
    let failures = vec!["the last read of logs stayed partial".to_owned()];
    all.push(Event::End(End { at_us, failures, coverage: BTreeMap::new() }));
    let verdict = if shape.seconds > 360 { broken() } else { verdict(Judgement::Valid, Vec::new()) };
    (all, verdict)
}

pub(crate) fn verdict(result: Judgement, violations: Vec<Violation>) -> Verdict {
    let line = |name: &str, asked, count, how: &str| CoverageLine {
        name: name.into(),
        asked,
        count,
        how: how.into(),
    };
    let coverage = vec![
        line("processes killed", true, 14, "their exit statuses"),
        line("unsynced bytes lost", true, 481_223, "the disk layer's count at each power loss"),
        line("messages held back", true, 39_120, "the proxies' counters"),
        line("leader hit", true, 2, "the meta group's leader before the fault"),
        line("bits flipped", false, 0, "a file that differs from its copy"),
    ];
    Verdict {
        result,
        violations,
        coverage,
        missing: Vec::new(),
        undecided: Vec::new(),
        summary: Summary::default(),
    }
}

fn broken() -> Verdict {
    let violation = |promise, second: u64, what: &str, item| Violation {
        promise,
        at_us: second * SECOND,
        what: what.to_owned(),
        item,
    };
    let lost = "logs item 5613 of writer 2 was acknowledged at 2:20.131 and is missing from the last reads";
    let gone = "logs item 5613 of writer 2 was shown to session 1 at 3:17.421 and not at 3:20.402";
    verdict(
        Judgement::Invalid,
        vec![
            violation(Promise::P1, 600, lost, Some(LOST)),
            violation(Promise::P4, 200, gone, Some(LOST)),
            violation(Promise::P3, 333, "metrics item 8120 of writer 1 is there 2 times", Some(DOUBLED)),
            violation(Promise::P6, 335, "shard 12 went from epoch 5 to epoch 4 on storage-3", None),
        ],
    )
}
