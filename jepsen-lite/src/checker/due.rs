//! What a complete read must show, and since when: everything that was acknowledged, or shown by a complete read,
//! before it was invoked.
//!
//! Events are recorded when they end, so that an acknowledgement between a read's invocation and its end stands before
//! the read and must not count: every range carries the time since which it is due. Times are exact for the last
//! [`HORIZON_US`] and coalesced beyond, with the later one, which can only ask for less. State is ranges by signal and
//! writer. After the elements of Jepsen's `set-full`, each of which is known since an operation.

use std::collections::{BTreeMap, VecDeque};

use crate::history::event::{Outcome, Read, Way, Write};
use crate::history::ranges::{Ranges, lacking};
use crate::workload::item::{Signal, TRACE_STRIDE};

/// Longer than any read lasts.
pub(crate) const HORIZON_US: u64 = 300_000_000;

/// What made items due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// An acknowledgement by a front.
    Front(u32),
    /// A complete read of a session.
    Shown(u32),
    Several,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) to: u64,
    pub(crate) at_us: u64,
    pub(crate) by: By,
}

/// Ranges of sequences, each with a time; times come in order.
#[derive(Default)]
pub(crate) struct Timed {
    spans: BTreeMap<u64, Span>,
    /// Time and begin of what may still have to keep its own time.
    young: VecDeque<(u64, u64)>,
}

impl Timed {
    /// What lies within `from..to`, cut at its ends.
    pub(crate) fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64, &Span)> {
        let before = self.spans.range(..from).next_back();
        let rest = self.spans.range(from..to.max(from));
        before
            .into_iter()
            .chain(rest)
            .map(move |(start, span)| ((*start).max(from), span.to.min(to), span))
            .filter(|(start, end, _)| start < end)
    }

    /// Adds what of `from..to` is not there yet; what is there keeps its earlier time.
    pub(crate) fn fill(&mut self, from: u64, to: u64, at_us: u64, by: By) {
        let mut gaps = Vec::new();
        let mut at = from;
        for (start, end, _) in self.within(from, to) {
            if start > at {
                gaps.push((at, start));
            }
            at = end;
        }
        if at < to {
            gaps.push((at, to));
        }
        for (from, to) in gaps {
            self.spans.insert(from, Span { to, at_us, by });
            self.young.push_back((at_us, from));
        }
        self.settle(at_us);
    }

    /// Takes out what lies within `from..to`: how many, and their time.
    fn take(&mut self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let inside: Vec<(u64, u64, u64)> =
            self.within(from, to).map(|(start, end, span)| (start, end, span.at_us)).collect();
        for (start, end, at_us) in &inside {
            let (begin, span) = self.spans.range(..=*start).next_back().expect("it was just found");
            let (begin, span) = (*begin, *span);
            self.spans.remove(&begin);
            if begin < *start {
                self.spans.insert(begin, Span { to: *start, ..span });
            }
            if *end < span.to {
                self.spans.insert(*end, span);
                self.young.push_back((*at_us, *end));
            }
        }
        inside.into_iter().map(|(start, end, at_us)| (end - start, at_us)).collect()
    }

    /// Joins neighbours whose exact time no read can need any more.
    fn settle(&mut self, now_us: u64) {
        let old = |at_us: u64| at_us + HORIZON_US < now_us;
        while let Some((at_us, from)) = self.young.front().copied().filter(|(at_us, _)| old(*at_us)) {
            self.young.pop_front();
            let Some(span) = self.spans.get(&from).copied().filter(|span| old(span.at_us)) else { continue };
            debug_assert!(span.at_us >= at_us);
            let before = self.spans.range(..from).next_back().map(|(begin, span)| (*begin, *span));
            let (begin, span) = match before {
                Some((begin, before)) if before.to == from && old(before.at_us) => {
                    self.spans.remove(&from);
                    (begin, join(before, span))
                }
                _ => (from, span),
            };
            let next = self.spans.get(&span.to).copied().filter(|next| old(next.at_us));
            let whole = match next {
                Some(next) => {
                    self.spans.remove(&span.to);
                    join(span, next)
                }
                None => span,
            };
            self.spans.insert(begin, whole);
        }
    }

    #[cfg(test)]
    fn pieces(&self) -> usize {
        self.spans.len()
    }
}

