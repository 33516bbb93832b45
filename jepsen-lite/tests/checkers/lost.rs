//! Items that are lost, hidden, late, altered or forged.

use jepsen_lite::checker::Promise::*;
use jepsen_lite::history::event::{Event, Outcome, Read, Scope, Way, Write};
use jepsen_lite::workload::item::Signal;

use crate::model::*;

const SEEDS: std::ops::Range<u64> = 0..8;

/// An acknowledged item of the quiet time before the first fault; when its write ended.
fn acknowledged(history: &mut History, signal: Signal) -> (u32, u64, u64) {
    let found = history.writes().find(|write| {
        write.signal == signal && write.outcome == Outcome::Acknowledged && write.completed_us > S
    });
    let write = found.expect("a write early on");
    (write.writer, write.from, write.completed_us)
}

fn covers(read: &Read, signal: Signal, writer: u32, sequence: u64) -> bool {
    let scope = &read.scope;
    let inside = scope.writers.contains(&writer) && (scope.from..scope.to).contains(&sequence);
    read.signal == signal && read.way == Way::Search && inside
}

#[test]
fn an_item_that_no_later_read_shows_is_lost_and_nothing_else() {
    for (seed, signal) in SEEDS.zip(Signal::ALL.into_iter().cycle()) {
        let mut history = clean(seed);
        let (writer, sequence, at_us) = acknowledged(&mut history, signal);
        let hidden = history
            .reads()
            .filter(|read| read.invoked_us > at_us + S)
            .fold(0, |count, read| count + u64::from(read.signal == signal && hide(read, writer, sequence)));
        assert!(hidden > 0);
        let verdict = history.verdict();
        assert_eq!(history.broken(), [P1], "{verdict}");
        let item = verdict.violations[0].item.unwrap();
        assert_eq!((item.signal, item.writer, item.sequence), (signal, writer, sequence));
        assert_eq!(verdict.summary.lost, 1);
        assert!(
            verdict.violations[0].what.contains(&format!("sequences {sequence}..{} (1 item)", sequence + 1))
        );
    }
}

#[test]
fn a_lost_range_is_one_violation() {
    let mut history = clean(3);
    let (writer, _, _) = acknowledged(&mut history, Signal::Logs);
    for read in history.reads().filter(|read| read.signal == Signal::Logs) {
        (20..60).for_each(|sequence| {
            hide(read, writer, sequence);
        });
    }
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P1], "{verdict}");
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    assert!(verdict.violations[0].what.contains("acknowledged"), "{verdict}");
}

#[test]
fn an_item_that_one_read_lacks_was_hidden() {
    for seed in SEEDS {
        let mut history = clean(seed);
        let (writer, sequence, _) = acknowledged(&mut history, Signal::Logs);
        let mut covering: Vec<&mut Read> = history
            .reads()
            .filter(|read| !read.partial && !read.last && covers(read, Signal::Logs, writer, sequence))
            .filter(|read| {
                read.seen
                    .get(&writer)
                    .is_some_and(|seen| seen.iter().any(|(from, to)| (*from..*to).contains(&sequence)))
            })
            .collect();
        assert!(covering.len() > 2, "seed {seed}");
        let which = covering.len() / 2;
        assert!(hide(covering[which], writer, sequence));
        assert_eq!(history.broken(), [P4, P5], "{}", history.verdict());
    }
}

#[test]
fn an_item_that_shows_late_is_not_visible_and_nothing_else() {
    for seed in SEEDS {
        let mut history = clean(seed);
        // In the quiet end, so that no fault can have kept anything out of reach.
        let found = history.writes().find(|write| {
            write.signal == Signal::Metrics
                && write.outcome == Outcome::Acknowledged
                && write.completed_us > 50 * S
        });
        let write = found.unwrap().clone();
        let until_us = write.completed_us + 5 * S;
        let mut late = false;
        for read in
            history.reads().filter(|read| read.signal == Signal::Metrics && read.invoked_us < until_us)
        {
            let complete = !read.partial && read.invoked_us > write.completed_us;
            late |= hide(read, write.writer, write.from) && complete;
        }
        let expected = if late { vec![P4] } else { vec![] };
        assert_eq!(history.broken(), expected, "{}", history.verdict());
    }
}

