//! Whether what the clients of one register saw can be put in one order that respects real time: linearizability
//! (Herlihy and Wing 1990), decided by the search of Wing and Gong (1993) with the memory of Lowe (2017).
//!
//! A register is a named setting of the metadata, absent at first, with get and compare-and-set. Registers are
//! independent, so each is checked alone. An operation of unknown outcome may take effect at any time after it was
//! invoked, or never.

mod resolve;
mod search;

use std::fmt;

use crate::history::event::{MetaCall, MetaOp, MetaOutcome};

/// Operations that an explanation shows before the one that does not fit.
const SHOWN_BEFORE: usize = 5;
/// Values that an explanation shows.
const SHOWN_VALUES: usize = 8;

/// What is known of a register's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Linearizable,
    Not(Box<Counterexample>),
    /// The search was given up, and why.
    Undecided(String),
}

/// The shortest prefix that has no order, in the order in which operations ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// Operations in the prefix.
    pub operations: usize,
    /// Its last few before the last one.
    pub before: Vec<MetaOp>,
    /// Without it there is an order.
    pub last: MetaOp,
    /// What the register can have held while the last one ran, as far as all the others tell.
    pub could_hold: Vec<Option<u64>>,
}

/// Looks for an order of the operations on one register; looks at no more than `states_max` states of the search.
pub fn check(operations: &[MetaOp], states_max: u64) -> Answer {
    search::search(operations, &resolve::resolve(operations), states_max)
}

/// What an operation says of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It held this: a get, or a compare-and-set that found another value than it expected.
    Saw(Option<u64>),
    /// It held `expect` and holds `to` from then on, or held `to` already, which a compare-and-set takes for done.
    Set { expect: Option<u64>, to: Option<u64> },
    /// The same where it held `expect`, or nothing.
    MaySet { expect: Option<u64>, to: Option<u64> },
    /// The answer contradicts itself.
    Impossible,
}

/// An operation as the search takes it.
#[derive(Clone, Debug)]
struct Operation {
    /// Its place in the history.
    place: usize,
    effect: Effect,
    invoked_us: u64,
    /// When it had taken effect at the latest; `None` is never.
    until_us: Option<u64>,
}

fn effect(operation: &MetaOp) -> Option<Effect> {
    let (call, outcome) = (operation.call, operation.outcome);
    Some(match (call, outcome) {
        (_, MetaOutcome::Failed) | (MetaCall::Get, MetaOutcome::Unknown) => return None,
        (MetaCall::Get, MetaOutcome::Value { value, .. }) => Effect::Saw(value),
        (MetaCall::CompareAndSet { expect, to }, _) if expect == to => match outcome {
            MetaOutcome::Applied { .. } => Effect::Saw(to),
            MetaOutcome::Differs { actual, .. } if actual != to => Effect::Saw(actual),
            MetaOutcome::Unknown => return None,
            _ => Effect::Impossible,
        },
        (MetaCall::CompareAndSet { expect, to }, MetaOutcome::Applied { .. }) => Effect::Set { expect, to },
        (MetaCall::CompareAndSet { expect, to }, MetaOutcome::Unknown) => Effect::MaySet { expect, to },
        (MetaCall::CompareAndSet { expect, to }, MetaOutcome::Differs { actual, .. })
            if actual != expect && actual != to =>
        {
            Effect::Saw(actual)
        }
        _ => Effect::Impossible,
    })
}

/// A register's value in words.
pub(super) fn show(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

/// An operation in words.
pub(super) fn describe(operation: &MetaOp) -> String {
    let call = match operation.call {
        MetaCall::Get => "a get".to_owned(),
        MetaCall::CompareAndSet { expect, to } => {
            format!("a compare-and-set from {} to {}", show(expect), show(to))
        }
    };
    let outcome = match operation.outcome {
        MetaOutcome::Value { value, index } => format!("saw {} at log index {index}", show(value)),
        MetaOutcome::Applied { index } => format!("was applied at log index {index}"),
        MetaOutcome::Differs { actual, .. } => format!("found {}", show(actual)),
        MetaOutcome::Failed => "had no effect".to_owned(),
        MetaOutcome::Unknown => "has an unknown outcome".to_owned(),
    };
    let (session, from, to) = (operation.session, operation.invoked_us, operation.completed_us);
    format!("{call} of session {session}, {from} to {to} us, {outcome}")
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counterexample { operations, before, last, could_hold } = self;
        write!(f, "register {}: the first {operations} operations have no order. ", last.key)?;
        write!(f, "Last {}", describe(last))?;
        let shown: Vec<String> = could_hold.iter().take(SHOWN_VALUES).map(|value| show(*value)).collect();
        write!(f, "; it can have held {}", shown.join(" or "))?;
        if could_hold.len() > SHOWN_VALUES {
            write!(f, " or {} other values", could_hold.len() - SHOWN_VALUES)?;
        }
        for operation in before {
            write!(f, "; before, {}", describe(operation))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod brute_force;
#[cfg(test)]
mod tests;
