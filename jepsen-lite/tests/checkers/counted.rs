//! Duplicates, echoes, counts and digests.

use jepsen_lite::checker::Promise::*;
use jepsen_lite::history::event::{Outcome, Read, Way};
use jepsen_lite::workload::item::Signal;

use crate::model::*;

#[test]
fn an_item_that_is_there_twice_is_found() {
    let mut history = clean(1);
    let read = history.reads().find(|read| read.seen.contains_key(&1)).unwrap();
    let sequence = read.seen[&1][0].0;
    read.repeated.push((1, sequence, 2));
    assert_eq!(history.broken(), [P3], "{}", history.verdict());
}

/// A number that two acknowledged writes carry, in quiet times.
fn echo(history: &mut History) -> (u32, u64, u64) {
    let mut carried = std::collections::BTreeMap::new();
    for write in history.writes().filter(|write| write.outcome == Outcome::Acknowledged) {
        let Some(echo) = write.echo else { continue };
        let (count, last_us) = carried.entry((write.writer, echo)).or_insert((0, 0));
        *count += 1;
        *last_us = write.completed_us.max(*last_us);
    }
    let found = carried.into_iter().find(|(_, (count, last_us))| *count == 2 && *last_us > S);
    let ((writer, echo), (_, last_us)) = found.unwrap();
    (writer, echo, last_us)
}

/// Changes how often an echo is shown; whether any read showed it.
fn show_echo(history: &mut History, number: (u32, u64), from_us: u64, change: impl Fn(u32) -> u32) -> u32 {
    let mut changed = 0;
    for read in history.reads().filter(|read| read.signal == Signal::Logs && read.invoked_us > from_us) {
        let Some(echoes) = read.echoes.get_mut(&number.0) else { continue };
        for (echo, count) in echoes.iter_mut().filter(|(echo, _)| *echo == number.1) {
            assert_eq!(*echo, number.1);
            *count = change(*count);
            changed += 1;
        }
        echoes.retain(|(_, count)| *count > 0);
        normalise(read);
    }
    changed
}

#[test]
fn identical_records_of_two_requests_that_became_one_are_found() {
    for seed in 0..8 {
        let mut history = clean(seed);
        let (writer, number, last_us) = echo(&mut history);
        assert!(show_echo(&mut history, (writer, number), last_us, |_| 1) > 0);
        assert_eq!(history.broken(), [P3], "{}", history.verdict());
    }
}

#[test]
fn an_identical_record_more_than_was_sent_is_found() {
    let mut history = clean(2);
    let (writer, number, last_us) = echo(&mut history);
    assert!(show_echo(&mut history, (writer, number), last_us, |count| count + 1) > 0);
    assert_eq!(history.broken(), [P3], "{}", history.verdict());
}

#[test]
fn records_that_are_all_gone_are_lost() {
    let mut history = clean(2);
    let (writer, number, last_us) = echo(&mut history);
    assert!(show_echo(&mut history, (writer, number), last_us, |_| 0) > 0);
    assert_eq!(history.broken(), [P1], "{}", history.verdict());
}

#[test]
fn a_record_that_no_request_carries_is_a_phantom() {
    let mut history = clean(2);
    let read = history.reads().find(|read| read.signal == Signal::Logs).unwrap();
    read.echoes.entry(0).or_default().push((read.scope.to - 1, 1));
    normalise(read);
    assert_eq!(history.broken(), [P2], "{}", history.verdict());
}

#[test]
fn counts_above_what_was_sent_and_below_what_is_due_are_found() {
    for excess in [1_000_i64, -1] {
        let mut history = clean(3);
        let count = history.counts().filter(|count| !count.partial && count.total > 20).last().unwrap();
        let change = if excess < 0 { -(count.total as i64) } else { excess };
        count.total = count.total.checked_add_signed(change).unwrap();
        assert_eq!(history.broken(), [P3], "{}", history.verdict());
    }
}

#[test]
fn a_partial_count_may_be_low_and_not_high() {
    let mut history = clean(3);
    let count = history.counts().filter(|count| count.total > 20).last().unwrap();
    (count.partial, count.total) = (true, 0);
    assert_eq!(history.broken(), []);
    let count = history.counts().filter(|count| count.partial).last().unwrap();
    count.total = 1_000_000;
    assert_eq!(history.broken(), [P3]);
}

/// The second read of two that show the same of the same scope.
fn read_again(history: &mut History, way: Way) -> Option<&mut Read> {
    let mut kept = std::collections::BTreeMap::new();
    history.reads().filter(|read| read.way == way && !read.partial && !read.seen.is_empty()).find(|read| {
        let scope = &read.scope;
        let key = (read.signal, scope.writers.start, scope.writers.end, scope.from);
        let shown = (read.seen.clone(), read.echoes.clone());
        kept.insert(key, shown.clone()) == Some(shown)
    })
}

#[test]
fn other_bytes_of_the_same_items_are_found() {
    for way in [Way::Search, Way::TraceById] {
        let found = (0..30).map(clean).find_map(|mut history| {
            read_again(&mut history, way)?.digest += 1;
            Some(history)
        });
        let history = found.expect("a scope that is read twice");
        assert_eq!(history.broken(), [P7], "{}", history.verdict());
    }
}
