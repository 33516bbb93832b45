//! One directed link: what is done to the bytes that a node sends to another, and what it did to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// What is done to the bytes of a link. The default lets all pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Bytes are lost. A connection that lost some is reset when the cut is over: a stream has no holes.
    pub cut: bool,
    /// Nothing passes, and everything does once this is over.
    pub hold: bool,
    /// Connections are reset, each when it is as old as [`super::proxy::RESET_AFTER`].
    pub reset: bool,
    /// Connections are reset at once.
    pub refuse: bool,
    pub delay_ms: u64,
    pub bytes_per_second: Option<u64>,
}

impl Rule {
    /// Both at once.
    fn and(self, other: Rule) -> Rule {
        let slower = [self.bytes_per_second, other.bytes_per_second].into_iter().flatten().min();
        Rule {
            cut: self.cut || other.cut,
            hold: self.hold || other.hold,
            reset: self.reset || other.reset,
            refuse: self.refuse || other.refuse,
            delay_ms: self.delay_ms.max(other.delay_ms),
            bytes_per_second: slower,
        }
    }
}

/// What a link did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that passed.
    pub passed: u64,
    /// Bytes that were lost, and connections that got no answer, because of a cut.
    pub held_back: u64,
    /// Bytes that passed late because of a delay or a throttle, or that a hold stopped.
    pub delayed: u64,
    /// Connections that were reset or refused.
    pub reset: u64,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            held_back: self.held_back + other.held_back,
            delayed: self.delayed + other.delayed,
            reset: self.reset + other.reset,
        }
    }
}

impl Counts {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            passed: self.passed - earlier.passed,
            held_back: self.held_back - earlier.held_back,
            delayed: self.delayed - earlier.delayed,
            reset: self.reset - earlier.reset,
        }
    }
}

/// The state of a link, between whoever sets rules and the proxy's thread.
#[derive(Debug, Default)]
pub(super) struct LinkState {
    /// By fault: several may have a rule at the same time.
    imposed: Mutex<BTreeMap<u32, Rule>>,
    rule: watch::Sender<Rule>,
    passed: AtomicU64,
    held_back: AtomicU64,
    delayed: AtomicU64,
    reset: AtomicU64,
}

impl LinkState {
    /// Sets a fault's rule, or takes it away.
    pub(super) fn impose(&self, fault: u32, rule: Option<Rule>) {
        let mut imposed = self.imposed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match rule {
            Some(rule) => imposed.insert(fault, rule) != Some(rule),
            None => imposed.remove(&fault).is_some(),
        };
        if changed {
            self.rule.send_replace(imposed.values().copied().fold(Rule::default(), Rule::and));
        }
    }

    pub(super) fn rules(&self) -> watch::Receiver<Rule> {
        self.rule.subscribe()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            passed: self.passed.load(Ordering::Relaxed),
            held_back: self.held_back.load(Ordering::Relaxed),
            delayed: self.delayed.load(Ordering::Relaxed),
            reset: self.reset.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_passed(&self, bytes: usize, late: bool) {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        if late {
            self.count_delayed(bytes);
        }
    }

    pub(super) fn count_delayed(&self, bytes: usize) {
        self.delayed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_held_back(&self, count: usize) {
        self.held_back.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn count_reset(&self) {
        self.reset.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_whole_again_when_all_faults_are_over() {
        let link = LinkState::default();
        let slow = Rule { delay_ms: 5, bytes_per_second: Some(100), ..Rule::default() };
        link.impose(1, Some(Rule { cut: true, ..Rule::default() }));
        link.impose(2, Some(slow));
        assert_eq!(*link.rules().borrow(), Rule { cut: true, ..slow });
        link.impose(1, None);
        assert_eq!(*link.rules().borrow(), slow);
        link.impose(2, None);
        assert_eq!(*link.rules().borrow(), Rule::default());
    }
}
