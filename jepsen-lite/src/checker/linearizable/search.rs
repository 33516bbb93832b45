//! The search for an order: all states that the register and its open operations can be in, carried from one moment
//! of the history to the next. An operation is put into the order only when one that ends needs it there, or when it
//! changes nothing; states that were met before are not looked at again.

use std::collections::{BTreeMap, BTreeSet};

use super::resolve::INITIAL;
use super::{Answer, Counterexample, Effect, Operation, SHOWN_BEFORE};
use crate::history::event::{MetaOp, MetaOutcome};

/// Operations that can be open at once, those of unknown outcome included.
const OPEN_MAX: usize = u128::BITS as usize;

/// What may be, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<u64>,
    /// Of the open operations, by slot, those that are in the order, or can never come into it.
    settled: u128,
}

struct Search<'a> {
    operations: &'a [Operation],
    /// The open operations.
    slots: Vec<Option<usize>>,
    slot_of: BTreeMap<usize, usize>,
    /// Operations to come, by what they set.
    to_come: BTreeMap<Option<u64>, usize>,
    states: BTreeSet<State>,
    left: u64,
}

/// What happens at a moment. An operation that ends when another one begins overlaps it: clocks are not that fine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Invoked,
    Ended,
    /// Of unknown outcome, but seen by one that ended just now.
    Seen,
}

/// Why the search did not get past an operation.
enum Stuck {
    /// What the register can have held instead.
    NoOrder(Vec<Option<u64>>),
    GivenUp(String),
}

