//! How planted bugs are looked for: in which scenario each shows, and which ones no run here has shown yet.

use crate::sim::scenario::{self, Scenario};

/// The scenario that does what brings a planted bug out, where random faults seldom do.
const SHOWN_BY: &[(&str, &str)] = &[
    ("quorum-of-one", "the-only-holder-is-lost"),
    ("same-replica-counted-twice", "the-only-holder-is-lost"),
    ("stale-epoch-accepted", "fronts-miss-the-end-of-moves"),
    ("volatile-fence", "a-fence-outlives-its-store"),
    ("joint-quorum-of-the-old-set", "fronts-miss-the-end-of-moves"),
    ("append-not-fenced", "single-copies-move-on-slow-disks"),
    ("moved-before-catch-up", "crashes-in-the-middle-of-moves"),
    ("leaver-deletes-early", "crashes-in-the-middle-of-moves"),
    ("installed-rows-not-announced", "rows-that-came-by-snapshot-go-on"),
    ("duplicate-acknowledged-early", "retries-reach-stores-that-still-write"),
    ("ack-before-fsync", "power-loss-after-acknowledgement"),
    ("no-dir-sync-of-wal", "power-loss-after-acknowledgement"),
    ("no-dir-sync-after-rename", "power-loss-after-acknowledgement"),
    ("torn-tail-taken-as-valid", "one-node-alone-writes-and-crashes"),
    ("boot-not-advanced", "power-loss-after-acknowledgement"),
    ("failed-fsync-retried", "a-failed-fsync-is-not-done-again"),
    ("no-dir-sync-of-segments", "one-node-alone-crashes"),
    ("merge-inputs-deleted-early", "one-node-alone-merges-and-crashes"),
    ("ids-forgotten-at-restart", "one-node-alone-crashes"),
    ("page-checksum-unchecked", "bit-flip-on-a-minority-that-later-serves"),
    ("hold-skipped", "seen-before-others-hold-it"),
    ("partial-flag-swallowed", "partial-answers-end-with-the-fault"),
    ("partial-flag-swallowed-by-loki", "partial-answers-end-with-the-fault"),
    ("stale-metadata-read", "a-leader-that-was-deposed-answers"),
    ("restarted-leader-reads-at-once", "meta-members-restart-in-an-instant"),
    ("map-dropped-without-a-leader", "no-meta-majority"),
];

/// Planted bugs that no simulation has shown yet by what clients see, and the likely reason. They count as not found.
const NOT_SHOWN: &[(&str, &str)] = &[
    (
        "volatile-fence",
        "a store that comes back has its saved shard map too, which raises the fence again before anything is sent",
    ),
    (
        "append-not-fenced",
        "what lands behind the fence is pulled all the same: newcomers are slower than appends that are under way",
    ),
    (
        "restarted-leader-reads-at-once",
        "a leader knows how far it had committed as soon as followers answered it: some milliseconds",
    ),
];

/// Why a planted bug is not expected to be found; `None` for one that must be.
pub fn not_shown(mutant: &str) -> Option<&'static str> {
    NOT_SHOWN.iter().find(|(name, _)| *name == mutant).map(|(_, why)| *why)
}

/// The scenario of a seed that looks for `mutant`: every other seed has one, the mutant's own where it has one, else
/// each in turn.
pub fn scenario_of(mutant: &str, seed: u64) -> Option<&'static Scenario> {
    let own = SHOWN_BY.iter().find(|(name, _)| *name == mutant);
    let own =
        own.map(|(_, scenario)| Scenario::find(scenario).expect("the table names scenarios that there are"));
    let turn = || &scenario::ALL[(seed / 2) as usize % scenario::ALL.len()];
    seed.is_multiple_of(2).then(|| own.unwrap_or_else(turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_name_planted_bugs_and_scenarios_that_there_are() {
        let is_known = |name: &str| oteld_env::mutant::ALL.iter().any(|known| known.name == name);
        for (mutant, scenario) in SHOWN_BY {
            assert!(is_known(mutant), "{mutant}");
            assert!(Scenario::find(scenario).is_some(), "{scenario}");
        }
        assert!(NOT_SHOWN.iter().all(|(mutant, _)| is_known(mutant)));
    }

    #[test]
    fn every_other_seed_has_a_scenario() {
        assert_eq!(scenario_of("quorum-of-one", 4).unwrap().name, "the-only-holder-is-lost");
        assert!(scenario_of("quorum-of-one", 5).is_none());
        assert_ne!(
            scenario_of("equal-logs-merged", 0).unwrap().name,
            scenario_of("equal-logs-merged", 2).unwrap().name
        );
    }
}
