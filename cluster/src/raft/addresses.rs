//! Where a member is tried: where the group recorded it, and where the configuration has it. All members may have
//! moved at once, and then nothing can be recorded before they found each other. A wrong place does no harm: every
//! request names the member and its directory.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::ids::MetaId;
use crate::membership::{Founder, MetaNode};

/// Addresses to try, by member. A place that did not answer makes way for the other one.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// By name.
    configured: BTreeMap<String, String>,
    /// The place that is tried next, where it is not the recorded one.
    next: Mutex<BTreeMap<MetaId, String>>,
}

impl Addresses {
    pub(crate) fn new(members: &[Founder]) -> Self {
        let configured = members.iter().map(|member| (member.name.clone(), member.address.clone())).collect();
        Addresses { configured, next: Mutex::default() }
    }

    /// One try of a member, which failed unless it is said to have been answered.
    pub(crate) fn attempt<'a>(&'a self, target: MetaId, node: &'a MetaNode) -> Attempt<'a> {
        let known = self.next.lock().get(&target).cloned();
        let configured = self.configured.get(&node.name);
        let address = known.filter(|known| Some(known) == configured).unwrap_or_else(|| node.address.clone());
        Attempt { addresses: self, target, node, address, answered: false }
    }

    /// Lets the next attempt go to the other place, if there is one.
    fn failed(&self, target: MetaId, node: &MetaNode, address: &str) {
        let mut next = self.next.lock();
        match self.configured.get(&node.name) {
            Some(configured) if address == node.address => next.insert(target, configured.clone()),
            _ => next.remove(&target),
        };
    }
}

/// A try under way. One that is dropped, as by a time-out, failed.
pub(crate) struct Attempt<'a> {
    addresses: &'a Addresses,
    target: MetaId,
    node: &'a MetaNode,
    pub(crate) address: String,
    answered: bool,
}

impl Attempt<'_> {
    /// The member answered here.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.addresses.failed(self.target, self.node, &self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    #[test]
    fn the_two_places_take_turns_until_one_answers() {
        let founder = Founder { name: "a".into(), address: "new:1".into() };
        let addresses = Addresses::new(&[founder]);
        let node = |name: &str| MetaNode {
            name: name.into(),
            address: "old:1".into(),
            incarnation: Incarnation::default(),
        };
        let (a, other) = (node("a"), node("other"));
        let fail = |id, node| addresses.attempt(MetaId(id), node).address.clone();
        assert_eq!([fail(1, &a), fail(1, &a), fail(1, &a)], ["old:1", "new:1", "old:1"]);
        for _ in 0..2 {
            let attempt = addresses.attempt(MetaId(1), &a);
            assert_eq!(attempt.address, "new:1");
            attempt.answered();
        }
        assert_eq!([fail(2, &other), fail(2, &other)], ["old:1", "old:1"], "it is not configured");
    }
}
