//! Which segments of a window to merge next. Pure.

use std::collections::BTreeMap;

/// At most so many segments are merged at once: each needs a page in memory.
const INPUTS_MAX: usize = 16;

/// A segment of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub id: u64,
    pub level: u32,
    pub bytes: u64,
}

/// The ids to merge: the smallest segments of the lowest level that has `fan_in` of them which together stay
/// within `bytes_max`. `None` where no merge is due.
pub(crate) fn pick(segments: &[Candidate], fan_in: usize, bytes_max: u64) -> Option<Vec<u64>> {
    let mut levels: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for segment in segments {
        levels.entry(segment.level).or_default().push(*segment);
    }
    levels.into_values().find_map(|mut level| {
        level.sort_by_key(|segment| (segment.bytes, segment.id));
        let mut total = 0_u64;
        let fitting = level.iter().take(INPUTS_MAX).take_while(|segment| {
            total = total.saturating_add(segment.bytes);
            total <= bytes_max
        });
        let mut ids: Vec<u64> = fitting.map(|segment| segment.id).collect();
        ids.sort_unstable();
        (ids.len() >= fan_in.max(2)).then_some(ids)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_due_by_count_within_a_level_and_a_size() {
        let due = |segments: &[(u64, u32, u64)]| {
            let candidate =
                |(id, level, bytes): &(u64, u32, u64)| Candidate { id: *id, level: *level, bytes: *bytes };
            pick(&segments.iter().map(candidate).collect::<Vec<_>>(), 3, 100)
        };
        assert_eq!(due(&[]), None);
        assert_eq!(due(&[(1, 0, 1), (2, 0, 1)]), None);
        assert_eq!(due(&[(1, 0, 1), (2, 0, 1), (3, 0, 1)]), Some(vec![1, 2, 3]));
        assert_eq!(due(&[(1, 1, 1), (2, 0, 1), (3, 0, 1)]), None, "of two levels");
        let both = [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 0, 1), (5, 0, 1), (6, 0, 1)];
        assert_eq!(due(&both), Some(vec![4, 5, 6]), "the lower level first");
        assert_eq!(due(&both[..3]), Some(vec![1, 2, 3]));
        let large = [(1, 0, 99), (2, 0, 30), (3, 0, 30), (4, 0, 30)];
        assert_eq!(due(&large), Some(vec![2, 3, 4]), "a large one stays out");
        assert_eq!(due(&[(1, 0, 40), (2, 0, 40), (3, 0, 40)]), None, "too large together");
    }

    #[test]
    fn at_most_so_many_are_merged_at_once() {
        let segments: Vec<_> = (0..40).map(|id| Candidate { id, level: 0, bytes: 1 }).collect();
        assert_eq!(pick(&segments, 3, 100).unwrap().len(), INPUTS_MAX);
    }
}
