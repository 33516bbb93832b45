//! How violations name times, items and reads.

use crate::history::event::{Read, Start, Way};
use crate::history::ranges::Ranges;
use crate::workload::item::Signal;

/// Ranges that a message lists before it only counts.
const LISTED_MAX: usize = 4;

pub(crate) fn seconds(at_us: u64) -> String {
    format!("{:.3} s", at_us as f64 / 1e6)
}

/// `sequences 120..160 and 200..201 (41 items)`.
pub(crate) fn sequences(ranges: &Ranges) -> String {
    let listed: Vec<String> =
        ranges.iter().take(LISTED_MAX).map(|(from, to)| format!("{from}..{to}")).collect();
    let more = match ranges.pieces().saturating_sub(LISTED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more ranges"),
    };
    let count = ranges.count();
    let items = if count == 1 { "item" } else { "items" };
    format!("sequences {}{more} ({count} {items})", listed.join(", "))
}

/// `logs of writer 3: sequences 120..160 (40 items)`.
pub(crate) fn items(signal: Signal, writer: u32, ranges: &Ranges) -> String {
    format!("{} of writer {writer}: {}", signal.name(), sequences(ranges))
}

/// The name of a front, or its place where there is none.
pub(crate) fn front(start: &Start, place: u32) -> String {
    let fronts = start.nodes.get("front");
    let name = fronts.and_then(|names| names.get(place as usize));
    name.cloned().unwrap_or_else(|| format!("front {place}"))
}

/// Enough of a read to find it again.
#[derive(Clone, Debug)]
pub(crate) struct ReadRef {
    pub(crate) session: u32,
    pub(crate) signal: Signal,
    pub(crate) way: Way,
    pub(crate) invoked_us: u64,
    pub(crate) completed_us: u64,
    pub(crate) front: u32,
}

impl ReadRef {
    pub(crate) fn of(read: &Read) -> Self {
        let Read { session, signal, way, invoked_us, completed_us, front, .. } = *read;
        ReadRef { session, signal, way, invoked_us, completed_us, front }
    }

    /// `the read of session 2 by front-1 from 1.200 s to 1.300 s`.
    pub(crate) fn words(&self, start: &Start) -> String {
        let way = match self.way {
            Way::Search => "read",
            Way::TraceById => "read of a trace",
        };
        format!(
            "the {way} of session {} by {} from {} to {}",
            self.session,
            front(start, self.front),
            seconds(self.invoked_us),
            seconds(self.completed_us)
        )
    }
}
