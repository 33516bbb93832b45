//! P2: everything that a read shows was sent, as it was sent. Items verify themselves, so that altered bytes are no
//! item at all.

use std::collections::BTreeSet;

use super::Violation;
use crate::history::History;

pub fn check(history: &History) -> Vec<Violation> {
    let sent: BTreeSet<_> = (history.writes.iter())
        .flat_map(|write| write.items.iter().map(|item| (write.signal, *item, write.invoked_ms)))
        .map(|(signal, item, _)| (signal, item))
        .collect();
    let mut violations = Vec::new();
    for read in &history.reads {
        let phantom = |what: String| Violation { promise: "P2 no phantoms", what };
        for strange in &read.strange {
            violations.push(phantom(format!("{:?} at {} ms: {strange}", read.signal, read.completed_ms)));
        }
        for item in read.items.keys().filter(|item| !sent.contains(&(read.signal, **item))) {
            let what = format!("{:?} at {} ms: {item:?} was never sent", read.signal, read.completed_ms);
            violations.push(phantom(what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tests::clean;
    use super::*;
    use crate::workload::Item;

    #[test]
    fn an_item_that_nobody_sent_and_altered_bytes_are_found() {
        let mut history = clean();
        assert_eq!(check(&history), []);
        history.reads[0].items.insert(Item { writer: 99, sequence: 1 }, 1);
        history.reads[0].strange.push("garbled".into());
        assert_eq!(check(&history).len(), 2);
    }
}
