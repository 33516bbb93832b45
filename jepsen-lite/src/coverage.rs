//! What must have happened for a run to prove anything. A run whose faults did not really strike is *unknown*, never
//! valid.
//!
//! Drivers report these by name, in [`FaultEnded::evidence`](crate::history::event::FaultEnded) and
//! [`End::coverage`](crate::history::event::End).

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::Proof;
use crate::history::event::{End, Event, FaultEnded, Outcome, Start};
use crate::nemesis::fault::FaultKind;
use crate::verdict::{CoverageLine, grouped};
use crate::workload::item::Signal;

/// Processes that were running when they were killed or lost power.
pub const KILLED: &str = "killed";
/// Of those, how many led the meta group at that moment.
pub const LEADER_HIT: &str = "leader_hit";
/// Bytes that a power loss found written and not synced.
pub const UNSYNCED_BYTES: &str = "unsynced_bytes";
/// Milliseconds that stopped processes did not run.
pub const PAUSED_MS: &str = "paused_ms";
/// Bytes, messages or connection attempts between nodes that a cut held back.
pub const HELD_BACK: &str = "held_back";
/// Bytes that slow links delayed, throttled or held.
pub const DELAYED: &str = "delayed";
/// Connections that slow or broken links reset.
pub const RESET: &str = "reset";
/// Operations of a disk that failed or were slow because of a fault.
pub const DISK_STRUCK: &str = "disk_struck";
/// Bits that were flipped in files with data.
pub const BITS_FLIPPED: &str = "bits_flipped";
/// Clocks that were really wrong, as read back from the process.
pub const CLOCK_WRONG: &str = "clock_wrong";
/// Stores that were wiped and held data.
pub const WIPED: &str = "wiped";
/// Named fault points at which a process died.
pub const POINT_HIT: &str = "point_hit";
/// Times that the meta group was seen without a leader.
pub const LEADERLESS: &str = "leaderless";
/// Rows that restarts read back from the WAL.
pub const REPLAYED_ROWS: &str = "replayed_rows";
/// Segments that replicas copied from peers.
pub const SEGMENTS_INSTALLED: &str = "segments_installed";
/// Memtables flushed, and segments merged.
pub const FLUSHES: &str = "flushes";
pub const COMPACTIONS: &str = "compactions";
/// Shards that changed their set of replicas.
pub const MOVES_FINISHED: &str = "moves_finished";
/// Attempts with an unknown outcome, of requests that were acknowledged in the end.
pub const AMBIGUOUS: &str = "ambiguous_retries";
/// Answers that said that they are partial.
pub const PARTIAL_READS: &str = "partial_reads";
/// Requests that were sent again after their acknowledgement.
pub const RESENT: &str = "resent";
/// Requests with lesser values for keys that were acknowledged.
pub const LESSER_SENT: &str = "lesser_sent";

/// What proves that a fault of a kind struck; any of them does.
pub fn evidence_of(kind: FaultKind) -> &'static [&'static str] {
    match kind {
        FaultKind::Kill => &[KILLED],
        FaultKind::Power => &[UNSYNCED_BYTES],
        FaultKind::Pause => &[PAUSED_MS],
        FaultKind::Partition => &[HELD_BACK],
        FaultKind::Link => &[DELAYED, RESET],
        FaultKind::Disk => &[DISK_STRUCK, BITS_FLIPPED],
        FaultKind::Clock => &[CLOCK_WRONG],
        FaultKind::Wipe => &[WIPED],
        // Nothing can: see `fault_line`.
        FaultKind::Store => &[],
        FaultKind::Meta => &[LEADERLESS],
    }
}

/// Faults of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struck {
    pub(crate) began: u64,
    pub(crate) proven: u64,
    pub(crate) evidence: BTreeMap<String, u64>,
}

/// What happened to one signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignalTally {
    pub(crate) items: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) complete_reads: u64,
    pub(crate) last_reads: u64,
}

