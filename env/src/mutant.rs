//! Planted bugs. Each is a mistake that somebody could really make, one line where the code would go wrong, and is
//! switched on by its name when a process starts: a fault test that does not notice it would not notice the mistake.
//!
//! Only builds with the feature `mutants` have any; without it [`mutant`] is `false` before the compiler looks.

use std::fmt;
#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    pub name: &'static str,
    /// The promise of the design that it breaks, P1 to P10: that one's checker must find it.
    pub promise: &'static str,
    /// The protocol's rule that it ignores, or the failure that it brings back.
    pub rule: &'static str,
    /// What it does wrong.
    pub what: &'static str,
}

const fn planted(
    name: &'static str,
    promise: &'static str,
    rule: &'static str,
    what: &'static str,
) -> Mutant {
    Mutant { name, promise, rule, what }
}

/// All of them, in the order of the path that data takes.
#[rustfmt::skip]
pub const ALL: &[Mutant] = &[
    // The front's write path.
    planted("bomb-not-limited", "P8", "failure 8",
        "a body may be larger uncompressed than the limit of a request"),
    planted("admission-skipped", "P9", "P9",
        "requests in flight may hold more than the memory budget"),
    planted("retry-given-a-new-id", "P3", "A1",
        "a request's id is made of its bytes and the time of its arrival, so that a retry is another request"),
    planted("spans-half-dropped", "P1", "F3",
        "the second half of a request's spans is neither kept nor rejected"),
    planted("ordinal-restarts-with-each-resource", "P1", "failure 8",
        "log records are numbered anew in each resource, so that two of a request can have one identity"),
    planted("quorum-of-one", "P1", "F1",
        "the first acknowledgement of a part counts as its quorum"),
    planted("same-replica-counted-twice", "P1", "F1",
        "a replica that acknowledges a part again counts as another one"),
    planted("epochs-mixed", "P1", "failure 4",
        "acknowledgements of the epoch before count under the rule of the next"),
    planted("joint-quorum-of-the-old-set", "P1", "F1",
        "in a joint epoch a majority of the old set alone is a quorum"),
    // The replica's append.
    planted("stale-epoch-accepted", "P1", "E2",
        "an append of an older epoch than the fence is taken and acknowledged"),
    planted("volatile-fence", "P1", "E3",
        "a newer entry is in force and not made durable, so that a restart brings the older one back"),
    planted("append-not-fenced", "P1", "M2",
        "a fence is raised while appends that were checked against the one before are under way"),
    planted("conflict-acknowledged", "P8", "A2",
        "another body under a known request id is acknowledged and not kept"),
    planted("duplicate-acknowledged-early", "P1", "A1",
        "a repeat is acknowledged while its original is still on the way to the log"),
    planted("ack-before-fsync", "P1", "A3",
        "a group of the log is published and acknowledged without an fsync"),
    planted("failed-fsync-retried", "P1", "A3",
        "an fsync that failed is done again, and what it says then is believed"),
    planted("no-dir-sync-of-wal", "P1", "A3",
        "the name of a new file of the log is not made durable"),
    // Files.
    planted("no-dir-sync-after-rename", "P1", "E3",
        "a file that replaces another is renamed and the rename not made durable: manifests, promises, saved maps"),
    planted("no-dir-sync-of-segments", "P1", "A3",
        "the names of new segments are not made durable before a manifest names them"),
    planted("wal-released-before-flush", "P1", "A3",
        "a flush lets go of the file of the log that is still written to, so that a restart passes over what is in it"),
    planted("merge-drops-last-block", "P1", "failure 16",
        "a merge leaves out the last page of each group of its inputs"),
    planted("merge-inputs-deleted-early", "P1", "failure 9",
        "the inputs of a merge are deleted before the manifest names its output"),
    planted("equal-keys-by-arrival", "P4", "failure 14",
        "of two values of one key the one that came last is shown and kept, not the greatest"),
    planted("equal-logs-merged", "P3", "failure 8",
        "equal log records of two requests are shown as one"),
    planted("frozen-memtable-not-scanned", "P4", "A4",
        "what is being flushed is in no scan until its segments are"),
    planted("page-checksum-unchecked", "P2", "P2",
        "a section of a segment is used although its checksum is wrong"),
    // A restart.
    planted("torn-tail-taken-as-valid", "P1", "failure 6",
        "a group of the log counts when its header is right, whatever became of its payload and of the rows in it"),
    planted("ids-forgotten-at-restart", "P8", "A2",
        "request ids that only the log has are not read back, so that another body under one is taken"),
    planted("boot-not-advanced", "P1", "failure 5",
        "a restart goes on as the boot before, and gives its positions to other parts"),
    // Replicas tail each other.
    planted("cursor-before-pull", "P4", "T1",
        "a cursor advances over parts that are still to be pulled"),
    planted("snapshot-segment-skipped", "P4", "T2",
        "of the segments that a replica lacks one is not copied, and the cursor says that it was"),
    planted("installed-rows-not-announced", "P4", "T2",
        "a log goes on as if nothing had been installed beside it, so that peers never ask for those rows"),
    // Reads.
    planted("completeness-unchecked", "P4", "R1",
        "a leaf answers from what it has"),
    planted("pull-skipped", "P4", "R2",
        "a leaf asks others for their positions and does not wait until it has pulled up to them"),
    planted("hold-skipped", "P4", "failure 11",
        "a leaf shows what others may not hold yet"),
    planted("failed-leaf-counted-as-empty", "P5", "R4",
        "a storage node that cannot be reached has answered with no rows"),
    planted("partial-flag-swallowed", "P5", "R4",
        "an answer that may lack rows does not say so"),
    planted("partial-flag-swallowed-by-loki", "P5", "R4",
        "the Loki API does not say that a query's answer may lack rows"),
    // Moves.
    planted("moved-before-catch-up", "P1", "M3",
        "a store says that it holds what was fenced before it has pulled it"),
    planted("leaver-deletes-early", "P1", "M5",
        "a store deletes a shard when the move begins that it is to leave it by"),
    // The metadata.
    planted("vote-not-persisted", "P6", "failure 15",
        "a member of the meta group votes and does not make its vote durable"),
    planted("raft-append-not-durable", "P6", "P6",
        "a member of the meta group acknowledges entries that are not durable"),
    planted("stale-metadata-read", "P6", "P6",
        "a leader answers reads without asking whether it still leads"),
    planted("restarted-leader-reads-at-once", "P6", "P6",
        "a leader that restarted within its term answers reads before it knows again how far it had committed"),
    planted("compare-and-set-ignores-expect", "P6", "P6",
        "a setting is changed whatever it was before"),
    planted("map-dropped-without-a-leader", "P10", "failure 12",
        "a node that finds no leader of the meta group forgets the shard map"),
];

