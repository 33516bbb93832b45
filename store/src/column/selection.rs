//! Which values of a column are wanted.

use std::ops::Range;

/// Some of the values of a column, in order. Decoders skip the others as cheaply as their encoding allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Values of the column.
    count: usize,
    /// Sorted, not empty, not touching each other.
    ranges: Vec<Range<usize>>,
    /// Values in the ranges.
    len: usize,
}

/// A block of a column, and the ranges that reach into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    start: usize,
    pub(super) len: usize,
    ranges: &'a [Range<usize>],
}

impl<'a> Block<'a> {
    pub(super) fn is_unwanted(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn is_wanted_whole(&self) -> bool {
        let end = self.start + self.len;
        matches!(self.ranges, [range] if range.start <= self.start && range.end >= end)
    }

    /// The wanted part of each range, counted from the start of the block.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (start, end) = (self.start, self.start + self.len);
        self.ranges.iter().map(move |range| range.start.max(start) - start..range.end.min(end) - start)
    }
}

impl Selection {
    /// All of `count` values.
    pub fn all(count: usize) -> Self {
        Selection::of(count, std::iter::once(0..count))
    }

    /// Those of `count` values that are in `ranges`.
    ///
    /// # Panics
    /// When the ranges are not in order, or reach beyond `count`.
    pub fn of(count: usize, ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut selection = Selection { count, ranges: Vec::new(), len: 0 };
        ranges.into_iter().for_each(|range| selection.push(range));
        assert!(selection.ranges.last().is_none_or(|last| last.end <= count), "values that are not there");
        selection
    }

    fn push(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.len += range.len();
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            last => {
                assert!(last.is_none_or(|last| last.end < range.start), "ranges are in order");
                self.ranges.push(range);
            }
        }
    }

    /// Runs of one and of many, with gaps that are longer than a block.
    #[cfg(test)]
    pub(crate) fn patchy(count: usize) -> Self {
        let mut at = 0;
        let lengths = [1, 1, 3, 140, 20, 2].chunks(2).cycle();
        let ranges = lengths.map_while(|pair| {
            let range = at.min(count)..(at + pair[0]).min(count);
            at += pair[0] + pair[1];
            (!range.is_empty()).then_some(range)
        });
        Selection::of(count, ranges)
    }

    /// Values of the whole column.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Wanted values.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn is_all(&self) -> bool {
        self.len == self.count
    }

    /// What is wanted, in order.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// The wanted ones of `values`, which are those of the whole column.
    pub fn take<T>(&self, mut values: Vec<T>) -> Vec<T> {
        debug_assert_eq!(values.len(), self.count, "all values of the column");
        if self.is_all() {
            return values;
        }
        let mut kept = Vec::with_capacity(self.len);
        for range in self.ranges.iter().rev() {
            values.truncate(range.end);
            kept.extend(values.drain(range.start..).rev());
        }
        kept.reverse();
        kept
    }

    /// The values of wanted rows in a column that has `lengths` values for each row of this one.
    pub fn nested(&self, lengths: impl IntoIterator<Item = usize>) -> Selection {
        let mut nested = Selection { count: 0, ranges: Vec::new(), len: 0 };
        let mut lengths = lengths.into_iter();
        let mut row = 0;
        for range in &self.ranges {
            nested.count += lengths.by_ref().take(range.start - row).sum::<usize>();
            let wanted: usize = lengths.by_ref().take(range.len()).sum();
            nested.push(nested.count..nested.count + wanted);
            nested.count += wanted;
            row = range.end;
        }
        nested.count += lengths.sum::<usize>();
        nested
    }

    /// The column cut in blocks of `size` values.
    pub(super) fn blocks(&self, size: usize) -> impl Iterator<Item = Block<'_>> {
        let mut ranges = self.ranges.as_slice();
        (0..self.count).step_by(size).map(move |start| {
            let len = size.min(self.count - start);
            let before = ranges.iter().take_while(|range| range.end <= start).count();
            ranges = &ranges[before..];
            let within = ranges.iter().take_while(|range| range.start < start + len).count();
            Block { start, len, ranges: &ranges[..within] }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A selection, and whether each value is wanted.
    fn any_selection() -> impl Strategy<Value = (Selection, Vec<bool>)> {
        proptest::collection::vec(any::<bool>(), 0..400).prop_map(|wanted| {
            let ranges = wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(at, _)| at..at + 1);
            (Selection::of(wanted.len(), ranges), wanted)
        })
    }

    proptest! {
        #[test]
        fn wanted_values_are_taken_whole_and_by_block((selection, wanted) in any_selection(), size in 1_usize..50) {
            let numbers: Vec<usize> = (0..wanted.len()).collect();
            let expected: Vec<usize> = numbers.iter().copied().filter(|at| wanted[*at]).collect();
            prop_assert_eq!(selection.len(), expected.len());
            prop_assert_eq!(&selection.take(numbers.clone()), &expected);
            let (mut by_block, mut at) = (Vec::new(), 0);
            for block in selection.blocks(size) {
                prop_assert_eq!(block.is_unwanted(), block.wanted().count() == 0);
                by_block.extend(block.wanted().flatten().map(|value| numbers[at + value]));
                at += block.len;
            }
            prop_assert_eq!(at, wanted.len());
            prop_assert_eq!(&by_block, &expected);
        }

        #[test]
        fn values_of_wanted_rows_are_wanted((selection, wanted) in any_selection(), seed in any::<u8>()) {
            let lengths: Vec<usize> = (0..wanted.len()).map(|row| (row * 7 + usize::from(seed)) % 4).collect();
            let owners: Vec<usize> =
                lengths.iter().enumerate().flat_map(|(row, len)| std::iter::repeat_n(row, *len)).collect();
            let nested = selection.nested(lengths.iter().copied());
            prop_assert_eq!(nested.count(), owners.len());
            let expected: Vec<usize> = owners.iter().copied().filter(|row| wanted[*row]).collect();
            prop_assert_eq!(nested.take(owners), expected);
        }
    }
}
