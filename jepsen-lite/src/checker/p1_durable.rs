//! P1: valid items are not rejected, and what was acknowledged is in the last complete read. (The idea of Jepsen's `set` checker.)

use super::Violation;
use crate::history::{History, Outcome};
use crate::workload::Signal;

pub fn check(history: &History) -> Vec<Violation> {
    let rejected = history.writes.iter().filter(|write| write.outcome == Outcome::Rejected);
    let mut violations: Vec<Violation> = rejected
        .map(|write| Violation {
            promise: "P1 durable",
            what: format!("{:?}: valid items of {:?} were rejected", write.signal, write.items),
        })
        .collect();
    for signal in Signal::ALL {
        let Some(read) = history.final_read(signal) else { continue };
        let acknowledged = (history.writes.iter())
            .filter(|write| write.signal == signal && write.outcome == Outcome::Acknowledged)
            .filter(|write| write.completed_ms <= read.invoked_ms);
        for write in acknowledged {
            for item in write.items.iter().filter(|item| !read.items.contains_key(item)) {
                violations.push(Violation {
                    promise: "P1 durable",
                    what: format!("{signal:?}: {item:?}, acknowledged at {} ms, is lost", write.completed_ms),
                });
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tests::clean;
    use super::*;

    #[test]
    fn a_lost_item_is_found() {
        let mut history = clean();
        assert_eq!(check(&history), []);
        let read = history.reads.last_mut().expect("a read");
        read.items.pop_first();
        assert_eq!(check(&history).len(), 1);
    }

    #[test]
    fn a_rejected_valid_item_is_found() {
        let mut history = clean();
        history.writes[0].outcome = Outcome::Rejected;
        assert_eq!(check(&history).len(), 1);
    }

    #[test]
    fn an_item_of_unknown_outcome_may_be_missing() {
        let mut history = clean();
        history.writes[0].outcome = Outcome::Unknown;
        history.reads.iter_mut().for_each(|read| {
            read.items.pop_first();
        });
        assert_eq!(check(&history), []);
    }
}