/// A name that cannot be selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMutant(pub String);

impl fmt::Display for UnknownMutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownMutant(name) = self;
        match cfg!(feature = "mutants") {
            true => write!(f, "there is no mutant `{name}`"),
            false => write!(f, "the mutant `{name}` needs a build with the feature `mutants`"),
        }
    }
}

impl std::error::Error for UnknownMutant {}

/// Index of the selected one; beyond all where there is none.
#[cfg(feature = "mutants")]
static SELECTED: AtomicUsize = AtomicUsize::new(usize::MAX);

#[cfg(feature = "mutants")]
static STRUCK: AtomicU64 = AtomicU64::new(0);

/// Switches one mutant on in this process, in the place of another. To be called before anything runs.
///
/// # Errors
/// Where there is none of that name in this build.
pub fn select(name: &str) -> Result<(), UnknownMutant> {
    #[cfg(feature = "mutants")]
    if let Some(index) = ALL.iter().position(|mutant| mutant.name == name) {
        SELECTED.store(index, Ordering::Relaxed);
        STRUCK.store(0, Ordering::Relaxed);
        return Ok(());
    }
    Err(UnknownMutant(name.to_owned()))
}

/// The one that is switched on.
pub fn selected() -> Option<&'static Mutant> {
    #[cfg(feature = "mutants")]
    return ALL.get(SELECTED.load(Ordering::Relaxed));
    #[cfg(not(feature = "mutants"))]
    None
}

/// How often the selected mutant was reached: one that never was has not been missed.
pub fn struck() -> u64 {
    #[cfg(feature = "mutants")]
    return STRUCK.load(Ordering::Relaxed);
    #[cfg(not(feature = "mutants"))]
    0
}

/// Whether the code is to go wrong here.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn mutant(_name: &str) -> bool {
    false
}

/// Whether the code is to go wrong here. Asked last in a condition, so that what is counted is what the mutant changed.
#[cfg(feature = "mutants")]
pub fn mutant(name: &str) -> bool {
    debug_assert!(ALL.iter().any(|mutant| mutant.name == name), "no mutant is called {name}");
    let is_selected = selected().is_some_and(|selected| selected.name == name);
    if is_selected && STRUCK.fetch_add(1, Ordering::Relaxed) == 0 {
        tracing::warn!(name, "a planted bug strikes");
    }
    is_selected
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_of_the_table_is_whole() {
        let names: BTreeSet<&str> = ALL.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name stands for one mutant");
        let promises: BTreeSet<String> = (1..=10).map(|number| format!("P{number}")).collect();
        for Mutant { name, promise, rule, what } in ALL {
            let words: Vec<&str> = name.split('-').collect();
            let is_word = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
            assert!(words.len() > 1 && words.iter().all(is_word), "{name} is not kebab-case");
            assert!(promises.contains(*promise), "{name} breaks {promise}");
            let is_rule = rule.strip_prefix("failure ").unwrap_or(&rule[1..]).parse::<u8>().is_ok();
            assert!(is_rule, "{name}: {rule} is neither a rule nor a failure");
            assert!(what.len() > 20 && !what.ends_with('.'), "{name} does not say what it does");
        }
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn a_build_without_the_feature_has_none() {
        for Mutant { name, .. } in ALL {
            assert_eq!(select(name), Err(UnknownMutant((*name).to_owned())));
            assert!(!mutant(name));
        }
        assert_eq!((selected(), struck()), (None, 0));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn the_selected_one_strikes_and_no_other() {
        assert!(!mutant(ALL[0].name));
        assert_eq!(select("no-such"), Err(UnknownMutant("no-such".to_owned())));
        assert_eq!(select(ALL[1].name), Ok(()));
        assert_eq!(selected(), Some(&ALL[1]));
        assert_eq!(ALL.iter().filter(|planted| mutant(planted.name)).count(), 1);
        assert!(mutant(ALL[1].name));
        assert_eq!(struck(), 2);
        assert_eq!(select(ALL[0].name), Ok(()));
        assert_eq!(struck(), 0);
    }
}
