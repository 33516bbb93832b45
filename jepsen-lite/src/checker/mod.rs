//! Checkers: pure functions of a history, one file a promise of the design.

pub mod linearizable;
pub mod log_order;
pub mod log_values;
pub mod p1_durable;
pub mod p2_phantoms;
pub mod p3_exact;
pub mod p4_visible;
pub mod p6_history;

use crate::history::History;

/// Something that the history proves and the promise forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

/// All checkers.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = p1_durable::check(history);
    violations.extend(p2_phantoms::check(history));
    violations.extend(p3_exact::check(history));
    violations.extend(p4_visible::check(history));
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Outcome, Read, Write};
    use crate::workload::{Item, Signal};

    /// Three acknowledged writes and two reads that saw them.
    pub(super) fn clean() -> History {
        let item = |sequence| Item { writer: 1, sequence };
        let write = |sequence| Write {
            signal: Signal::Logs,
            items: vec![item(sequence)],
            invoked_ms: sequence * 10,
            completed_ms: sequence * 10 + 5,
            attempts: 1,
            outcome: Outcome::Acknowledged,
        };
        let read = |invoked_ms| Read {
            signal: Signal::Logs,
            invoked_ms,
            completed_ms: invoked_ms + 5,
            partial: false,
            items: (1..=3).map(|sequence| (item(sequence), 1)).collect(),
            strange: Vec::new(),
        };
        History { writes: (1..=3).map(write).collect(), reads: vec![read(100), read(200)] }
    }

    #[test]
    fn a_clean_history_has_no_violation() {
        assert_eq!(check(&clean()), []);
    }
}
