//! The metadata workload against groups of three, and the checker of what it recorded.

mod real;
mod simulated;

use jepsen_lite::checker::p6_history::{P6, P6Result};
use jepsen_lite::history::event::{Event, MetaOutcome};

const NODES: usize = 3;
const SESSIONS: u32 = 6;

fn name_of(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn check(history: &[Event]) -> P6Result {
    let mut p6 = P6::default();
    history.iter().for_each(|event| p6.event(event));
    p6.finish()
}

fn count(history: &[Event], which: fn(&MetaOutcome) -> bool) -> usize {
    let of = |event: &&Event| matches!(event, Event::Meta(operation) if which(&operation.outcome));
    history.iter().filter(of).count()
}

fn is_applied(outcome: &MetaOutcome) -> bool {
    matches!(outcome, MetaOutcome::Applied { .. })
}
