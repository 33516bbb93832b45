//! What a history comes to: valid, invalid, or unknown where it proves too little; and the summary that a person reads.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checker::{Checkers, Violation};
use crate::coverage::{Tally, why_missing};
use crate::history::event::{Event, Start};
use crate::history::file;
use crate::workload::item::Signal;

/// Violations that the summary shows; more are counted.
const SHOWN_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Every promise held, and everything happened that was asked for.
    Valid,
    /// A promise was broken.
    Invalid,
    /// No promise was seen broken, but the run proves too little.
    Unknown,
}

impl Judgement {
    /// Exit status of the command.
    pub fn status(self) -> u8 {
        match self {
            Judgement::Valid => 0,
            Judgement::Invalid => 1,
            Judgement::Unknown => 2,
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Judgement::Valid => "valid",
            Judgement::Invalid => "invalid",
            Judgement::Unknown => "unknown",
        })
    }
}

/// Something that must, or may, have happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageLine {
    pub name: String,
    /// Whether the run proves nothing without it.
    pub asked: bool,
    pub count: u64,
    /// How the count was taken.
    pub how: String,
}

/// What happened to one signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSummary {
    pub signal: Signal,
    pub items: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub complete_reads: u64,
    pub last_reads: u64,
}

/// The numbers of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub seed: u64,
    pub driver: String,
    pub tested: String,
    pub command: String,
    pub mutant: Option<String>,
    /// Length of the run.
    pub run_us: u64,
    pub signals: Vec<SignalSummary>,
    pub items: u64,
    pub lost: u64,
    /// Acknowledged items that no last read covers.
    pub uncovered: u64,
    pub rejected: u64,
    pub retried: u64,
    pub ambiguous: u64,
    pub resent: u64,
    pub lesser_sent: u64,
    /// Lists and counts, and those of them that said that they are partial.
    pub reads: u64,
    pub partial: u64,
    pub counts: u64,
    /// Answers compared byte by byte with an earlier one of the same items.
    pub compared: u64,
    /// Items that were first shown in a measured time, and the time within which half, 99 % and all of them were.
    pub visible_items: u64,
    pub visible_us: [u64; 3],
    /// Reads that lasted too long to be judged in full.
    pub long_reads: u64,
    pub probes: u64,
    pub meta_operations: u64,
    /// Pairs of shard and epoch that were seen.
    pub epochs: u64,
    pub died: u64,
    /// What the run could not do.
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub result: Judgement,
    pub violations: Vec<Violation>,
    pub coverage: Vec<CoverageLine>,
    /// What would have had to happen, and why it counts as missing.
    pub missing: Vec<String>,
    /// What the checkers could not tell; in `missing` too.
    pub undecided: Vec<String>,
    pub summary: Summary,
}

/// Judges events as they come.
pub struct Judge {
    start: Start,
    checkers: Checkers,
    tally: Tally,
}

impl Judge {
    pub fn new(start: &Start) -> Self {
        Judge { start: start.clone(), checkers: Checkers::new(start), tally: Tally::default() }
    }

    pub fn event(&mut self, event: &Event) {
        self.checkers.event(event);
        self.tally.event(event);
    }

    /// How many promises were broken so far, and one of the newest in words.
    pub fn so_far(&self) -> (usize, Option<String>) {
        (self.checkers.violations(), self.checkers.newest())
    }

    pub fn finish(self) -> Verdict {
        let Judge { start, checkers, tally } = self;
        let (violations, proof) = checkers.conclude();
        let coverage = tally.lines(&start, &proof);
        let missing = coverage.iter().filter(|line| line.asked && line.count == 0).map(why_missing);
        let missing: Vec<String> = missing.chain(proof.undecided.iter().cloned()).collect();
        let failures = tally.end.as_ref().map(|end| end.failures.clone()).unwrap_or_default();
        let result = match (violations.is_empty() && failures.is_empty(), missing.is_empty()) {
            (false, _) => Judgement::Invalid,
            (true, false) => Judgement::Unknown,
            (true, true) => Judgement::Valid,
        };
        let signals = tally.signals.iter().map(|(signal, one)| SignalSummary {
            signal: *signal,
            items: one.items,
            acknowledged: one.acknowledged,
            unknown: one.unknown,
            complete_reads: one.complete_reads,
            last_reads: one.last_reads,
        });
        let visible = |hundredths| proof.visibility.quantile(hundredths);
        let summary = Summary {
            seed: start.seed,
            driver: start.driver,
            tested: start.tested,
            command: start.command,
            mutant: start.mutant,
            run_us: tally.at_us,
            signals: signals.collect(),
            items: tally.items(),
            lost: proof.lost,
            uncovered: proof.uncovered,
            rejected: tally.rejected,
            retried: tally.retried,
            ambiguous: tally.ambiguous,
            resent: tally.happened(crate::coverage::RESENT),
            lesser_sent: tally.happened(crate::coverage::LESSER_SENT),
            reads: tally.reads,
            partial: tally.partial,
            counts: tally.counts,
            compared: proof.compared,
            visible_items: proof.visibility.count(),
            visible_us: [visible(50), visible(99), visible(100)],
            long_reads: proof.long_reads,
            probes: tally.probes,
            meta_operations: tally.meta_operations,
            epochs: tally.epochs.len() as u64,
            died: tally.died,
            failures,
        };
        Verdict { result, violations, coverage, missing, undecided: proof.undecided, summary }
    }
}

