//! The wall clock, in nanoseconds since the Unix epoch. Timers use `tokio::time`, which turmoil controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

/// Where simulated time starts: 2026-01-01T00:00:00Z, in nanoseconds.
pub const SIMULATION_EPOCH_NANOS: u64 = 1_767_225_600_000_000_000;

/// A wall clock that may be wrong on purpose: faults set an offset and a drift to it. Clones are wrong together.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    error: Arc<ClockError>,
}

#[derive(Debug, Default)]
struct ClockError {
    /// Whether there is one: a right clock takes no lock.
    is_wrong: AtomicBool,
    value: RwLock<Error>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Error {
    offset_nanos: i64,
    /// Parts per million that the clock is too fast by since `since_nanos`, of the right time.
    drift_ppm: i64,
    since_nanos: u64,
}

impl Error {
    fn nanos_at(&self, now_nanos: u64) -> i64 {
        let drifted =
            i128::from(now_nanos.saturating_sub(self.since_nanos)) * i128::from(self.drift_ppm) / 1_000_000;
        let error = i128::from(self.offset_nanos) + drifted;
        error.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

#[derive(Clone, Copy, Debug)]
enum Source {
    System,
    Turmoil,
}

impl Clock {
    /// The system clock.
    pub fn real() -> Self {
        Clock { source: Source::System, error: Arc::default() }
    }

    /// The clock of the turmoil simulation that the caller runs in.
    pub fn simulated() -> Self {
        Clock { source: Source::Turmoil, error: Arc::default() }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now_unix_nanos(&self) -> u64 {
        let now = self.right_nanos();
        now.saturating_add_signed(self.error_nanos_at(now))
    }

    /// Makes the clock wrong by `offset_nanos`, from now on.
    pub fn set_offset_nanos(&self, offset_nanos: i64) {
        self.set_error(offset_nanos, 0);
    }

    /// Makes the clock wrong by `offset_nanos` now, and by `drift_ppm` millionths of the time that passes from now on.
    pub fn set_error(&self, offset_nanos: i64, drift_ppm: i64) {
        let mut value = self.error.value.write();
        *value = Error { offset_nanos, drift_ppm, since_nanos: self.right_nanos() };
        self.error.is_wrong.store(offset_nanos != 0 || drift_ppm != 0, Ordering::Release);
    }

    /// How wrong the clock is on purpose.
    pub fn error_nanos(&self) -> i64 {
        self.error_nanos_at(self.right_nanos())
    }

    fn error_nanos_at(&self, now: u64) -> i64 {
        if !self.error.is_wrong.load(Ordering::Acquire) {
            return 0;
        }
        self.error.value.read().nanos_at(now)
    }

    fn right_nanos(&self) -> u64 {
        match self.source {
            Source::System => system_nanos(),
            Source::Turmoil => {
                let elapsed = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
                SIMULATION_EPOCH_NANOS + elapsed.as_nanos() as u64
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the door to the system clock")]
fn system_nanos() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_grows_with_the_time_that_passes() {
        let error = Error { offset_nanos: -5, drift_ppm: 500, since_nanos: 1_000_000 };
        assert_eq!(error.nanos_at(1_000_000), -5);
        assert_eq!(error.nanos_at(1_000_001_000_000), 500_000_000 - 5);
        assert_eq!(Error { drift_ppm: -500, ..error }.nanos_at(3_000_000), -1005);
    }

    #[test]
    fn clones_are_wrong_together_and_right_again() {
        let clock = Clock::real();
        let clone = clock.clone();
        clone.set_offset_nanos(-3_600_000_000_000);
        assert_eq!(clock.error_nanos(), -3_600_000_000_000);
        assert!(clock.now_unix_nanos() < system_nanos() - 3_500_000_000_000);
        clock.set_error(0, 0);
        assert!(clone.error_nanos() == 0 && clone.now_unix_nanos() > system_nanos() - 60_000_000_000);
    }
}