/// Counts what happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) signals: BTreeMap<Signal, SignalTally>,
    pub(crate) rejected: u64,
    pub(crate) retried: u64,
    /// Attempts without a known outcome, of requests that were acknowledged in the end.
    pub(crate) ambiguous: u64,
    pub(crate) reads: u64,
    pub(crate) partial: u64,
    pub(crate) counts: u64,
    pub(crate) reads_under_faults: u64,
    pub(crate) probes: u64,
    pub(crate) meta_operations: u64,
    pub(crate) died: u64,
    pub(crate) faults: BTreeMap<FaultKind, Struck>,
    open: BTreeMap<u32, FaultKind>,
    /// By node and boot, the most that each counter was.
    counters: BTreeMap<(String, u32), BTreeMap<String, u64>>,
    /// Shards, epochs and moves that were seen.
    pub(crate) epochs: BTreeSet<(u32, u64)>,
    pub(crate) end: Option<End>,
    pub(crate) at_us: u64,
}

impl Tally {
    pub(crate) fn event(&mut self, event: &Event) {
        self.at_us = self.at_us.max(event.at_us().unwrap_or(0));
        match event {
            Event::Write(write) => {
                self.retried += u64::from(write.attempts > 1);
                let signal = self.signals.entry(write.signal).or_default();
                match write.outcome {
                    Outcome::Acknowledged => {
                        signal.acknowledged += 1;
                        signal.items += write.to - write.from;
                        self.ambiguous += u64::from(write.ambiguous);
                    }
                    Outcome::Unknown => signal.unknown += 1,
                    Outcome::Rejected => self.rejected += 1,
                }
            }
            Event::Read(read) => {
                self.read(read.partial && !read.failed);
                let signal = self.signals.entry(read.signal).or_default();
                signal.complete_reads += u64::from(!read.partial);
                signal.last_reads += u64::from(read.last && !read.partial);
            }
            Event::Count(count) => {
                self.counts += 1;
                self.read(count.partial);
            }
            Event::Meta(_) => self.meta_operations += 1,
            Event::Probe(_) => self.probes += 1,
            Event::FaultBegan(fault) => {
                self.open.insert(fault.id, fault.kind);
                self.faults.entry(fault.kind).or_default().began += 1;
            }
            Event::FaultEnded(ended) => self.ended(ended),
            Event::Sample(sample) => {
                self.epochs.extend(sample.shards.iter().map(|(shard, at)| (*shard, at.epoch)));
                let counters = self.counters.entry((sample.node.clone(), sample.boot)).or_default();
                for (name, value) in &sample.counters {
                    let most = counters.entry(name.clone()).or_default();
                    *most = (*most).max(*value);
                }
            }
            Event::Died(_) => self.died += 1,
            Event::End(end) => self.end = Some(end.clone()),
            Event::Start(_) | Event::Healing(_) => {}
        }
    }

    fn read(&mut self, partial: bool) {
        self.reads += 1;
        self.partial += u64::from(partial);
        self.reads_under_faults += u64::from(!partial && !self.open.is_empty());
    }

    fn ended(&mut self, ended: &FaultEnded) {
        let Some(kind) = self.open.remove(&ended.id) else { return };
        let struck = self.faults.entry(kind).or_default();
        let proof = |name: &&str| ended.evidence.get(*name).is_some_and(|count| *count > 0);
        struck.proven += u64::from(evidence_of(kind).iter().any(proof));
        for (name, count) in &ended.evidence {
            *struck.evidence.entry(name.clone()).or_default() += count;
        }
    }

    /// How often something happened, from whoever says the most of it: faults, the driver, or the nodes' counters.
    pub(crate) fn happened(&self, name: &str) -> u64 {
        let evidence = self.faults.values().filter_map(|struck| struck.evidence.get(name)).sum();
        let driver = self.end.as_ref().and_then(|end| end.coverage.get(name)).copied().unwrap_or(0);
        let nodes = self.counters.values().filter_map(|counters| counters.get(name)).sum();
        u64::max(evidence, driver).max(nodes)
    }

    pub(crate) fn items(&self) -> u64 {
        self.signals.values().map(|signal| signal.items).sum()
    }