/// Reads the history in `dir` and judges it. One that was cut off is judged as far as it goes, and is never valid.
///
/// # Errors
/// When there is no history, or what is there is none.
pub fn judge(dir: &Path) -> Result<Verdict, String> {
    let events = file::read(dir).map_err(|error| error.to_string())?;
    let mut judge: Option<Judge> = None;
    for event in events {
        match (event, judge.as_mut()) {
            (Ok(Event::Start(start)), None) => judge = Some(Judge::new(&start)),
            (Ok(event), Some(judge)) => judge.event(&event),
            (Err(error), Some(_)) if error.kind() == ErrorKind::UnexpectedEof => {
                let mut verdict = judge.expect("it was just there").finish();
                verdict.missing.insert(0, error.to_string());
                return Ok(verdict);
            }
            (Err(error), _) => return Err(error.to_string()),
            (Ok(_), None) => return Err(format!("{}: a history begins with `start`", dir.display())),
        }
    }
    judge.map(Judge::finish).ok_or_else(|| format!("{}: the history is empty", dir.display()))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = &self.summary;
        let seconds = summary.run_us as f64 / 1e6;
        writeln!(f, "{}: seed {}, {seconds:.1} s, {}", self.result, summary.seed, summary.driver)?;
        if let Some(mutant) = &summary.mutant {
            writeln!(f, "planted bug: {mutant}")?;
        }
        self.broken(f)?;
        for missing in &self.missing {
            writeln!(f, "unproven  {missing}")?;
        }
        write!(f, "{summary}")?;
        for line in self.coverage.iter().filter(|line| line.asked || line.count > 0) {
            if line.name.ends_with(" acknowledged") || line.name.ends_with(" read") {
                continue;
            }
            writeln!(f, "{:<26}{:>14}  {}", line.name, grouped(line.count), line.how)?;
        }
        Ok(())
    }
}

impl Verdict {
    fn broken(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "BROKEN    {}: {}", violation.promise, violation.what)?;
        }
        let more = self.violations.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            writeln!(f, "BROKEN    and {more} more")?;
        }
        for failure in &self.summary.failures {
            writeln!(f, "BROKEN    liveness: {failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |name: &str, count: u64, how: String| writeln!(f, "{name:<26}{:>14}  {how}", grouped(count));
        let found = match (self.lost, self.uncovered) {
            (0, 0) => "all of them in the last reads".to_owned(),
            (lost, 0) => format!("{} of them lost: in none of the last reads", grouped(lost)),
            (lost, open) => format!(
                "{} of them in no last read's scope, {} of the others lost",
                grouped(open),
                grouped(lost)
            ),
        };
        line("items acknowledged", self.items, found)?;
        for signal in &self.signals {
            let how = format!(
                "in {} writes, {} more of unknown outcome; {} complete reads, {} of the end",
                grouped(signal.acknowledged),
                grouped(signal.unknown),
                grouped(signal.complete_reads),
                grouped(signal.last_reads)
            );
            line(&format!("  {}", signal.signal.name()), signal.items, how)?;
        }
        let how = format!(
            "and {} sent again after the acknowledgement, {} followed by lesser values for the same keys",
            grouped(self.resent),
            grouped(self.lesser_sent)
        );
        line("writes retried", self.retried, how)?;
        let how = format!(
            "{} said that they are partial, {} counted, {} compared with an earlier one",
            grouped(self.partial),
            grouped(self.counts),
            grouped(self.compared)
        );
        line("reads", self.reads, how)?;
        let [half, most, all] = self.visible_us.map(|us| us as f64 / 1e6);
        let how = format!(
            "half within {half:.3} s, 99 % within {most:.3} s, all within {all:.3} s, as far as was read"
        );
        line("items seen since", self.visible_items, how)?;
        if self.long_reads > 0 {
            line("reads too long", self.long_reads, "and so not judged in full".to_owned())?;
        }
        if self.meta_operations > 0 {
            line("metadata operations", self.meta_operations, "in one order".to_owned())?;
        }
        line("epochs", self.epochs, "of shards, seen by nodes".to_owned())?;
        line("probes", self.probes, "of what must be refused or slowed".to_owned())?;
        line("deaths", self.died, "of processes that nothing had ended".to_owned())
    }
}
