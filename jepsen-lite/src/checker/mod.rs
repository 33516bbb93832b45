//! Checkers: one file a promise of the design. They read a history once, from front to back, while it is made or
//! afterwards, and keep ranges instead of items.

mod words;
mod faults;
mod due;
mod p1_durable;
mod p2_phantoms;
mod p3_exact;
mod echoes;
mod gaps;
mod p4_visible;
mod p5_complete;
mod epochs;
pub mod linearizable;
pub mod log_order;
pub mod log_values;
pub mod p6_history;
mod p7_moves;
mod p8_input;
mod p9_overload;
mod p10_leaderless;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use self::due::{Ledger, Visibility};
use self::echoes::Echoes;
use self::epochs::Epochs;
use self::faults::Faults;
use self::gaps::Gaps;
use self::p1_durable::Durable;
use self::p2_phantoms::{Phantoms, ShownAhead};
use self::p3_exact::Exact;
use self::p5_complete::Healed;
use self::p6_history::{Finding, P6};
use self::p7_moves::Moves;
use self::p9_overload::Overload;
use self::p10_leaderless::{Leaderless, WithoutLeader};
use crate::history::event::{Event, Read, Start, Write};
use crate::workload::item::Signal;

/// The promises of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Promise {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    P8,
    P9,
    P10,
}

impl Promise {
    pub const ALL: [Promise; 10] = [
        Promise::P1,
        Promise::P2,
        Promise::P3,
        Promise::P4,
        Promise::P5,
        Promise::P6,
        Promise::P7,
        Promise::P8,
        Promise::P9,
        Promise::P10,
    ];

    /// `P1` to `P10`.
    pub fn number(self) -> &'static str {
        let name = self.name();
        name.split_once(' ').map_or(name, |(number, _)| number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Promise::P1 => "P1 durable",
            Promise::P2 => "P2 no phantoms",
            Promise::P3 => "P3 exact counts",
            Promise::P4 => "P4 visible",
            Promise::P5 => "P5 complete or said",
            Promise::P6 => "P6 one history",
            Promise::P7 => "P7 moves are invisible",
            Promise::P8 => "P8 input cannot hurt",
            Promise::P9 => "P9 slows, never breaks",
            Promise::P10 => "P10 data path needs no leader",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One item that a violation is about: the first of them, where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemRef {
    pub signal: Signal,
    pub writer: u32,
    pub sequence: u64,
}

/// Something that the history proves and the promise forbids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub promise: Promise,
    /// When it showed.
    pub at_us: u64,
    pub what: String,
    pub item: Option<ItemRef>,
}

/// Violations of one promise that are kept in words; more are only counted.
const KEPT_MAX: u64 = 200;

/// Collects violations.
#[derive(Default)]
pub(crate) struct Found {
    kept: Vec<Violation>,
    counts: BTreeMap<Promise, u64>,
}

impl Found {
    pub(crate) fn add(&mut self, promise: Promise, at_us: u64, what: String, item: Option<ItemRef>) {
        let count = self.counts.entry(promise).or_default();
        *count += 1;
        if *count <= KEPT_MAX {
            self.kept.push(Violation { promise, at_us, what, item });
        }
    }

    /// By promise, and then by time; with a last one that counts those that are not kept.
    fn finish(mut self) -> Vec<Violation> {
        for (promise, count) in self.counts.into_iter().filter(|(_, count)| *count > KEPT_MAX) {
            let what = format!("{} more", count - KEPT_MAX);
            self.kept.push(Violation { promise, at_us: u64::MAX, what, item: None });
        }
        self.kept.sort_by_key(|violation| (violation.promise, violation.at_us));
        self.kept
    }
}

/// What checkers look at beside the event itself.
pub(crate) struct Scene {
    pub(crate) start: Start,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
}

/// All checkers of a run.
pub struct Checkers {
    scene: Scene,
    found: Found,
    durable: Durable,
    phantoms: Phantoms,
    exact: Exact,
    echoes: Echoes,
    gaps: Gaps,
    healed: Healed,
    epochs: Epochs,
    registers: P6,
    moves: Moves,
    overload: Overload,
    leaderless: Leaderless,
    now_us: u64,
    whole: bool,
}

/// What the checkers proved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    pub(crate) lost: u64,
    /// Acknowledged items that no last read covers.
    pub(crate) uncovered: u64,
    pub(crate) visibility: Visibility,
    /// Reads compared byte by byte with an earlier one of the same items.
    pub(crate) compared: u64,
    pub(crate) without_leader: WithoutLeader,
    pub(crate) long_reads: u64,
    /// Registers of which it could not be told whether they have one history, and why.
    pub(crate) undecided: Vec<String>,
}

