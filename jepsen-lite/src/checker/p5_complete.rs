//! P5 complete or said: an answer that could not reach everything says that it is partial; and when all is healed, no
//! answer is partial any more.
//!
//! Proves that an answer called itself complete, lacked items, and a later read shows them: they were there all the
//! time and not merely late, because they had been shown before or a fault was in force (see [`super::gaps`]). It
//! cannot prove that a partial answer was partial for no reason while faults go on; only after healing, and after the
//! run's bound for it, is every partial answer a breach. No checker of Jepsen's asks this: its systems have no partial
//! answers.

use super::gaps::Gap;
use super::p4_visible::{first, words};
use super::words::{front, seconds};
use super::{Found, Promise, Scene};
use crate::history::event::{Count, Event, Read};

pub(crate) fn judge(gap: &Gap, scene: &Scene, found: &mut Found) {
    if gap.again.is_empty() || !gap.is_unsaid() {
        return;
    }
    let again = gap.again_by.as_ref().map(|read| read.words(&scene.start)).unwrap_or_default();
    let what = format!(
        "{}, {}; they were there: {again} shows them",
        words(gap, &gap.again, scene),
        scene.faults.words(&gap.faults)
    );
    found.add(Promise::P5, gap.read.completed_us, what, first(gap, &gap.again));
}

/// Partial answers after healing.
#[derive(Default)]
pub(crate) struct Healed {
    /// From when on nothing may be partial.
    since_us: Option<u64>,
    /// Partial answers after that: how many, and the first in words.
    partial: u64,
    first: Option<(u64, String)>,
}

impl Healed {
    pub(crate) fn event(&mut self, event: &Event, scene: &Scene) {
        let (what, invoked_us, completed_us, place) = match event {
            Event::Healing(moment) => {
                self.since_us = Some(moment.at_us.saturating_add(scene.start.recover_us_max));
                return;
            }
            Event::Read(Read {
                partial: true,
                failed: false,
                signal,
                invoked_us,
                completed_us,
                front,
                ..
            }) => (format!("read of {}", signal.name()), *invoked_us, *completed_us, *front),
            Event::Count(Count { partial: true, invoked_us, completed_us, front, .. }) => {
                ("count".to_owned(), *invoked_us, *completed_us, *front)
            }
            _ => return,
        };
        if self.since_us.is_some_and(|since| invoked_us > since) {
            self.partial += 1;
            self.first.get_or_insert_with(|| {
                let by = front(&scene.start, place);
                let (from, to) = (seconds(invoked_us), seconds(completed_us));
                (completed_us, format!("the {what} by {by} from {from} to {to}"))
            });
        }
    }

    pub(crate) fn finish(self, scene: &Scene, found: &mut Found) {
        let Some((at_us, first)) = self.first else { return };
        let bound = seconds(scene.start.recover_us_max);
        let what =
            format!("{first} is partial, more than {bound} after healing; {} such answers", self.partial);
        found.add(Promise::P5, at_us, what, None);
    }
}
