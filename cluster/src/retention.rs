//! When retention lets data go, decided from the clocks of several nodes. Pure.
//!
//! A floor drops data for good, so no single clock moves it (PROTOCOL, failure 13): it takes a time that a majority
//! of the storage nodes have reached, and the leader too; a leap of all of them is believed only after a while.

use std::time::Duration;

use thiserror::Error;

/// Length of a window in nanoseconds; floors are at their borders. The store's window is the same.
pub const WINDOW_NANOS: u64 = 2 * 3600 * 1_000_000_000;

/// How far the agreed time may be from what it was last before it is doubted. It is taken anew in every window, so
/// that only a group that was away for longer, or clocks that are wrong, come to this.
pub const LEAP_MAX: Duration = Duration::from_secs(6 * 3600);

/// How long the clocks must have said so before a leap is believed: a day in which somebody can set them right.
pub const LEAP_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A text that is not a time to keep data for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a time to keep data for: write a number with h, d or w, such as 30d, or `forever`")]
pub struct RetentionError(String);

/// Seconds of `36h`, `30d` or `2w`; 0 is for ever, written `forever`.
///
/// # Errors
/// For any other text, and for 0 of a unit: it would keep nothing.
pub fn parse_retention(text: &str) -> Result<u64, RetentionError> {
    let wrong = || RetentionError(text.to_owned());
    if text == "forever" {
        return Ok(0);
    }
    let unit_seconds = match text.as_bytes().last() {
        Some(b'h') => 3600,
        Some(b'd') => 24 * 3600,
        Some(b'w') => 7 * 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let number: u64 =
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().map_err(|_| wrong())? } else { 0 };
    number.checked_mul(unit_seconds).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// The text that [`parse_retention`] reads.
pub fn retention_text(seconds: u64) -> String {
    match seconds {
        0 => "forever".to_owned(),
        _ if seconds.is_multiple_of(24 * 3600) => format!("{}d", seconds / (24 * 3600)),
        _ => format!("{}h", seconds.div_ceil(3600)),
    }
}

/// The floor of data that is kept for `seconds`: the start of a window, so that nothing younger is below it.
pub fn floor_at(now_unix_nano: u64, seconds: u64) -> u64 {
    let end = now_unix_nano.saturating_sub(seconds.saturating_mul(1_000_000_000));
    end / WINDOW_NANOS * WINDOW_NANOS
}

/// The latest time that the leader's clock and those of a majority of `nodes` storage nodes have reached; `None`
/// where fewer than that said what their clocks show. A minority of fast clocks cannot move it, a minority of slow
/// ones cannot hold it.
pub fn agreed_time(leader_unix_nano: u64, nodes: usize, mut clocks: Vec<u64>) -> Option<u64> {
    clocks.sort_unstable_by(|a, b| b.cmp(a));
    let majority = nodes / 2 + 1;
    clocks.get(majority - 1).map(|time| leader_unix_nano.min(*time))
}

/// What becomes of an agreed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// It leapt, and has not been so for [`LEAP_WAIT`].
    Doubt,
}

/// Judges an agreed time by what it was last, 0 where it never was, and by how long it has been in doubt.
pub fn judge(last_unix_nano: u64, now_unix_nano: u64, doubted: Duration) -> Verdict {
    let leap = now_unix_nano.saturating_sub(last_unix_nano);
    let leapt = last_unix_nano > 0 && leap > LEAP_MAX.as_nanos() as u64;
    if leapt && doubted < LEAP_WAIT { Verdict::Doubt } else { Verdict::Take }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_to_keep_has_a_unit() {
        let hour = 3600;
        for (text, seconds) in [("36h", 36 * hour), ("30d", 720 * hour), ("2w", 336 * hour), ("forever", 0)] {
            assert_eq!(parse_retention(text), Ok(seconds));
            assert_eq!(parse_retention(&retention_text(seconds)), Ok(seconds));
        }
        for text in ["", "30", "d", "0d", "-1d", "+1d", "1.5d", "30D", "99999999999999999d", "1é"] {
            assert!(parse_retention(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_majority_of_clocks_decides_and_the_leader_can_only_hold_back() {
        for (leader, nodes, clocks, expected) in [
            (100, 3, vec![100, 101, 99], Some(100)),
            (100, 3, vec![100, 9000, 99], Some(100)),
            (9000, 3, vec![100, 9000, 99], Some(100)),
            (100, 3, vec![9000, 9000, 9000], Some(100)),
            (100, 3, vec![100, 1, 100], Some(100)),
            (1, 3, vec![100, 100, 100], Some(1)),
            (100, 3, vec![100], None),
            (100, 3, vec![100, 99], Some(99)),
            (100, 4, vec![100, 99], None),
            (100, 1, vec![50], Some(50)),
            (100, 0, vec![], None),
        ] {
            assert_eq!(agreed_time(leader, nodes, clocks.clone()), expected, "{leader} {nodes} {clocks:?}");
        }
    }

    #[test]
    fn a_leap_waits_and_a_step_or_a_first_time_does_not() {
        let (hour, day) = (3600 * 1_000_000_000, Duration::from_secs(24 * 3600));
        let last = 1000 * 24 * hour;
        for (last, now, doubted, expected) in [
            (last, last + 2 * hour, Duration::ZERO, Verdict::Take),
            (last, last - 900 * hour, Duration::ZERO, Verdict::Take),
            (last, last + 7 * hour, Duration::ZERO, Verdict::Doubt),
            (last, last + 7 * hour, day / 2, Verdict::Doubt),
            (last, last + 7 * hour, day, Verdict::Take),
            (0, last, Duration::ZERO, Verdict::Take),
        ] {
            assert_eq!(judge(last, now, doubted), expected, "{last} {now} {doubted:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_dropped_before_its_time_nor_kept_a_window_longer(
            now in 0u64..2_000_000_000_000_000_000,
            seconds in 1u64..100_000_000,
        ) {
            let floor = floor_at(now, seconds);
            prop_assert_eq!(floor % WINDOW_NANOS, 0);
            let end = now.saturating_sub(seconds * 1_000_000_000);
            prop_assert!(floor <= end && end - floor < WINDOW_NANOS);
        }

        #[test]
        fn a_minority_of_wrong_clocks_moves_the_agreed_time_nowhere(
            nodes in 1usize..8,
            wrong in prop::collection::vec(0u64..1_000_000, 0..8),
        ) {
            let wrong: Vec<u64> = wrong.into_iter().take((nodes - 1) / 2).collect();
            let right = vec![500_000; nodes - wrong.len()];
            let clocks = [wrong, right].concat();
            prop_assert_eq!(agreed_time(500_000, nodes, clocks), Some(500_000));
        }
    }
}
