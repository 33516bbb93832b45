//! Which event times a request may have: every window of event time becomes files, so their number is bounded.
//!
//! Refusal is of the whole request. Refusing single items by the clock would cut a request that is sent again later
//! into other parts, and it would count again (PROTOCOL, failure 8).

use std::collections::BTreeSet;
use std::time::Duration;

use oteld_env::Clock;
use oteld_store::model::{Rows, Window};

use super::failure::Failure;

/// The most two-hour windows that the items of one request may lie in: three weeks. A function of the request's
/// bytes alone.
pub(super) const REQUEST_WINDOWS_MAX: usize = 256;

/// Event times relative to the node's clock that are taken in.
#[derive(Clone, Debug)]
pub struct EventTimes {
    pub clock: Clock,
    pub past_max: Duration,
    pub future_max: Duration,
}

/// Checks the number of windows, and with `times` how far they are from now.
pub(super) fn check(rows: &Rows, times: Option<&EventTimes>) -> Result<(), Failure> {
    let all = || (0..rows.len()).map(|index| (index, rows.event_time_unix_nano(index)));
    let mut windows = BTreeSet::new();
    for (_, time) in all() {
        windows.insert(Window::of(time).0);
        if windows.len() > REQUEST_WINDOWS_MAX {
            return Err(Failure::invalid(format!(
                "the items of the request lie in more than {REQUEST_WINDOWS_MAX} windows of two hours of event \
                 time: send them in several requests"
            )));
        }
    }
    let Some(EventTimes { clock, past_max, future_max }) = times else { return Ok(()) };
    let now = clock.now_unix_nanos();
    let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let accepted = now.saturating_sub(nanos(past_max))..=now.saturating_add(nanos(future_max));
    let Some((index, time)) = all().find(|(_, time)| !accepted.contains(time)) else { return Ok(()) };
    let (distance, direction, key) = match time > now {
        true => (time - now, "ahead of", "ingest.future_max_ms"),
        false => (now - time, "behind", "ingest.past_max_ms"),
    };
    Err(Failure::invalid(format!(
        "item {} of {}: its time_unix_nano {time} is {:.1} days {direction} this node's clock, more than `{key}` \
         allows; nothing of the request was kept",
        index + 1,
        rows.len(),
        Duration::from_nanos(distance).as_secs_f64() / 86_400.0,
    )))
}

#[cfg(test)]
mod tests {
    use oteld_env::Random;
    use oteld_store::model::sample::Sample;
    use oteld_store::model::{RequestId, Signal, Tenant};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// One log record at each of the times.
    fn logs(times: impl IntoIterator<Item = u64>) -> Rows {
        let random = Random::from_seed(1);
        let mut all = Vec::new();
        for time in times {
            let sample =
                Sample { tenant: Tenant::default(), time_unix_nano: time..time + 1, request: RequestId(1) };
            let Rows::Logs(rows) = sample.rows(&random, Signal::Logs, 1) else { unreachable!() };
            all.extend(rows);
        }
        Rows::Logs(all)
    }

    #[test]
    fn a_request_with_an_event_time_far_from_now_is_refused_whole_and_told_why() {
        let times = EventTimes { clock: Clock::real(), past_max: 30 * DAY, future_max: DAY };
        let now = times.clock.now_unix_nanos();
        let day = DAY.as_nanos() as u64;
        let check = |rows: Rows| super::check(&rows, Some(&times)).map_err(|failure| failure.message);
        assert_eq!(check(logs([now, now - 29 * day, now + day / 2])), Ok(()));
        let error = check(logs([now, now + 2 * day])).unwrap_err();
        assert!(error.contains("item 2 of 2") && error.contains("ingest.future_max_ms"), "{error}");
        let error = check(logs([now - 31 * day, now])).unwrap_err();
        assert!(error.contains("item 1 of 2") && error.contains("ingest.past_max_ms"), "{error}");
    }

    #[test]
    fn a_request_lies_in_so_many_windows_whatever_the_clock_says() {
        let windows = |count: u64| logs((1000..1000 + count).map(|window| window * Window::NANOS));
        assert_eq!(check(&windows(REQUEST_WINDOWS_MAX as u64), None), Ok(()));
        assert!(check(&windows(REQUEST_WINDOWS_MAX as u64 + 1), None).is_err());
    }
}
