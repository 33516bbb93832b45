//! A run that proves too little is unknown and says what is missing; a history that was cut off, or is none, too.

use jepsen_lite::checker::Promise::P1;
use jepsen_lite::coverage::{LEADER_HIT, REPLAYED_ROWS};
use jepsen_lite::history::event::{Event, Outcome};
use jepsen_lite::history::file::{HistoryWriter, NAME};
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::verdict::{Judgement, judge};
use jepsen_lite::workload::item::Signal;

use crate::model::*;

#[track_caller]
fn unknown(history: &History, word: &str) {
    let verdict = history.verdict();
    assert_eq!(verdict.result, Judgement::Unknown, "{verdict}");
    assert_eq!(verdict.missing.len(), 1, "{verdict}");
    assert!(verdict.missing[0].contains(word), "{verdict}");
}

#[test]
fn a_kind_that_never_struck_or_only_without_evidence_is_missing() {
    let kinds = FaultKind::ALL.into_iter().filter(|kind| ![FaultKind::Store, FaultKind::Meta].contains(kind));
    for kind in kinds {
        let mut history = clean(1);
        let id = history.events.iter().find_map(|event| match event {
            Event::FaultBegan(fault) if fault.kind == kind => Some(fault.id),
            _ => None,
        });
        for event in &mut history.events {
            if let Event::FaultEnded(ended) = event
                && Some(ended.id) == id
            {
                ended.evidence.values_mut().for_each(|count| *count = 0);
            }
        }
        unknown(&history, &format!("{kind} faults: 1 faults, 0 of them confirmed"));
        history.events.retain(|event| !matches!(event, Event::FaultBegan(fault) if fault.kind == kind));
        let verdict = history.verdict();
        assert!(verdict.missing.iter().any(|missing| missing.contains("no such fault began")), "{verdict}");
    }
}

#[test]
fn faults_of_the_object_store_cannot_be_proven_yet() {
    let mut history = clean(1);
    history.start.faults.push(FaultKind::Store);
    unknown(&history, "does not write to an object store yet");
}

#[test]
fn what_must_happen_beside_faults_is_missing_by_name() {
    for (name, word) in [(REPLAYED_ROWS, "replay"), (LEADER_HIT, "leader hit")] {
        let mut history = clean(1);
        let Some(Event::End(end)) = history.events.last_mut() else { panic!("an end") };
        end.coverage.remove(name);
        unknown(&history, word);
    }
    let mut history = clean(1);
    history.writes().for_each(|write| write.ambiguous = 0);
    unknown(&history, "ambiguous retries");
    // Nobody asked for faults, and so nobody misses them.
    let mut history = clean(1);
    history.start.faults.clear();
    history.writes().for_each(|write| write.ambiguous = 0);
    assert_eq!(history.verdict().result, Judgement::Valid, "{}", history.verdict());
}

#[test]
fn an_acknowledged_item_that_no_last_read_covers_is_unknown_and_not_lost() {
    let mut history = clean(1);
    let last =
        |event: &Event| matches!(event, Event::Read(read) if read.last && read.signal == Signal::Traces);
    let place = history.events.iter().position(last).unwrap();
    history.events.remove(place);
    unknown(&history, "last reads do not cover everything");
    assert!(history.verdict().summary.uncovered > 0);
}

#[test]
fn what_only_partial_answers_are_left_of_is_lost_once_everything_should_have_healed() {
    let partial = || {
        let mut history = clean(1);
        let last = history.events.iter_mut().find_map(|event| match event {
            Event::Read(read) if read.last && read.signal == Signal::Traces => Some(read),
            _ => None,
        });
        let read = last.unwrap();
        (read.partial, read.seen) = (true, Default::default());
        history
    };
    // The model's reads begin 5 s after healing, and its bound is 2 s.
    let verdict = partial().verdict();
    assert!(verdict.violations.iter().any(|violation| violation.promise == P1), "{verdict}");
    assert!(verdict.to_string().contains("cannot be read any more"), "{verdict}");
    let mut early = partial();
    early.start.recover_us_max = 20 * S;
    assert!(
        early.verdict().violations.iter().all(|violation| violation.promise != P1),
        "{}",
        early.verdict()
    );
}

#[test]
fn a_signal_without_acknowledgements_proves_nothing_of_it() {
    let mut history = clean(1);
    history
        .writes()
        .filter(|write| write.signal == Signal::Traces)
        .for_each(|write| write.outcome = Outcome::Unknown);
    let verdict = history.verdict();
    assert_eq!(verdict.result, Judgement::Unknown, "{verdict}");
    assert!(verdict.missing.iter().any(|missing| missing.starts_with("traces acknowledged")), "{verdict}");
}

#[test]
fn what_a_run_could_not_do_makes_it_invalid() {
    let mut history = clean(1);
    let Some(Event::End(end)) = history.events.last_mut() else { panic!("an end") };
    end.failures.push("logs 0..256 cannot be read completely".into());
    let verdict = history.verdict();
    assert_eq!(verdict.result, Judgement::Invalid, "{verdict}");
    assert!(verdict.to_string().contains("BROKEN    liveness: logs 0..256"), "{verdict}");
}

fn write(history: &History, events: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = HistoryWriter::create(dir.path()).unwrap();
    writer.write(&Event::Start(history.start.clone())).unwrap();
    history.events.iter().take(events).for_each(|event| writer.write(event).unwrap());
    writer.finish().unwrap();
    dir
}

#[test]
fn a_saved_history_is_judged_as_it_was_when_it_was_made() {
    let history = clean(1);
    let dir = write(&history, usize::MAX);
    assert_eq!(judge(dir.path()).unwrap(), history.verdict());
}

#[test]
fn a_history_that_was_cut_off_is_unknown_and_its_violations_stay() {
    let mut history = clean(1);
    let dir = write(&history, history.events.len() - 1);
    let verdict = judge(dir.path()).unwrap();
    assert_eq!(verdict.result, Judgement::Unknown, "{verdict}");
    assert!(verdict.missing[0].contains("the history ends at"), "{verdict}");
    history.reads().next().unwrap().repeated.push((0, 1, 2));
    let half = history.events.len() / 2;
    let verdict = judge(write(&history, half).path()).unwrap();
    assert_eq!(verdict.result, Judgement::Invalid, "{verdict}");
    assert_eq!(verdict.violations.len(), 1, "writes that were under way are no phantoms: {verdict}");
    // In the middle of the compressed bytes.
    let dir = write(&history, usize::MAX);
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(NAME)).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let verdict = judge(dir.path());
    assert!(verdict.is_ok_and(|verdict| verdict.missing[0].contains("the history ends at")));
}

#[test]
fn a_directory_without_a_history_is_an_error_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let error = judge(dir.path()).unwrap_err();
    assert!(error.starts_with("cannot read the history ") && error.contains(NAME), "{error}");
}