fn join(first: Span, second: Span) -> Span {
    let by = if first.by == second.by { first.by } else { By::Several };
    Span { to: second.to, at_us: first.at_us.max(second.at_us), by }
}

/// What is known of the items of one signal and writer.
#[derive(Default)]
pub(crate) struct Stock {
    /// In a write whose outcome is recorded, whatever it is.
    pub(crate) sent: Ranges,
    pub(crate) acknowledged: Ranges,
    /// Shown by a complete read.
    pub(crate) shown: Ranges,
    pub(crate) due: Timed,
    /// Acknowledged, and not shown by a complete read yet.
    awaited: Timed,
}

/// What is known of all items.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) stocks: BTreeMap<(Signal, u32), Stock>,
    pub(crate) visibility: Visibility,
    /// Reads that took longer than due times are exact: they were asked for less than they might have to show.
    pub(crate) long_reads: u64,
}

impl Ledger {
    pub(crate) fn write(&mut self, write: &Write) {
        let Write { signal, writer, from, to, completed_us, front, .. } = *write;
        let stock = self.stocks.entry((signal, writer)).or_default();
        stock.sent.insert(from, to);
        if write.outcome != Outcome::Acknowledged {
            return;
        }
        stock.acknowledged.insert(from, to);
        stock.due.fill(from, to, completed_us, By::Front(front));
        let mut unseen = Vec::new();
        let shown: Vec<(u64, u64)> = stock.shown.within(from, to).collect();
        lacking(from, to, &shown, |from, to| unseen.push((from, to)));
        let seen: u64 = shown.iter().map(|(from, to)| to - from).sum();
        self.visibility.add(0, seen);
        for (from, to) in unseen {
            stock.awaited.fill(from, to, completed_us, By::Front(front));
        }
    }

    /// A complete read showed items before their write was recorded: they are due since then.
    pub(crate) fn shown_ahead(&mut self, key: (Signal, u32), from: u64, to: u64, at_us: u64, session: u32) {
        let stock = self.stocks.entry(key).or_default();
        stock.shown.insert(from, to);
        stock.due.fill(from, to, at_us, By::Shown(session));
    }

    /// What a complete read shows is due from its end on. After the checkers have looked at it.
    pub(crate) fn shown(&mut self, read: &Read) {
        self.long_reads += u64::from(read.completed_us - read.invoked_us.min(read.completed_us) > HORIZON_US);
        for (writer, ranges) in &read.seen {
            let Some(stock) = self.stocks.get_mut(&(read.signal, *writer)) else { continue };
            for (from, to) in ranges {
                let sent: Vec<(u64, u64)> = stock.sent.within(*from, *to).collect();
                for (from, to) in sent {
                    stock.shown.insert(from, to);
                    stock.due.fill(from, to, read.completed_us, By::Shown(read.session));
                    for (count, at_us) in stock.awaited.take(from, to) {
                        // What is first read when all is over says nothing of visibility.
                        if !read.last {
                            self.visibility.add(read.completed_us.saturating_sub(at_us), count);
                        }
                    }
                }
            }
        }
    }

    /// By writer, what a complete read had to show and does not.
    pub(crate) fn lacking(&self, read: &Read) -> BTreeMap<u32, Ranges> {
        let mut lacks: BTreeMap<u32, Ranges> = BTreeMap::new();
        let asked = asked(read);
        let writers = (read.signal, read.scope.writers.start)..(read.signal, read.scope.writers.end);
        if writers.start >= writers.end {
            return lacks;
        }
        for ((_, writer), stock) in self.stocks.range(writers) {
            let shown = read.seen.get(writer).map_or(&[][..], Vec::as_slice);
            for (from, to) in &asked {
                for (from, to, _) in due_to(read, stock, *from, *to) {
                    lacking(from, to, shown, |from, to| lacks.entry(*writer).or_default().insert(from, to));
                }
            }
        }
        lacks
    }
}

