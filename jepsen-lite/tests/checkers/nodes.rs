//! What nodes say and do: epochs, terms, refusals, deaths, memory, moves and the loss of the meta majority.

use jepsen_lite::checker::Promise::*;
use jepsen_lite::history::event::{Died, Event, Outcome};
use jepsen_lite::verdict::Judgement;
use jepsen_lite::workload::item::Signal;

use crate::model::*;

#[test]
fn epochs_and_terms_that_fall_are_found() {
    let mut history = clean(1);
    let sample = history.samples().filter(|sample| sample.node == "storage-2").nth(20).unwrap();
    let shard = sample.shards.get_mut(&5).unwrap();
    (shard.epoch, shard.set) = (6, vec!["storage-9".into()]);
    assert_eq!(history.broken(), [P6], "{}", history.verdict());
    let mut history = clean(1);
    let sample = history.samples().filter(|sample| sample.node == "meta-1").last().unwrap();
    (sample.term, sample.leader, sample.boot) = (1, None, 2);
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P6], "{verdict}");
    assert!(verdict.violations[0].what.contains("meta-3 was in term 3 of the meta group"), "{verdict}");
}

/// Cut off from the others, a member stands for election in term after term, which they never hear of.
#[test]
fn members_may_be_in_different_terms() {
    let mut history = clean(1);
    let sample = history.samples().filter(|sample| sample.node == "front-1").nth(5).unwrap();
    (sample.seen_by, sample.term, sample.leader) = (Some("meta-1".into()), 9, None);
    assert_eq!(history.broken(), []);
}

#[test]
fn a_front_that_starts_again_may_know_less_for_a_while() {
    let mut history = clean(1);
    let sample = history.samples().filter(|sample| sample.node == "front-1").last().unwrap();
    let shard = sample.shards.get_mut(&5).unwrap();
    (shard.epoch, shard.set[2], sample.boot) = (7, "storage-3".into(), 2);
    (sample.term, sample.leader) = (2, Some("meta-2".into()));
    sample.seen_by = sample.leader.clone();
    assert_eq!(history.broken(), []);
}

#[test]
fn two_sets_of_an_epoch_and_two_leaders_of_a_term_are_found() {
    let mut history = clean(1);
    history.samples().nth(40).unwrap().shards.get_mut(&5).unwrap().set[0] = "storage-9".into();
    assert_eq!(history.broken(), [P6], "{}", history.verdict());
    let mut history = clean(1);
    history.samples().nth(40).unwrap().leader = Some("meta-1".into());
    assert_eq!(history.broken(), [P6], "{}", history.verdict());
    let mut history = clean(1);
    history.samples().nth(40).unwrap().shards.get_mut(&5).unwrap().set.reverse();
    assert_eq!(history.broken(), [], "the order of a set says nothing");
}

#[test]
fn bad_input_that_is_accepted_unexplained_or_breaks_something_is_found() {
    let wrong = [(Some(200), true), (Some(404), true), (Some(400), false), (Some(500), true), (None, false)];
    for (status, explained) in wrong {
        // In a quiet second.
        let mut history = clean(1);
        let probe =
            history.probes().find(|probe| probe.expect == [400] && probe.invoked_us > 52 * S).unwrap();
        (probe.status, probe.explained) = (status, explained);
        assert_eq!(history.broken(), [P8], "{}", history.verdict());
    }
    // Where a fault is in force, a server may fail; it may still not accept.
    for (status, broken) in [(Some(503), vec![]), (None, vec![]), (Some(200), vec![P8])] {
        let mut history = clean(1);
        let probe = history.probes().find(|probe| probe.expect == [400] && probe.invoked_us > 8 * S).unwrap();
        probe.status = status;
        assert_eq!(history.broken(), broken, "{}", history.verdict());
    }
}

#[test]
fn a_process_that_dies_by_itself_is_found_and_one_that_was_killed_is_not() {
    let died = |at_us: u64, node: &str| {
        let mut history = clean(1);
        history.events.push(Event::Died(Died {
            at_us,
            node: node.into(),
            how: "panicked at store.rs".into(),
        }));
        history.sort();
        history.broken()
    };
    assert_eq!(died(55 * S, "storage-1"), [P8]);
    // Kill is the first fault, from 5 s on, and strikes storage-1.
    assert_eq!(died(5 * S + S / 2, "storage-1"), []);
    assert_eq!(died(5 * S + S / 2, "storage-2"), [P8]);
    // A process that dies when it starts again after a power loss was not ended by it.
    assert_eq!(died(7 * S - S / 4, "storage-1"), [P8]);
}

#[test]
fn overload_without_a_delay_and_memory_over_the_budget_are_found() {
    let mut history = clean(1);
    history.probes().find(|probe| probe.kind == "overload").unwrap().retry_after = false;
    assert_eq!(history.broken(), [P9], "{}", history.verdict());
    let mut history = clean(1);
    history.samples().nth(30).unwrap().resident_bytes = (1 << 30) + 1;
    history.samples().nth(33).unwrap().resident_bytes = 2 << 30;
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P9], "{verdict}");
    assert!(verdict.violations[0].what.contains("2048 MiB"), "{verdict}");
    let mut history = clean(1);
    let sample = history.samples().nth(30).unwrap();
    (sample.request_bytes, sample.request_bytes_max) = (1_001, 1_000);
    assert_eq!(history.broken(), [P9], "{}", history.verdict());
}

/// Acknowledgements of logs stop for seven seconds.
fn stopped(from_us: u64) -> History {
    let mut history = clean(1);
    for write in history.writes().filter(|write| write.signal == Signal::Logs) {
        if (from_us..from_us + 7 * S).contains(&write.completed_us) {
            write.completed_us = from_us + 7 * S;
        }
    }
    history.sort();
    history
}

#[test]
fn ingest_that_stops_while_a_shard_moves_is_found() {
    let verdict = stopped(51 * S).verdict();
    assert_eq!(stopped(51 * S).broken(), [P7], "{verdict}");
    assert!(verdict.violations[0].what.contains("no logs were acknowledged"), "{verdict}");
    assert_eq!(stopped(10 * S).broken(), [], "faults were in force");
}

#[test]
fn a_data_path_that_needs_a_leader_is_found() {
    let mut history = clean(1);
    for write in history.writes().filter(|write| (META_US.0..META_US.1).contains(&write.invoked_us)) {
        write.outcome = Outcome::Unknown;
    }
    assert_eq!(history.broken(), [P10], "{}", history.verdict());
    let mut history = clean(1);
    let inside = |at_us: u64| (META_US.0..META_US.1).contains(&at_us);
    history.reads().filter(|read| inside(read.invoked_us)).for_each(|read| read.partial = true);
    history.counts().filter(|count| inside(count.invoked_us)).for_each(|count| count.partial = true);
    assert_eq!(history.broken(), [P10], "{}", history.verdict());
}

#[test]
fn where_nothing_was_tried_without_a_leader_nothing_is_known() {
    let mut history = clean(1);
    let inside = |at_us: u64| (META_US.0..META_US.1).contains(&at_us);
    history.events.retain(|event| match event {
        Event::Read(read) => !inside(read.invoked_us),
        Event::Count(count) => !inside(count.invoked_us),
        _ => true,
    });
    let verdict = history.verdict();
    assert_eq!(verdict.result, Judgement::Unknown, "{verdict}");
    assert!(verdict.missing[0].contains("data path without leader"), "{verdict}");
}
