//! The search against every order of small random histories, and large ones in bounded work.

use oteld_cluster::command::{Command, Rejected};
use oteld_cluster::ids::{ClusterId, MetaId};
use oteld_cluster::state::{ClusterState, Settings};
use oteld_env::Random;
use proptest::prelude::*;

use super::brute_force::{is_linearizable, set};
use super::*;

const STATES_MAX: u64 = 1_000_000;

fn operation(call: MetaCall, outcome: MetaOutcome, time: (u64, u64)) -> MetaOp {
    MetaOp { session: 0, key: 0, call, outcome, invoked_us: time.0, completed_us: time.1 }
}

fn get(value: Option<u64>, time: (u64, u64)) -> MetaOp {
    operation(MetaCall::Get, MetaOutcome::Value { value, index: 0 }, time)
}

fn cas(expect: Option<u64>, to: Option<u64>, outcome: MetaOutcome, time: (u64, u64)) -> MetaOp {
    operation(MetaCall::CompareAndSet { expect, to }, outcome, time)
}

const APPLIED: MetaOutcome = MetaOutcome::Applied { index: 0 };
const UNKNOWN: MetaOutcome = MetaOutcome::Unknown;

fn differs(actual: Option<u64>) -> MetaOutcome {
    MetaOutcome::Differs { actual, index: 0 }
}

