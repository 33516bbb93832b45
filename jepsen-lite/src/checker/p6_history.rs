//! P6: one linear history of metadata. Proven of registers that sessions change and read through the meta group: their
//! answers have an order that respects real time, register by register, and so have the log indexes of all of them, at
//! which each shows what was set there.
//! The idea is Knossos's, for etcd; how the order is found stands in [`linearizable`].

use std::collections::BTreeMap;

use super::linearizable::{self, Answer};
use super::log_order::LogOrder;
use super::log_values;
use crate::history::event::{Event, MetaOp};

/// States of the search for each register: some seconds of work.
const STATES_MAX: u64 = 20_000_000;
/// Wrong log indexes that are told; the others are counted.
const TOLD_MAX: usize = 10;

/// Something that breaks the promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub at_us: u64,
    pub what: String,
}

/// What the whole history says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct P6Result {
    pub findings: Vec<Finding>,
    /// Registers about which nothing is known, and why: the run is not valid then.
    pub undecided: Vec<String>,
    /// Operations with a known outcome.
    pub operations: u64,
}

/// Fed with every event, in the order of the history.
#[derive(Default)]
pub struct P6 {
    registers: BTreeMap<u32, Vec<MetaOp>>,
    order: LogOrder,
    findings: Vec<Finding>,
    untold: u64,
}

impl P6 {
    pub fn event(&mut self, event: &Event) {
        let Event::Meta(operation) = event else { return };
        if let Some(what) = self.order.operation(operation) {
            if self.findings.len() < TOLD_MAX {
                self.findings.push(Finding { at_us: operation.completed_us, what });
            } else {
                self.untold += 1;
            }
        }
        self.registers.entry(operation.key).or_default().push(operation.clone());
    }

    /// Found so far; whether registers have an order shows at the end.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn finish(self) -> P6Result {
        let mut result =
            P6Result { findings: self.findings, operations: self.order.checked, ..Default::default() };
        if self.untold > 0 {
            let at_us = result.findings.last().map_or(0, |finding| finding.at_us);
            let what = format!("{} more operations have wrong log indexes", self.untold);
            result.findings.push(Finding { at_us, what });
        }
        for (key, operations) in self.registers {
            if let Some((at_us, what)) = log_values::check(&operations) {
                result.findings.push(Finding { at_us, what: format!("register {key}: {what}") });
            }
            match linearizable::check(&operations, STATES_MAX) {
                Answer::Linearizable => {}
                Answer::Not(found) => {
                    let at_us = found.last.completed_us;
                    result.findings.push(Finding { at_us, what: found.to_string() });
                }
                Answer::Undecided(why) => result.undecided.push(format!("register {key}: {why}")),
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{MetaCall, MetaOutcome};

    /// Two registers, each set once and read twice.
    fn clean() -> Vec<MetaOp> {
        let mut history = Vec::new();
        for key in 0..2u32 {
            let from = 100 * u64::from(key);
            let index = from + 1;
            let mut add = |call, outcome, time: u64| {
                let (invoked_us, completed_us) = (from + time, from + time + 5);
                history.push(MetaOp { session: key, key, call, outcome, invoked_us, completed_us });
            };
            let to = Some(7 + u64::from(key));
            add(MetaCall::Get, MetaOutcome::Value { value: None, index: from }, 0);
            add(MetaCall::CompareAndSet { expect: None, to }, MetaOutcome::Applied { index }, 10);
            add(MetaCall::Get, MetaOutcome::Value { value: to, index }, 20);
        }
        history
    }

    fn check(history: &[MetaOp]) -> P6Result {
        let mut p6 = P6::default();
        history.iter().for_each(|operation| p6.event(&Event::Meta(operation.clone())));
        p6.finish()
    }

    #[test]
    fn a_clean_history_keeps_the_promise() {
        let result = check(&clean());
        assert_eq!(result, P6Result { operations: 6, ..P6Result::default() });
    }

    #[test]
    fn a_lost_change_is_found_in_its_register_alone() {
        let mut history = clean();
        let MetaOutcome::Value { value, .. } = &mut history[5].outcome else { panic!("a get") };
        *value = None;
        let findings = check(&history).findings;
        assert_eq!((findings.len(), findings[0].at_us), (1, 125));
        assert!(findings[0].what.starts_with("register 1: the first 3 operations"), "{findings:?}");
    }

    #[test]
    fn a_log_index_that_goes_back_is_found_though_the_values_fit() {
        let mut history = clean();
        let MetaOutcome::Value { index, .. } = &mut history[5].outcome else { panic!("a get") };
        *index = 1;
        let findings = check(&history).findings;
        assert_eq!(findings.iter().map(|finding| finding.at_us).collect::<Vec<_>>(), [125, 125]);
        assert!(findings[0].what.contains("is behind that of"), "{findings:?}");
        assert!(findings[1].what.contains("which was set later"), "{findings:?}");
    }
}
