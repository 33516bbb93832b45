//! Log indexes that operations on the metadata return, against real time. They give the order that the search for
//! linearizability has to look for, over all registers at once, so that a lie about it shows at once.

use std::collections::{BTreeMap, VecDeque};

use super::linearizable::describe;
use crate::history::event::{MetaOp, MetaOutcome};

/// Operations that are remembered; many more than can run at the same time.
const REMEMBERED_MAX: usize = 1 << 16;

/// Fed with operations in the order in which they ended.
#[derive(Default)]
pub struct LogOrder {
    /// Commands by index: the latest ones.
    commands: BTreeMap<u64, MetaOp>,
    /// Operations that had the largest index of all that ended so far, each with its end: both ascend.
    largest: VecDeque<(u64, u64, MetaOp)>,
    /// Commands and gets that had an index.
    pub checked: u64,
}

impl LogOrder {
    /// Says what is wrong with the operation.
    pub fn operation(&mut self, operation: &MetaOp) -> Option<String> {
        let (index, is_command) = match operation.outcome {
            MetaOutcome::Applied { index } | MetaOutcome::Differs { index, .. } => (index, true),
            MetaOutcome::Value { index, .. } => (index, false),
            MetaOutcome::Failed | MetaOutcome::Unknown => return None,
        };
        self.checked += 1;
        let wrong = self.against_earlier(operation, index, is_command);
        if is_command {
            self.commands.insert(index, operation.clone());
            if self.commands.len() > REMEMBERED_MAX {
                self.commands.pop_first();
            }
        }
        // One that is recorded late is taken for one that ended late, which proves less and nothing wrong.
        let last = self.largest.back().map_or((0, 0), |(ended_us, index, _)| (*ended_us, *index));
        if index > last.1 {
            let ended_us = operation.completed_us.max(last.0);
            self.largest.push_back((ended_us, index, operation.clone()));
            if self.largest.len() > REMEMBERED_MAX {
                self.largest.pop_front();
            }
        }
        wrong
    }

    fn against_earlier(&self, operation: &MetaOp, index: u64, is_command: bool) -> Option<String> {
        if let Some(twin) = self.commands.get(&index).filter(|_| is_command) {
            return Some(format!(
                "log index {index} is that of {} and of {}",
                describe(twin),
                describe(operation)
            ));
        }
        let earlier = self.largest.partition_point(|(ended_us, ..)| *ended_us < operation.invoked_us);
        let (_, before, last) = self.largest.get(earlier.checked_sub(1)?)?;
        let in_order = if is_command { index > *before } else { index >= *before };
        (!in_order).then(|| {
            format!("log index {index} of {} is behind that of {}", describe(operation), describe(last))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::MetaCall;

    const CALL: MetaCall = MetaCall::CompareAndSet { expect: None, to: Some(1) };

    fn operation(call: MetaCall, outcome: MetaOutcome, time: (u64, u64)) -> MetaOp {
        MetaOp { session: 0, key: 0, call, outcome, invoked_us: time.0, completed_us: time.1 }
    }

    fn applied(index: u64, time: (u64, u64)) -> MetaOp {
        operation(CALL, MetaOutcome::Applied { index }, time)
    }

    fn refused(index: u64, time: (u64, u64)) -> MetaOp {
        operation(CALL, MetaOutcome::Differs { actual: Some(2), index }, time)
    }

    fn get(index: u64, time: (u64, u64)) -> MetaOp {
        operation(MetaCall::Get, MetaOutcome::Value { value: None, index }, time)
    }

    fn wrong(history: &[MetaOp]) -> Vec<usize> {
        let mut order = LogOrder::default();
        let found = history.iter().map(|operation| order.operation(operation).is_some());
        found.enumerate().filter(|(_, wrong)| *wrong).map(|(place, _)| place).collect()
    }

    #[test]
    fn indexes_that_grow_with_time_are_in_order_and_overlapping_operations_have_any() {
        let unknown = operation(CALL, MetaOutcome::Unknown, (0, 100));
        let history =
            [applied(5, (0, 10)), unknown, get(5, (11, 20)), applied(9, (21, 40)), refused(7, (30, 45))];
        assert!(wrong(&history).is_empty());
        assert!(wrong(&[applied(9, (0, 10)), applied(7, (10, 20))]).is_empty(), "they touch");
    }

    #[test]
    fn an_index_that_two_commands_have_is_found() {
        assert_eq!(wrong(&[applied(5, (0, 10)), applied(5, (5, 12))]), [1]);
        assert_eq!(wrong(&[applied(5, (0, 10)), refused(5, (5, 12)), get(5, (5, 13))]), [1]);
    }

    #[test]
    fn a_command_before_one_that_had_ended_is_found() {
        assert_eq!(wrong(&[applied(5, (0, 10)), applied(6, (0, 11)), applied(4, (11, 20))]), [2]);
        assert_eq!(wrong(&[get(5, (0, 10)), refused(5, (11, 20))]), [1], "a get had seen that index");
        assert_eq!(wrong(&[applied(5, (0, 10)), applied(0, (11, 20))]), [1], "no index at all");
    }

    #[test]
    fn a_get_of_an_older_state_than_was_known_is_found() {
        assert_eq!(wrong(&[refused(5, (0, 10)), get(4, (11, 20))]), [1]);
        assert_eq!(wrong(&[get(5, (0, 10)), get(4, (11, 20)), get(4, (9, 21))]), [1]);
    }
}