fn counterexample(history: &[MetaOp]) -> Counterexample {
    match check(history, STATES_MAX) {
        Answer::Not(counterexample) => *counterexample,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_model_is_the_setting_of_the_metadata() {
    let values = [None, Some(1), Some(2), Some(3)];
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    for value in values {
        for expect in values {
            for to in values {
                let mut state = ClusterState::default();
                let settings = Settings { replication_factor: 1, shards: 1, ..Settings::default() };
                let cluster = ClusterId(1);
                let named = state.apply(1, Command::InitCluster { cluster, settings, next_meta: MetaId(2) });
                named.expect("a new cluster takes its name");
                state.options.extend(text(value).map(|value| ("x".to_owned(), value)));
                let command = Command::SetSetting { name: "x".into(), expect: text(expect), to: text(to) };
                match (set(value, expect, to), state.apply(2, command)) {
                    (Ok(now), Ok(_)) => assert_eq!(state.options.get("x"), text(now).as_ref()),
                    (Err(found), Err(Rejected::Differs { actual, .. })) => assert_eq!(actual, text(found)),
                    (model, real) => panic!("{value:?} {expect:?} {to:?}: {model:?}, {real:?}"),
                }
            }
        }
    }
}

#[test]
fn a_stale_get_is_found_and_explained() {
    let history = [
        cas(None, Some(1), APPLIED, (0, 10)),
        cas(Some(1), Some(2), APPLIED, (20, 30)),
        get(Some(1), (40, 50)),
        get(Some(2), (60, 70)),
    ];
    let found = counterexample(&history);
    assert_eq!((found.operations, &found.last), (3, &history[2]));
    assert_eq!((found.before.as_slice(), found.could_hold.as_slice()), (&history[..2], &[Some(2)][..]));
    let text = found.to_string();
    assert!(text.contains("the first 3 operations") && text.contains("it can have held 2"), "{text}");
    let concurrent = [history[0].clone(), history[1].clone(), get(Some(1), (25, 50)), get(Some(2), (60, 70))];
    assert_eq!(check(&concurrent, STATES_MAX), Answer::Linearizable);
}

#[test]
fn one_value_has_one_successor_and_a_refusal_tells_the_truth() {
    let first = cas(None, Some(1), APPLIED, (0, 10));
    let two_winners =
        [first.clone(), cas(Some(1), Some(2), APPLIED, (20, 30)), cas(Some(1), Some(3), APPLIED, (20, 30))];
    assert_eq!(counterexample(&two_winners).operations, 3);
    let lie = [first.clone(), cas(Some(1), Some(2), differs(Some(1)), (20, 30))];
    assert_eq!(counterexample(&lie).last, lie[1]);
    let from_nowhere = [first, cas(Some(2), Some(3), differs(Some(7)), (20, 30))];
    assert_eq!(counterexample(&from_nowhere).last, from_nowhere[1]);
}

#[test]
fn an_unknown_outcome_may_come_late_or_never_but_only_once_and_not_before_it_was_asked_for() {
    let unknown = cas(None, Some(1), UNKNOWN, (10, 20));
    let sees = |value, time| get(value, (time, time + 1));
    let holds = |gets: &[MetaOp]| {
        let history: Vec<MetaOp> = [std::slice::from_ref(&unknown), gets].concat();
        check(&history, STATES_MAX) == Answer::Linearizable
    };
    assert!(holds(&[]) && holds(&[sees(None, 30)]) && holds(&[sees(None, 30), sees(Some(1), 1_000_000)]));
    assert!(!holds(&[sees(Some(1), 30), sees(None, 40)]));
    assert!(!holds(&[sees(Some(1), 5)]));
    let overtaken = [cas(None, Some(2), APPLIED, (30, 40)), sees(Some(1), 50)];
    assert!(!holds(&overtaken), "what it expects was gone");
}

#[test]
fn unknown_outcomes_that_nobody_saw_are_dropped_and_those_that_somebody_saw_are_decided() {
    let history = [
        cas(None, Some(1), UNKNOWN, (0, 5)),
        cas(Some(1), Some(2), UNKNOWN, (10, 15)),
        cas(Some(1), Some(3), UNKNOWN, (10, 15)),
        cas(Some(3), Some(4), UNKNOWN, (20, 25)),
        get(Some(2), (30, 40)),
    ];
    let resolved = resolve::resolve(&history);
    let kept: Vec<_> = resolved.iter().map(|o| (o.place, o.effect, o.until_us)).collect();
    let set = |expect, to| Effect::Set { expect, to: Some(to) };
    let expected =
        [(0, set(None, 1), Some(40)), (1, set(Some(1), 2), Some(40)), (4, Effect::Saw(Some(2)), Some(40))];
    assert_eq!(kept, expected);
}

#[test]
fn a_search_without_end_is_given_up() {
    // Unknown operations from every value to every other one: any walk is possible.
    let mut history = Vec::new();
    for from in 0..8 {
        let value = |number: u64| (number > 0).then_some(number);
        history.extend((0..8).map(|to| cas(value(from), value(to), UNKNOWN, (from, 10))));
    }
    history.push(get(Some(1), (100, 101)));
    assert!(matches!(check(&history, 10_000), Answer::Undecided(_)));
}

/// What a random history is made of: for each operation when it begins, takes effect and ends, what it does, and
/// whether its client gets to know.
#[derive(Clone, Debug)]
struct Plan {
    begins: u64,
    effect_after: u64,
    ends_after: u64,
    cas: Option<(Option<u64>, Option<u64>)>,
    /// 0: no answer, though it took effect; 1: no answer, and no effect; 2: no effect for sure; else an answer.
    fate: u8,
}

fn plans(values: u64) -> impl Strategy<Value = Vec<Plan>> {
    let value = move || (0..=values).prop_map(|value| (value > 0).then_some(value));
    let plan = (0..40u64, 0..8u64, 0..8u64, prop::option::weighted(0.7, (value(), value())), 0..8u8);
    let plan = plan.prop_map(|(begins, effect_after, ends_after, cas, fate)| Plan {
        begins,
        effect_after,
        ends_after,
        cas,
        fate,
    });
    prop::collection::vec(plan, 1..=8)
}

/// The history of a register that does as planned.
fn play(plans: &[Plan], unique: bool) -> Vec<MetaOp> {
    let mut order: Vec<(usize, &Plan)> = plans.iter().enumerate().collect();
    order.sort_by_key(|(_, plan)| plan.begins + plan.effect_after);
    let (mut register, mut history, mut written) = (None, Vec::new(), vec![None]);
    for (number, plan) in order {
        let call = match plan.cas {
            None => MetaCall::Get,
            Some((expect, to)) if !unique => MetaCall::CompareAndSet { expect, to },
            // What was written last, or an older value.
            Some((choice, _)) => {
                let back = choice.unwrap_or(0).saturating_sub(1) as usize;
                let expect = written[written.len().saturating_sub(1 + back)];
                let to = Some(100 + number as u64);
                written.push(to);
                MetaCall::CompareAndSet { expect, to }
            }
        };
        let acts = !matches!(plan.fate, 1 | 2);
        let answer = match call {
            MetaCall::Get => MetaOutcome::Value { value: register, index: 0 },
            MetaCall::CompareAndSet { expect, to } => match set(register, expect, to) {
                Ok(now) => {
                    register = if acts { now } else { register };
                    APPLIED
                }
                Err(actual) => differs(actual),
            },
        };
        let outcome = match plan.fate {
            0 | 1 => UNKNOWN,
            2 => MetaOutcome::Failed,
            _ => answer,
        };
        // A client that gets no answer may give up before the effect.
        let effect_after = if plan.fate == 0 { 0 } else { plan.effect_after };
        let ends = plan.begins + effect_after + plan.ends_after;
        history.push(operation(call, outcome, (plan.begins, ends)));
    }
    history.sort_by_key(|operation| operation.completed_us);
    history
}

/// Changes one operation, in a way that may or may not break the history.
fn mutate(history: &mut Vec<MetaOp>, place: usize, how: u8, value: Option<u64>) {
    let place = place % history.len();
    let operation = &mut history[place];
    match (how, &mut operation.outcome) {
        (0, _) => {
            operation.invoked_us += 15;
            operation.completed_us += 15;
        }
        (1, _) => {
            history.remove(place);
        }
        (2, outcome @ MetaOutcome::Applied { .. }) => *outcome = differs(value),
        (2, outcome @ MetaOutcome::Differs { .. }) => *outcome = APPLIED,
        (3, outcome @ MetaOutcome::Unknown) if operation.call != MetaCall::Get => *outcome = APPLIED,
        (4, outcome @ MetaOutcome::Applied { .. }) => *outcome = MetaOutcome::Failed,
        (_, MetaOutcome::Value { value: seen, .. }) => *seen = value,
        (_, MetaOutcome::Differs { actual, .. }) => *actual = value,
        _ => operation.completed_us = operation.invoked_us,
    }
    history.sort_by_key(|operation| operation.completed_us);
}

fn assert_agreement(history: &[MetaOp]) -> bool {
    let plain = is_linearizable(history);
    let answer = check(history, STATES_MAX);
    match &answer {
        Answer::Linearizable => assert!(plain, "no order exists: {history:#?}"),
        Answer::Not(found) => assert!(!plain, "an order exists: {history:#?}\n{found}"),
        Answer::Undecided(why) => panic!("{why}: {history:#?}"),
    }
    plain
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn histories_of_a_register_are_linearizable(plans in plans(3), unique: bool) {
        prop_assert!(assert_agreement(&play(&plans, unique)));
    }

    #[test]
    fn both_searches_agree_on_changed_histories(
        plans in plans(3),
        unique: bool,
        changes in prop::collection::vec((0..8usize, 0..7u8, prop::option::of(1..5u64)), 1..3),
    ) {
        let mut history = play(&plans, unique);
        for (place, how, value) in changes {
            if !history.is_empty() {
                // Unique histories write 100 and up.
                let value = value.map(|value| if unique { 99 + value } else { value });
                mutate(&mut history, place, how, value);
            }
        }
        assert_agreement(&history);
    }

    #[test]
    fn both_searches_agree_on_histories_of_no_register_at_all(
        raw in prop::collection::vec((0..30u64, 0..20u64, 0..5u64, 0..5u64, 0..6u8), 1..=7),
    ) {
        let value = |value: u64| value.checked_sub(1);
        let history: Vec<MetaOp> = raw
            .into_iter()
            .map(|(begins, lasts, a, b, kind)| {
                let time = (begins, begins + lasts);
                match kind {
                    0 | 1 => get(value(a), time),
                    2 => cas(value(a), value(b), differs(value(a + b)), time),
                    3 => cas(value(a), value(b), UNKNOWN, time),
                    _ => cas(value(a), value(b), APPLIED, time),
                }
            })
            .collect();
        assert_agreement(&history);
    }
}

#[test]
fn changed_histories_are_of_both_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut broken, strategy) = (0, plans(3));
    for round in 0..500u64 {
        let plans = strategy.new_tree(&mut runner).expect("there are plans").current();
        let mut history = play(&plans, round % 2 == 0);
        mutate(&mut history, round as usize, (round % 7) as u8, Some(101 + round % 3));
        broken += u32::from(!history.is_empty() && !is_linearizable(&history));
    }
    assert!((50..450).contains(&broken), "{broken} of 500 are broken");
}