pub(super) fn search(history: &[MetaOp], operations: &[Operation], states_max: u64) -> Answer {
    let mut moments: Vec<(u64, Step, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, operation) in operations.iter().enumerate() {
        moments.push((operation.invoked_us, Step::Invoked, index));
        if let Some(until_us) = operation.until_us {
            let seen = history[operation.place].outcome == MetaOutcome::Unknown;
            moments.push((until_us, if seen { Step::Seen } else { Step::Ended }, index));
        }
    }
    moments.sort_unstable();
    let mut search = Search::new(operations, states_max);
    let mut ended: Vec<usize> = Vec::new();
    for (_, step, index) in moments {
        let done = match step {
            Step::Invoked => search.invoked(index),
            Step::Ended | Step::Seen => search.ended(index),
        };
        match done {
            Ok(()) if step == Step::Invoked => {}
            Ok(()) => ended.push(operations[index].place),
            Err(Stuck::GivenUp(why)) => return Answer::Undecided(why),
            Err(Stuck::NoOrder(could_hold)) => {
                let first_shown = ended.len().saturating_sub(SHOWN_BEFORE);
                let before = ended[first_shown..].iter().map(|place| history[*place].clone()).collect();
                let last = history[operations[index].place].clone();
                let operations = ended.len() + 1;
                return Answer::Not(Box::new(Counterexample { operations, before, last, could_hold }));
            }
        }
    }
    Answer::Linearizable
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], states_max: u64) -> Self {
        let mut to_come = BTreeMap::new();
        for operation in operations {
            if let Effect::Set { to, .. } | Effect::MaySet { to, .. } = operation.effect {
                *to_come.entry(to).or_default() += 1;
            }
        }
        let states = [State { value: INITIAL, settled: 0 }].into();
        Search { operations, slots: Vec::new(), slot_of: BTreeMap::new(), to_come, states, left: states_max }
    }

    fn invoked(&mut self, index: usize) -> Result<(), Stuck> {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == OPEN_MAX {
            let why = format!("more than {OPEN_MAX} operations on a register are open at once");
            return Err(Stuck::GivenUp(why));
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(index);
        self.slot_of.insert(index, slot);
        if let Effect::Set { to, .. } | Effect::MaySet { to, .. } = self.operations[index].effect {
            *self.to_come.get_mut(&to).expect("it was counted") -= 1;
        }
        let states = std::mem::take(&mut self.states);
        self.states = states.into_iter().map(|state| self.settle(state)).collect();
        self.free_settled();
        self.spend(self.states.len() as u64)
    }

    /// Keeps the states in which the operation is in the order now.
    fn ended(&mut self, index: usize) -> Result<(), Stuck> {
        let slot = self.slot_of.remove(&index).expect("it was invoked");
        let bit = 1 << slot;
        let mut met = std::mem::take(&mut self.states);
        let mut next: Vec<State> = met.iter().copied().collect();
        let mut kept = BTreeSet::new();
        while let Some(state) = next.pop() {
            self.spend(1)?;
            if state.settled & bit != 0 {
                kept.insert(State { settled: state.settled & !bit, ..state });
                continue;
            }
            for follower in self.followers(state) {
                if met.insert(follower) {
                    next.push(follower);
                }
            }
        }
        if kept.is_empty() {
            let could_hold: BTreeSet<Option<u64>> = met.iter().map(|state| state.value).collect();
            return Err(Stuck::NoOrder(could_hold.into_iter().collect()));
        }
        self.slots[slot] = None;
        self.states = kept;
        self.free_settled();
        Ok(())
    }

    /// The states after one more open operation.
    fn followers(&self, state: State) -> Vec<State> {
        let mut followers = Vec::new();
        for (slot, operation) in self.open(state) {
            // One of several that do the same is as good as the next, where none of them has an end.
            let endless = matches!(operation.effect, Effect::MaySet { .. });
            let same = |(_, other): (usize, &Operation)| other.effect == operation.effect;
            if endless && self.open(state).take_while(|(other, _)| *other < slot).any(same) {
                continue;
            }
            let settled = state.settled | (1 << slot);
            let value = match operation.effect {
                Effect::Set { expect, to } | Effect::MaySet { expect, to } if state.value == expect => to,
                Effect::Set { to, .. } if state.value == to => to,
                _ => continue,
            };
            followers.push(self.settle(State { value, settled }));
        }
        followers
    }

    /// Settles what need not wait. A get of the present value changes nothing, so that it can come now in any order in
    /// which it comes later; one of unknown outcome whose expected value will never be there again stays out.
    fn settle(&self, mut state: State) -> State {
        loop {
            let before = state.settled;
            for (slot, operation) in self.open(state) {
                let settled = match operation.effect {
                    Effect::Saw(value) => value == state.value,
                    Effect::MaySet { expect, .. } => expect != state.value && !self.can_come(expect, state),
                    Effect::Set { .. } | Effect::Impossible => false,
                };
                if settled {
                    state.settled |= 1 << slot;
                }
            }
            if state.settled == before {
                return state;
            }
        }
    }

    /// Whether an operation that sets the value is still outside of the order.
    fn can_come(&self, value: Option<u64>, state: State) -> bool {
        let sets = |operation: &Operation| match operation.effect {
            Effect::Set { to, .. } | Effect::MaySet { to, .. } => to == value,
            Effect::Saw(_) | Effect::Impossible => false,
        };
        self.to_come.get(&value).is_some_and(|count| *count > 0)
            || self.open(state).any(|(_, operation)| sets(operation))
    }

    /// Open operations that are not settled.
    fn open(&self, state: State) -> impl Iterator<Item = (usize, &'a Operation)> {
        let operations = self.operations;
        let slots = self.slots.iter().enumerate();
        slots.filter_map(move |(slot, index)| {
            let open = state.settled & (1 << slot) == 0;
            index.filter(|_| open).map(|index| (slot, &operations[index]))
        })
    }

    /// Forgets those of unknown outcome that are settled in every state: they have no end that would do so.
    fn free_settled(&mut self) {
        let everywhere = self.states.iter().fold(u128::MAX, |all, state| all & state.settled);
        let mut freed = 0;
        for (slot, index) in self.slots.iter_mut().enumerate() {
            let endless = index.is_some_and(|index| self.operations[index].until_us.is_none());
            if endless && everywhere & (1 << slot) != 0 {
                let index = index.take().expect("it was looked at");
                self.slot_of.remove(&index);
                freed |= 1 << slot;
            }
        }
        if freed != 0 {
            let states = std::mem::take(&mut self.states);
            let without = |state: State| State { settled: state.settled & !freed, ..state };
            self.states = states.into_iter().map(without).collect();
        }
    }

    fn spend(&mut self, states: u64) -> Result<(), Stuck> {
        match self.left.checked_sub(states) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Stuck::GivenUp("the search for an order has too many states".to_owned())),
        }
    }
}