/// What of `from..to` a read must show. A session's own reads follow each other also where the clock does not tell.
pub(crate) fn due_to<'a>(
    read: &'a Read,
    stock: &'a Stock,
    from: u64,
    to: u64,
) -> impl Iterator<Item = (u64, u64, &'a Span)> {
    stock.due.within(from, to).filter(|(_, _, span)| {
        span.at_us < read.invoked_us || (span.at_us == read.invoked_us && span.by == By::Shown(read.session))
    })
}

/// The sequences that a read asked for.
pub(crate) fn asked(read: &Read) -> Vec<(u64, u64)> {
    let (from, to) = (read.scope.from, read.scope.to);
    match read.way {
        Way::Search => vec![(from, to)],
        Way::TraceById => {
            (from..to).step_by(TRACE_STRIDE as usize).map(|sequence| (sequence, sequence + 1)).collect()
        }
    }
}

/// How long after their acknowledgement items were first shown by a complete read; by how often it is read, this is
/// an upper bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visibility {
    /// Items by upper bound of their time, in microseconds, in steps of about a tenth.
    buckets: BTreeMap<u64, u64>,
}

impl Visibility {
    fn add(&mut self, us: u64, count: u64) {
        if count > 0 {
            let step = (us.max(1).ilog2().saturating_sub(3)) as u64;
            let bound = if us == 0 { 0 } else { ((us >> step) + 1) << step };
            *self.buckets.entry(bound).or_default() += count;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// Microseconds within which `hundredths` of a hundred items were shown.
    pub(crate) fn quantile(&self, hundredths: u64) -> u64 {
        let wanted = (self.count() * hundredths).div_ceil(100);
        let mut seen = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        bucket.map_or(0, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_within_the_horizon_and_later_beyond() {
        let mut timed = Timed::default();
        for second in 0..1000u64 {
            timed.fill(second * 10, second * 10 + 10, second * 1_000_000, By::Front(second as u32 % 2));
        }
        assert_eq!(timed.pieces(), 302, "one range for what is old, and one a second of the horizon");
        let (_, _, young) = timed.within(9000, 9001).next().unwrap();
        assert_eq!((young.at_us, young.by), (900_000_000, By::Front(0)));
        let (_, _, old) = timed.within(15, 16).next().unwrap();
        assert!(old.at_us > 1_000_000 && old.at_us + HORIZON_US < 999_000_000, "{old:?}");
        assert_eq!(timed.within(0, 10_000).map(|(from, to, _)| to - from).sum::<u64>(), 10_000);
    }

    #[test]
    fn what_is_there_keeps_its_time_and_what_is_taken_is_gone() {
        let mut timed = Timed::default();
        timed.fill(10, 20, 5, By::Front(0));
        timed.fill(0, 30, 9, By::Front(1));
        let times: Vec<_> = timed.within(5, 25).map(|(from, to, span)| (from, to, span.at_us)).collect();
        assert_eq!(times, [(5, 10, 9), (10, 20, 5), (20, 25, 9)]);
        assert_eq!(timed.take(12, 22), [(8, 5), (2, 9)]);
        let left: Vec<_> = timed.within(0, 40).map(|(from, to, _)| (from, to)).collect();
        assert_eq!(left, [(0, 10), (10, 12), (22, 30)]);
    }

    #[test]
    fn quantiles_are_upper_bounds_that_are_near() {
        let mut visibility = Visibility::default();
        (1..=1000).for_each(|ms| visibility.add(ms * 1000, 1));
        let (half, most) = (visibility.quantile(50), visibility.quantile(99));
        assert!((500_000..=570_000).contains(&half), "{half}");
        assert!((990_000..=1_120_000).contains(&most), "{most}");
        assert_eq!(Visibility::default().quantile(50), 0);
    }
}
