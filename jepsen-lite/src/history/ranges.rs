//! Sets of sequence numbers, kept as half-open ranges: a day of items is a few of them.

use std::collections::BTreeMap;

use crate::workload::item::LANES;

/// Disjoint ranges `from..to` that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First to one past the last.
    by_from: BTreeMap<u64, u64>,
}

impl Ranges {
    pub fn new() -> Self {
        Ranges::default()
    }

    pub fn is_empty(&self) -> bool {
        self.by_from.is_empty()
    }

    /// How many ranges there are.
    pub fn pieces(&self) -> usize {
        self.by_from.len()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.iter().map(|(from, to)| to - from).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_from.iter().map(|(from, to)| (*from, *to))
    }

    pub fn contains(&self, number: u64) -> bool {
        self.by_from.range(..=number).next_back().is_some_and(|(_, to)| *to > number)
    }

    /// Adds `from..to`; what is there already stays.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        if let Some((before, end)) = self.by_from.range(..=from).next_back()
            && *end >= from
        {
            if *end >= to {
                return;
            }
            from = *before;
        }
        while let Some((next, end)) = self.by_from.range(from..=to).next() {
            let (next, end) = (*next, *end);
            to = to.max(end);
            self.by_from.remove(&next);
        }
        self.by_from.insert(from, to);
    }

    pub fn remove(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        if let Some((_, end)) = self.by_from.range_mut(..from).next_back() {
            let whole = *end;
            if whole > from {
                *end = from;
                if whole > to {
                    self.by_from.insert(to, whole);
                    return;
                }
            }
        }
        while let Some((next, end)) = self.by_from.range(from..to).next() {
            let (next, end) = (*next, *end);
            self.by_from.remove(&next);
            if end > to {
                self.by_from.insert(to, end);
            }
        }
    }

    /// What lies within `from..to`, cut at its ends.
    pub fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = self.by_from.range(..from).next_back();
        let rest = self.by_from.range(from..to.max(from));
        before
            .into_iter()
            .chain(rest)
            .map(move |(start, end)| ((*start).max(from), (*end).min(to)))
            .filter(|(start, end)| start < end)
    }

    pub fn intersect(&self, other: &Ranges) -> Ranges {
        let pieces = other.iter().flat_map(|(from, to)| self.within(from, to));
        pieces.collect()
    }

    /// What is here and not in `other`.
    pub fn subtract(&self, other: &Ranges) -> Ranges {
        let mut rest = self.clone();
        other.iter().for_each(|(from, to)| rest.remove(from, to));
        rest
    }

    pub fn extend(&mut self, other: &Ranges) {
        other.iter().for_each(|(from, to)| self.insert(from, to));
    }

    /// How many numbers within `from..to` are in one of the lanes.
    pub fn count_lanes(&self, lanes: &[u64], from: u64, to: u64) -> u64 {
        self.within(from, to).map(|(from, to)| lanes_within(lanes, from, to)).sum()
    }
}

/// How many numbers of `from..to` leave one of `lanes` as remainder by [`LANES`].
pub fn lanes_within(lanes: &[u64], from: u64, to: u64) -> u64 {
    let below = |end: u64, lane: u64| (end + LANES - 1 - lane) / LANES;
    lanes.iter().map(|lane| below(to, *lane) - below(from, *lane)).sum()
}

/// What of `from..to` is not in `shown`, which is ascending and disjoint.
pub fn lacking(from: u64, to: u64, shown: &[(u64, u64)], mut lack: impl FnMut(u64, u64)) {
    let mut at = from;
    let first = shown.partition_point(|(_, end)| *end <= from);
    for (start, end) in &shown[first..] {
        if *start >= to {
            break;
        }
        if *start > at {
            lack(at, *start);
        }
        at = at.max(*end);
    }
    if at < to {
        lack(at, to);
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(pieces: I) -> Self {
        let mut ranges = Ranges::new();
        pieces.into_iter().for_each(|(from, to)| ranges.insert(from, to));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same changes to ranges and to a plain set.
    fn both(changes: &[(bool, u64, u64)]) -> (Ranges, BTreeSet<u64>) {
        let (mut ranges, mut plain) = (Ranges::new(), BTreeSet::new());
        for (add, from, length) in changes {
            let to = from + length;
            if *add {
                ranges.insert(*from, to);
                plain.extend(*from..to);
            } else {
                ranges.remove(*from, to);
                (*from..to).for_each(|number| {
                    plain.remove(&number);
                });
            }
        }
        (ranges, plain)
    }

    fn plain(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(from, to)| from..to).collect()
    }

    fn changes() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        prop::collection::vec((prop::bool::weighted(0.7), 0..80u64, 0..12u64), 0..24)
    }

    proptest! {
        #[test]
        fn ranges_are_the_sets_that_they_stand_for(a in changes(), b in changes(), from in 0..90u64, length in 0..40u64) {
            let ((a, plain_a), (b, plain_b)) = (both(&a), both(&b));
            let to = from + length;
            prop_assert_eq!(plain(&a), plain_a.clone());
            let pieces: Vec<_> = a.iter().collect();
            prop_assert!(pieces.windows(2).all(|two| two[0].1 < two[1].0), "{:?}", pieces);
            prop_assert_eq!(a.count(), plain_a.len() as u64);
            (0..100).for_each(|number| assert_eq!(a.contains(number), plain_a.contains(&number)));
            prop_assert_eq!(plain(&a.intersect(&b)), &plain_a & &plain_b);
            prop_assert_eq!(plain(&a.subtract(&b)), &plain_a - &plain_b);
            let mut joined = a.clone();
            joined.extend(&b);
            prop_assert_eq!(plain(&joined), &plain_a | &plain_b);
            let inside: BTreeSet<u64> = a.within(from, to).flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(inside, plain_a.range(from..to).copied().collect::<BTreeSet<_>>());
            let lanes = plain_a.range(from..to).filter(|number| [4, 5].contains(&(*number % LANES))).count();
            prop_assert_eq!(a.count_lanes(&[4, 5], from, to), lanes as u64);
            let mut lack = BTreeSet::new();
            lacking(from, to, &pieces, |from, to| lack.extend(from..to));
            prop_assert_eq!(lack, (from..to).filter(|number| !plain_a.contains(number)).collect::<BTreeSet<_>>());
        }
    }
}
