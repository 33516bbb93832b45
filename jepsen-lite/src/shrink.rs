//! From a schedule that fails to the shortest that still does: delta debugging over its faults (Zeller and Hildebrandt,
//! "Simplifying and isolating failure-inducing input", 2002). Other faults keep their times.

/// Removes what is not needed for `fails`, which is asked at most `tries_max` times. What is returned fails.
pub fn shrink<E>(
    faults: &[u32],
    tries_max: usize,
    mut fails: impl FnMut(&[u32]) -> Result<bool, E>,
) -> Result<Vec<u32>, E> {
    let mut kept = faults.to_vec();
    let mut tries = 0;
    let mut parts = 2;
    while !kept.is_empty() && tries < tries_max {
        let size = kept.len().div_ceil(parts);
        let mut is_smaller = false;
        for place in (0..kept.len()).step_by(size) {
            let end = (place + size).min(kept.len());
            let rest: Vec<u32> = [&kept[..place], &kept[end..]].concat();
            tries += 1;
            if fails(&rest)? {
                kept = rest;
                parts = parts.saturating_sub(1).max(2);
                is_smaller = true;
                break;
            }
            if tries >= tries_max {
                break;
            }
        }
        if !is_smaller {
            if size == 1 {
                break;
            }
            parts = (parts * 2).min(kept.len());
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(count: u32, needed: &[u32]) -> (Vec<u32>, usize) {
        let mut tries = 0;
        let all: Vec<u32> = (0..count).collect();
        let kept = shrink(&all, 1000, |some| {
            tries += 1;
            Ok::<_, ()>(needed.iter().all(|one| some.contains(one)))
        });
        (kept.unwrap(), tries)
    }

    #[test]
    fn what_is_needed_is_what_is_left() {
        for needed in [&[3][..], &[0, 29], &[5, 6, 7], &[]] {
            let (kept, tries) = shrunk(30, needed);
            assert_eq!(kept, needed);
            assert!(tries < 120, "{tries} tries for {needed:?}");
        }
    }

    #[test]
    fn with_few_tries_what_is_left_still_fails() {
        let all: Vec<u32> = (0..30).collect();
        let kept = shrink(&all, 5, |some| Ok::<_, ()>(some.contains(&17))).unwrap();
        assert!(kept.contains(&17) && kept.len() < 30);
    }
}