/// A long history of one register under faults: sessions in parallel, of which some never get their answers.
fn long_history(operations: usize, deletes: bool) -> Vec<MetaOp> {
    const SESSIONS: usize = 10;
    let random = Random::from_seed(7);
    let (mut register, mut history) = (None, Vec::with_capacity(operations));
    let mut free_at = [0u64; SESSIONS];
    let mut known = [None; SESSIONS];
    let mut points: Vec<(u64, usize)> = (0..SESSIONS).map(|session| (session as u64, session)).collect();
    for number in 0..operations as u64 {
        points.sort_unstable();
        let (point, session) = points[0];
        // In a third of the time, nearly no answer comes.
        let stormy = point / 20_000 % 3 == 0;
        let unknown = random.in_range(0..10) < if stormy { 8 } else { 1 };
        let acts = !unknown || random.in_range(0..2) == 0;
        let call = if random.in_range(0..2) == 0 {
            MetaCall::Get
        } else {
            let to = (!deletes || random.in_range(0..10) > 0).then_some(number + 1);
            MetaCall::CompareAndSet { expect: known[session], to }
        };
        let outcome = match call {
            MetaCall::Get => MetaOutcome::Value { value: register, index: 0 },
            MetaCall::CompareAndSet { expect, to } => match set(register, expect, to) {
                Ok(now) => {
                    register = if acts { now } else { register };
                    APPLIED
                }
                Err(actual) => differs(actual),
            },
        };
        let outcome = if unknown { UNKNOWN } else { outcome };
        match (call, outcome) {
            (_, MetaOutcome::Value { value, .. }) => known[session] = value,
            (MetaCall::CompareAndSet { to, .. }, MetaOutcome::Applied { .. }) => known[session] = to,
            (_, MetaOutcome::Differs { actual, .. }) => known[session] = actual,
            _ => {}
        }
        let ends = point + random.in_range(0..300);
        let session_ended = free_at[session];
        let begins = session_ended.max(point.saturating_sub(300)).min(point);
        free_at[session] = ends + 1;
        points[0].0 = ends + 1 + random.in_range(0..300);
        let mut done = operation(call, outcome, (begins, ends));
        done.session = session as u32;
        history.push(done);
    }
    history.sort_by_key(|operation| operation.completed_us);
    history
}

#[test]
fn thousands_of_operations_with_many_unknown_outcomes_take_bounded_work() {
    for deletes in [false, true] {
        let mut history = long_history(10_000, deletes);
        let unknown = history.iter().filter(|operation| operation.outcome == UNKNOWN).count();
        assert!(unknown > 2_000, "{unknown}");
        assert_eq!(check(&history, STATES_MAX), Answer::Linearizable);
        // The last get that saw a value sees the one of an early get.
        let old = history.iter().find_map(|operation| match operation.outcome {
            MetaOutcome::Value { value: Some(value), .. } => Some(value),
            _ => None,
        });
        let late = history.iter_mut().rev().find_map(|operation| match &mut operation.outcome {
            MetaOutcome::Value { value, .. } => Some(value),
            _ => None,
        });
        *late.expect("somebody reads") = old;
        let found = counterexample(&history);
        assert!(found.operations > 5_000 && matches!(found.last.call, MetaCall::Get), "{found}");
    }
}
