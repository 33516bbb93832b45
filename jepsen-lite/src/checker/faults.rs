//! Which faults were in force when: what excuses a partial answer, a refusal, a dead process, and what does not.

use crate::history::event::{Event, FaultBegan};

use super::words::seconds;

/// Connections, caches and elections need a moment after a fault is over.
pub(crate) const AFTERMATH_US: u64 = 5_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) began: FaultBegan,
    /// None while it goes on.
    pub(crate) ended_us: Option<u64>,
}

impl Fault {
    /// Whether it was in force at some time of `from_us..=to_us`, or ended less than `aftermath_us` before.
    pub(crate) fn touches(&self, from_us: u64, to_us: u64, aftermath_us: u64) -> bool {
        let gone = self.ended_us.is_some_and(|ended| ended.saturating_add(aftermath_us) < from_us);
        self.began.at_us <= to_us && !gone
    }

    fn words(&self) -> String {
        let FaultBegan { kind, what, at_us, .. } = &self.began;
        let until = self.ended_us.map_or("on".to_owned(), |ended| format!("to {}", seconds(ended)));
        format!("{kind} ({what}, {} {until})", seconds(*at_us))
    }
}

/// All faults of a run, in the order in which they began.
#[derive(Default)]
pub(crate) struct Faults {
    all: Vec<Fault>,
}

impl Faults {
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::FaultBegan(began) => self.all.push(Fault { began: began.clone(), ended_us: None }),
            Event::FaultEnded(ended) => {
                let fault = self.all.iter_mut().rev().find(|fault| fault.began.id == ended.id);
                if let Some(fault) = fault {
                    fault.ended_us = Some(ended.at_us);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn touching(
        &self,
        from_us: u64,
        to_us: u64,
        aftermath_us: u64,
    ) -> impl Iterator<Item = (usize, &Fault)> {
        let all = self.all.iter().enumerate();
        all.filter(move |(_, fault)| fault.touches(from_us, to_us, aftermath_us))
    }

    pub(crate) fn any(&self, from_us: u64, to_us: u64, aftermath_us: u64) -> bool {
        // Faults near the end of the list are the likeliest.
        self.all.iter().rev().any(|fault| fault.touches(from_us, to_us, aftermath_us))
    }

    /// `while partition (...) was in force`, by their places in the list.
    pub(crate) fn words(&self, places: &[usize]) -> String {
        let named: Vec<String> =
            places.iter().filter_map(|place| self.all.get(*place)).map(Fault::words).collect();
        match named.len() {
            0 => "with no fault in force".to_owned(),
            1..=3 => format!("under {}", named.join(", ")),
            more => format!("under {} and {} more faults", named[..3].join(", "), more - 3),
        }
    }
}