    /// What the run was asked for, and what else happened.
    pub(crate) fn lines(&self, start: &Start, proof: &Proof) -> Vec<CoverageLine> {
        let mut lines: Vec<CoverageLine> =
            start.faults.iter().map(|kind| self.fault_line(*kind, true)).collect();
        let others = self.faults.keys().filter(|kind| !start.faults.contains(kind));
        lines.extend(others.map(|kind| self.fault_line(*kind, false)));
        for signal in Signal::ALL {
            let tally = self.signals.get(&signal).cloned().unwrap_or_default();
            let name = signal.name();
            lines.push(line(
                &format!("{name} acknowledged"),
                true,
                tally.items,
                "items in acknowledged writes",
            ));
            lines.push(line(
                &format!("{name} read"),
                true,
                tally.complete_reads,
                "answers that are complete",
            ));
        }
        let covered = self.items().saturating_sub(proof.uncovered);
        let how = match proof.uncovered {
            0 => "acknowledged items, each within a last complete read".to_owned(),
            left => format!("acknowledged items within a last complete read, and {} in none", grouped(left)),
        };
        lines.push(line("last reads", true, if proof.uncovered == 0 { covered } else { 0 }, &how));
        lines.push(line("clean end", true, u64::from(self.end.is_some()), "the history has its last line"));
        self.struck_lines(start, proof, &mut lines);
        lines
    }

    fn fault_line(&self, kind: FaultKind, asked: bool) -> CoverageLine {
        if kind == FaultKind::Store {
            let how = "oteld does not write to an object store yet, so that nothing of it can fail";
            return line("store", asked, 0, how);
        }
        let struck = self.faults.get(&kind).cloned().unwrap_or_default();
        let evidence: Vec<String> = (evidence_of(kind).iter())
            .map(|name| {
                let count = struck.evidence.get(*name).copied().unwrap_or(0);
                format!("{} {}", grouped(count), name.replace('_', " "))
            })
            .collect();
        let evidence = evidence.join(", ");
        let began = grouped(struck.began);
        let how = match (struck.began, struck.proven) {
            (0, _) => "no such fault began".to_owned(),
            (all, proven) if all == proven => format!("{began} faults, each confirmed: {evidence}"),
            (_, proven) => format!("{began} faults, {} of them confirmed: {evidence}", grouped(proven)),
        };
        line(kind.name(), asked, struck.proven, &how)
    }

    /// What can only happen under faults.
    fn struck_lines(&self, start: &Start, proof: &Proof, lines: &mut Vec<CoverageLine>) {
        use FaultKind::{Kill, Link, Meta, Partition, Pause, Power, Wipe};
        let asked = |kinds: &[FaultKind]| start.faults.iter().any(|kind| kinds.contains(kind));
        let ambiguous = asked(&[Kill, Power, Pause, Partition, Link, Wipe]);
        let how = "attempts with an unknown outcome, of requests that were acknowledged in the end";
        lines.push(line("ambiguous retries", ambiguous, self.ambiguous, how));
        let how = "rows that restarts read back from the WAL";
        lines.push(line("replay", asked(&[Kill, Power]), self.happened(REPLAYED_ROWS), how));
        let hits = self.happened(LEADER_HIT);
        let how = "faults that struck the leader of the meta group";
        lines.push(line("leader hit", asked(&[Kill, Power, Pause, Partition]), hits, how));
        let how = "complete answers that ended while a fault was in force";
        lines.push(line("reads under faults", !start.faults.is_empty(), self.reads_under_faults, how));
        let without = proof.without_leader;
        let how = format!(
            "writes and reads in {} stretches without a meta majority and without another fault",
            without.stretches
        );
        let both = if without.acknowledged == 0 || without.complete == 0 {
            0
        } else {
            without.acknowledged + without.complete
        };
        lines.push(line("data path without leader", asked(&[Meta]), both, &how));
    }
}

fn line(name: &str, asked: bool, count: u64, how: &str) -> CoverageLine {
    CoverageLine { name: name.to_owned(), asked, count, how: how.to_owned() }
}

/// Why a line that was asked for and is empty takes the run its proof.
pub(crate) fn why_missing(line: &CoverageLine) -> String {
    let CoverageLine { name, how, .. } = line;
    let kind: Result<FaultKind, String> = name.parse();
    match (kind, name.as_str()) {
        (Ok(FaultKind::Store), _) => format!("store faults: {how}"),
        (Ok(kind), _) => format!("{kind} faults: {how}; none is proven to have struck"),
        (Err(_), "last reads") => format!("last reads do not cover everything: {how}"),
        (Err(_), "clean end") => "the history ends without its last line".to_owned(),
        (Err(_), _) => format!("{name}: no {how}"),
    }
}
