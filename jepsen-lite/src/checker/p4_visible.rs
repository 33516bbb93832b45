//! P4: a complete read sees everything that was acknowledged before it began, and everything that an earlier complete
//! read has shown. (The visibility part of Jepsen's `set-full`.)

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{History, Outcome};
use crate::workload::{Item, Signal};

pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for signal in Signal::ALL {
        let reads: Vec<_> =
            history.reads.iter().filter(|read| read.signal == signal && !read.partial).collect();
        // When each item first had to be seen, and why.
        let mut due: BTreeMap<Item, (u64, &str)> = BTreeMap::new();
        let mut owe = |item: Item, at_ms: u64, why: &'static str| {
            let entry = due.entry(item).or_insert((at_ms, why));
            if at_ms < entry.0 {
                *entry = (at_ms, why);
            }
        };
        for write in history.writes.iter().filter(|write| write.signal == signal) {
            if write.outcome == Outcome::Acknowledged {
                write.items.iter().for_each(|item| owe(*item, write.completed_ms, "acknowledged"));
            }
        }
        for read in &reads {
            read.items.keys().for_each(|item| owe(*item, read.completed_ms, "shown"));
        }
        for read in &reads {
            let missing = due
                .iter()
                .filter(|(item, (at_ms, _))| *at_ms < read.invoked_ms && !read.items.contains_key(item));
            for (item, (at_ms, why)) in missing {
                violations.push(Violation {
                    promise: "P4 visible",
                    what: format!(
                        "{signal:?}: {item:?}, {why} at {at_ms} ms, is not in the read that began at {} ms",
                        read.invoked_ms
                    ),
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
    fn an_item_that_disappears_between_two_reads_is_found() {
        let mut history = clean();
        assert_eq!(check(&history), []);
        let last = history.reads.len() - 1;
        history.reads[last].items.pop_first();
        assert!(!check(&history).is_empty());
    }

    #[test]
    fn a_partial_read_may_miss_anything() {
        let mut history = clean();
        history.reads[0].items.clear();
        history.reads[0].partial = true;
        assert_eq!(check(&history), []);
    }
}