#[test]
fn a_partial_answer_that_says_that_it_is_complete_is_found() {
    let mut swallowed = 0;
    for seed in SEEDS {
        let mut history = clean(seed);
        history.reads().for_each(|read| read.partial = false);
        let verdict = history.verdict();
        assert_eq!(history.broken(), [P4, P5], "{verdict}");
        let said = verdict.violations.iter().filter(|found| found.promise == P5);
        swallowed += said.filter(|found| found.what.contains("under ")).count();
    }
    assert!(swallowed > 8, "the faults in force are named");
}

#[test]
fn answers_that_stay_partial_after_healing_are_found() {
    let mut history = clean(1);
    let read = history.reads().filter(|read| read.last).last().unwrap();
    read.partial = true;
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P5], "{verdict}");
    assert!(verdict.violations[0].what.contains("after healing"), "{verdict}");
}

#[test]
fn a_session_does_not_see_less_at_the_same_moment() {
    let mut history = clean(2);
    // Of a write that is not acknowledged, so that nothing but the session's own read makes it due.
    let scope = Scope { writers: 0..1, from: 100_096, to: 100_352 };
    let (from, to) = (100_100, 100_110);
    let write =
        Write { from, to, invoked_us: S, completed_us: 2 * S, outcome: Outcome::Unknown, ..Write::default() };
    let (invoked_us, completed_us) = (55 * S, 56 * S);
    let mut first = Read { session: 4, scope, invoked_us, completed_us, ..Read::default() };
    let second = Read { invoked_us: completed_us, completed_us: 57 * S, ..first.clone() };
    first.seen.insert(0, vec![(from, to)]);
    history.events.extend([Event::Write(write), Event::Read(first), Event::Read(second.clone())]);
    history.sort();
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P4], "{verdict}");
    assert!(verdict.violations[0].what.contains("shown to session 4"), "{verdict}");
    // To another session, reads at the same moment have no order.
    history.reads().filter(|read| read.completed_us == second.completed_us).for_each(|read| read.session = 5);
    assert_eq!(history.broken(), []);
}

#[test]
fn altered_bytes_are_no_item() {
    for seed in SEEDS {
        let mut history = clean(seed);
        let (writer, sequence, at_us) = acknowledged(&mut history, Signal::Metrics);
        for read in
            history.reads().filter(|read| read.signal == Signal::Metrics && read.invoked_us > at_us + S)
        {
            if hide(read, writer, sequence) {
                read.strange.push("value 7".into());
                read.strange_count = 1;
            }
        }
        assert_eq!(history.broken(), [P1, P2], "{}", history.verdict());
    }
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    for (writer, from) in [(0, 1_000_192), (77, 0)] {
        let mut history = clean(4);
        let scope = Scope { writers: writer..writer + 1, from, to: from + CELL };
        let mut read = Read { session: 4, scope, invoked_us: 8 * S, completed_us: 9 * S, ..Read::default() };
        read.seen.insert(writer, vec![(from + 3, from + 4)]);
        history.events.push(Event::Read(read));
        history.sort();
        let verdict = history.verdict();
        assert_eq!(history.broken(), [P2], "{verdict}");
        assert!(verdict.violations[0].what.contains("which nobody sent"), "{verdict}");
    }
}

#[test]
fn what_was_not_asked_for_and_what_is_sent_only_later_are_phantoms() {
    let mut history = clean(4);
    let late = history
        .writes()
        .find(|write| write.invoked_us > 40 * S && write.signal == Signal::Metrics)
        .unwrap()
        .clone();
    let read =
        history.reads().find(|read| read.signal == Signal::Metrics && read.completed_us > 5 * S).unwrap();
    read.seen.entry(late.writer).or_default().push((late.from, late.to));
    normalise(read);
    let verdict = history.verdict();
    assert_eq!(history.broken(), [P2], "{verdict}");
    let said: Vec<&str> = verdict.violations.iter().map(|found| found.what.as_str()).collect();
    assert!(said.iter().any(|what| what.contains("not asked for")), "{verdict}");
    assert!(said.iter().any(|what| what.contains("sent only later")), "{verdict}");
}

#[test]
fn a_refused_valid_write_is_found() {
    let mut history = clean(5);
    let write = history
        .writes()
        .find(|write| write.outcome == Outcome::Acknowledged && write.echo.is_none())
        .unwrap();
    write.outcome = Outcome::Rejected;
    write.why = Some("400: no".into());
    assert_eq!(history.broken(), [P1], "{}", history.verdict());
    assert!(history.verdict().violations[0].what.contains("400: no"));
}
