//! P10 the data path needs no leader: while the meta group has no majority, writes are acknowledged and reads are
//! complete.
//!
//! Looks at stretches of more than [`STRETCH_US`] in which the meta group had lost its majority, was seen without a
//! leader, and no other fault was in force or just over: of the writes and of the reads that were begun in any
//! [`STRETCH_US`] of them, some must have succeeded. One success is enough, so a data path that is merely slow is not
//! found here. Where nothing was tried, nothing is proven, and coverage says so.

use super::faults::AFTERMATH_US;
use super::words::seconds;
use super::{Found, Promise, Scene};
use crate::coverage::LEADERLESS;
use crate::history::event::{Event, Outcome};
use crate::nemesis::fault::FaultKind;

/// Shorter stretches prove nothing: connections and the last map may come from before.
pub(crate) const STRETCH_US: u64 = 5_000_000;

/// Begun at the end of a stretch, an operation may end after it.
const TAIL_US: u64 = 2_000_000;

/// What was begun in one second.
#[derive(Clone, Copy, Default)]
struct Second {
    writes: u64,
    acknowledged: u64,
    reads: u64,
    complete: u64,
}

/// [`STRETCH_US`] in seconds.
const WINDOW: usize = (STRETCH_US / 1_000_000) as usize;

struct Loss {
    id: u32,
    began_us: u64,
    ended_us: Option<u64>,
    proven: bool,
    seconds: Vec<Second>,
}

impl Loss {
    /// What was begun in these seconds.
    fn sum(&self, from: usize, to: usize) -> Second {
        let mut sum = Second::default();
        for second in self.seconds.iter().take(to).skip(from) {
            sum.writes += second.writes;
            sum.acknowledged += second.acknowledged;
            sum.reads += second.reads;
            sum.complete += second.complete;
        }
        sum
    }
}

#[derive(Default)]
pub(crate) struct Leaderless {
    losses: Vec<Loss>,
}

/// What was proven.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WithoutLeader {
    pub(crate) stretches: u64,
    pub(crate) acknowledged: u64,
    pub(crate) complete: u64,
}

impl Leaderless {
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::FaultBegan(fault) if fault.kind == FaultKind::Meta => self.losses.push(Loss {
                id: fault.id,
                began_us: fault.at_us,
                ended_us: None,
                proven: false,
                seconds: Vec::new(),
            }),
            Event::FaultEnded(fault) => {
                if let Some(loss) = self.losses.iter_mut().rev().find(|loss| loss.id == fault.id) {
                    loss.ended_us = Some(fault.at_us);
                    loss.proven = fault.evidence.get(LEADERLESS).is_some_and(|count| *count > 0);
                }
            }
            Event::Write(write) => {
                let done = write.outcome == Outcome::Acknowledged;
                self.operation(write.invoked_us, write.completed_us, done, |second, done| {
                    second.writes += 1;
                    second.acknowledged += u64::from(done);
                });
            }
            Event::Read(read) => self.read(read.invoked_us, read.completed_us, !read.partial),
            Event::Count(count) => self.read(count.invoked_us, count.completed_us, !count.partial),
            _ => {}
        }
    }

    fn read(&mut self, invoked_us: u64, completed_us: u64, complete: bool) {
        self.operation(invoked_us, completed_us, complete, |second, complete| {
            second.reads += 1;
            second.complete += u64::from(complete);
        });
    }

    /// Under the loss in which it was begun; it succeeded only when it also ended there.
    fn operation(&mut self, from_us: u64, to_us: u64, done: bool, count: impl Fn(&mut Second, bool)) {
        let loss = self
            .losses
            .iter_mut()
            .rev()
            .take(4)
            .find(|loss| loss.began_us <= from_us && loss.ended_us.is_none_or(|ended| from_us < ended));
        let Some(loss) = loss else { return };
        let place = ((from_us - loss.began_us) / 1_000_000) as usize;
        if loss.seconds.len() <= place {
            loss.seconds.resize(place + 1, Second::default());
        }
        let inside = loss.ended_us.is_none_or(|ended| to_us <= ended);
        count(&mut loss.seconds[place], done && inside);
    }

    pub(crate) fn finish(self, scene: &Scene, found: &mut Found) -> WithoutLeader {
        let mut proven = WithoutLeader::default();
        for loss in self.losses.iter().filter(|loss| loss.proven) {
            for (from, to) in quiet(loss, scene) {
                let whole = loss.sum(from, to);
                proven.stretches += 1;
                proven.acknowledged += whole.acknowledged;
                proven.complete += whole.complete;
                let windows = (from..=to - WINDOW).map(|from| (from, loss.sum(from, from + WINDOW)));
                let no_write = windows.clone().find(|(_, sum)| sum.writes > 0 && sum.acknowledged == 0);
                let no_read = windows.clone().find(|(_, sum)| sum.reads > 0 && sum.complete == 0);
                let at = |second: usize| loss.began_us + second as u64 * 1_000_000;
                let within = |from: usize| {
                    let (lost, from, to) =
                        (seconds(loss.began_us), seconds(at(from)), seconds(at(from + WINDOW)));
                    format!("the meta group has no majority since {lost}: from {from} to {to}")
                };
                if let Some((from, sum)) = no_write {
                    let what = format!("{}, none of {} writes was acknowledged", within(from), sum.writes);
                    found.add(Promise::P10, at(from + WINDOW), what, None);
                }
                if let Some((from, sum)) = no_read {
                    let what = format!("{}, none of {} reads was complete", within(from), sum.reads);
                    found.add(Promise::P10, at(from + WINDOW), what, None);
                }
            }
        }
        proven
    }
}

/// Stretches of whole seconds, counted from the loss's begin, in which nothing else was in force.
fn quiet(loss: &Loss, scene: &Scene) -> Vec<(usize, usize)> {
    let Some(ended_us) = loss.ended_us else { return Vec::new() };
    let seconds = (ended_us.saturating_sub(loss.began_us + TAIL_US) / 1_000_000) as usize;
    let mut stretches = Vec::new();
    let mut from = None;
    for second in 0..=seconds {
        let at_us = loss.began_us + second as u64 * 1_000_000;
        let other = scene.faults.touching(at_us, at_us + 1_000_000 + TAIL_US, AFTERMATH_US);
        let other = other.filter(|(_, fault)| fault.began.id != loss.id).count() > 0;
        if second < seconds && !other {
            from.get_or_insert(second);
        } else if let Some(from) = from.take()
            && second - from > WINDOW
        {
            stretches.push((from, second));
        }
    }
    stretches
}
