//! How planted bugs are looked for: in which scenario each shows, and which ones no run here has shown yet.

use crate::sim::scenario::{self, Scenario};

/// The scenario that does what brings a planted bug out, where random faults seldom do.
const SHOWN_BY: &[(&str, &str)] = &[
    ("quorum-of-one", "the-only-holder-is-lost"),
    ("same-replica-counted-twice", "the-only-holder-is-lost"),
    ("stale-epoch-accepted", "fronts-that-lag-behind-moves"),
    ("volatile-fence", "fronts-that-lag-behind-moves"),
    ("joint-quorum-of-the-old-set", "moves-to-stores-that-fronts-do-not-reach"),
    ("append-not-fenced", "crashes-in-the-middle-of-moves"),
    ("moved-before-catch-up", "crashes-in-the-middle-of-moves"),
    ("leaver-deletes-early", "crashes-in-the-middle-of-moves"),
    ("installed-rows-not-announced", "crashes-in-the-middle-of-moves"),
    ("duplicate-acknowledged-early", "a-retry-overtakes-its-original"),
    ("ack-before-fsync", "power-loss-after-acknowledgement"),
    ("no-dir-sync-of-wal", "power-loss-after-acknowledgement"),
    ("no-dir-sync-after-rename", "power-loss-after-acknowledgement"),
    ("torn-tail-taken-as-valid", "power-loss-after-acknowledgement"),
    ("boot-not-advanced", "power-loss-after-acknowledgement"),
    ("failed-fsync-retried", "a-failed-fsync-is-not-done-again"),
    ("no-dir-sync-of-segments", "one-node-alone-crashes"),
    ("merge-inputs-deleted-early", "one-node-alone-crashes"),
    ("ids-forgotten-at-restart", "one-node-alone-crashes"),
    ("page-checksum-unchecked", "bit-flip-on-a-minority-that-later-serves"),
    ("hold-skipped", "a-replica-fails-while-another-is-waited-for"),
    ("partial-flag-swallowed", "partial-answers-end-with-the-fault"),
    ("partial-flag-swallowed-by-loki", "partial-answers-end-with-the-fault"),
    ("stale-metadata-read", "a-leader-that-was-deposed-answers"),
    ("map-dropped-without-a-leader", "no-meta-majority"),
];

/// Planted bugs that no simulation has shown yet by what clients see, and the likely reason. They count as not found.
const NOT_SHOWN: &[(&str, &str)] = &[
    (
        "joint-quorum-of-the-old-set",
        "newcomers pull what the old set holds sooner than a simulated move ends",
    ),
    ("stale-epoch-accepted", "what an old set takes is pulled by the new one, as long as they share a store"),
    ("volatile-fence", "what an old set takes is pulled by the new one, as long as they share a store"),
    ("append-not-fenced", "a simulated append writes and syncs in one instant, and nothing comes between"),
    (
        "duplicate-acknowledged-early",
        "a simulated append writes and syncs in one instant, and nothing comes between",
    ),
    ("failed-fsync-retried", "the group that is lost is found missing at the restart, and pulled from peers"),
    ("merge-inputs-deleted-early", "the missing file is noticed at the restart, and the store set aside"),
    (
        "frozen-memtable-not-scanned",
        "a simulated flush is over in an instant: it was met once in dozens of seeds",
    ),
    ("equal-keys-by-arrival", "no workload sends two values for one key"),
    ("page-checksum-unchecked", "flipped bits are seldom in what is read before peers replace it"),
    (
        "torn-tail-taken-as-valid",
        "what is torn does not decode, and the store is set aside: only P5 and liveness show it",
    ),
    ("installed-rows-not-announced", "peers have the rows from others"),
    ("hold-skipped", "a row that one replica alone holds is seldom read there and lost right after"),
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