impl Checkers {
    pub fn new(start: &Start) -> Self {
        let scene = Scene { start: start.clone(), ledger: Ledger::default(), faults: Faults::default() };
        Checkers {
            scene,
            found: Found::default(),
            durable: Durable::default(),
            phantoms: Phantoms::default(),
            exact: Exact::default(),
            echoes: Echoes::default(),
            gaps: Gaps::default(),
            healed: Healed::default(),
            epochs: Epochs::default(),
            registers: P6::default(),
            moves: Moves::default(),
            overload: Overload::default(),
            leaderless: Leaderless::default(),
            now_us: 0,
            whole: false,
        }
    }

    pub fn event(&mut self, event: &Event) {
        self.now_us = self.now_us.max(event.at_us().unwrap_or(0));
        self.scene.faults.event(event);
        self.leaderless.event(event);
        self.healed.event(event, &self.scene);
        let (scene, found) = (&self.scene, &mut self.found);
        match event {
            Event::Write(write) => self.write(write),
            Event::Read(read) => self.read(read),
            Event::Count(count) => self.exact.count(count, scene, found),
            Event::Probe(probe) => {
                p8_input::probe(probe, scene, found);
                self.overload.probe(probe, scene, found);
            }
            Event::Sample(sample) => {
                self.epochs.sample(sample, found);
                self.moves.sample(sample);
                self.overload.sample(sample, scene);
            }
            Event::Died(died) => p8_input::died(died, scene, found),
            Event::End(_) => self.whole = true,
            Event::Meta(_) => self.registers.event(event),
            Event::Healing(moment) => self.durable.healing(moment.at_us, scene),
            Event::Start(_) => {}
            Event::FaultBegan(_) | Event::FaultEnded(_) => {}
        }
    }

    fn write(&mut self, write: &Write) {
        let (scene, found) = (&self.scene, &mut self.found);
        self.durable.write(write, scene, found);
        self.exact.write(write, scene, found);
        self.echoes.write(write);
        self.moves.write(write, scene, found);
        let ahead = self.phantoms.write(write, scene, found);
        for ShownAhead { from, to, at_us, session } in ahead {
            self.scene.ledger.shown_ahead((write.signal, write.writer), from, to, at_us, session);
        }
        self.scene.ledger.write(write);
    }

    fn read(&mut self, read: &Read) {
        let (scene, found) = (&self.scene, &mut self.found);
        self.phantoms.read(read, scene, found);
        self.exact.read(read, scene, found);
        self.echoes.read(read, scene, found);
        self.gaps.read(read, scene);
        self.durable.read(read, &scene.ledger);
        self.moves.read(read, scene, found);
        if !read.partial {
            self.scene.ledger.shown(read);
        }
    }

    /// How many there are so far. What a complete answer lacks counts, whatever it turns out to be.
    pub fn violations(&self) -> usize {
        let found = self.found.counts.values().sum::<u64>() as usize;
        found
            + self.registers.findings().len()
            + self.gaps.count()
            + self.echoes.suspects()
            + self.overload.count()
    }

    /// One of the newest in words.
    pub fn newest(&self) -> Option<String> {
        let found = self.found.kept.last();
        let found = found.map(|violation| format!("{}: {}", violation.promise, violation.what));
        found.or_else(|| self.gaps.newest(&self.scene))
    }

    pub fn finish(self) -> Vec<Violation> {
        self.conclude().0
    }

    pub(crate) fn conclude(self) -> (Vec<Violation>, Proof) {
        let Checkers { mut scene, mut found, .. } = self;
        let lost = self.durable.finish(&scene, self.now_us, &mut found);
        self.phantoms.finish(self.whole, &scene, &mut found);
        self.exact.finish(self.whole, &scene, &mut found);
        self.echoes.finish(self.whole, &scene, &mut found);
        self.gaps.finish(&lost, &scene, &mut found);
        self.healed.finish(&scene, &mut found);
        let registers = self.registers.finish();
        for Finding { at_us, what } in registers.findings {
            found.add(Promise::P6, at_us, what, None);
        }
        let compared = self.moves.compared;
        self.moves.finish(&scene, &mut found);
        self.overload.finish(&mut found);
        let without_leader = self.leaderless.finish(&scene, &mut found);
        let proof = Proof {
            lost: lost.items,
            uncovered: lost.uncovered,
            visibility: std::mem::take(&mut scene.ledger.visibility),
            compared,
            without_leader,
            long_reads: scene.ledger.long_reads,
            undecided: registers.undecided,
        };
        (found.finish(), proof)
    }
}
