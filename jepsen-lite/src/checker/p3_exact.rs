//! P3: no item is there twice, however often it was sent. (Jepsen's `set-full` does not report duplicates; this does.)

use super::Violation;
use crate::history::History;

pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for read in &history.reads {
        for (item, count) in read.items.iter().filter(|(_, count)| **count != 1) {
            violations.push(Violation {
                promise: "P3 exact counts",
                what: format!(
                    "{:?} at {} ms: {item:?} is there {count} times",
                    read.signal, read.completed_ms
                ),
            });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tests::clean;
    use super::*;

    #[test]
    fn a_duplicate_is_found() {
        let mut history = clean();
        assert_eq!(check(&history), []);
        *history.reads[0].items.first_entry().expect("an item").get_mut() = 2;
        assert_eq!(check(&history).len(), 1);
    }
}
