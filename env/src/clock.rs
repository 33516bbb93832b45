//! The wall clock, in nanoseconds since the Unix epoch. Timers use `tokio::time`, which turmoil controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Where simulated time starts: 2026-01-01T00:00:00Z, in nanoseconds.
pub const SIMULATION_EPOCH_NANOS: u64 = 1_767_225_600_000_000_000;

/// A wall clock that may be wrong on purpose: faults set an offset to it.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    offset_nanos: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    System,
    Turmoil,
}

impl Clock {
    /// The system clock.
    pub fn real() -> Self {
        Clock { source: Source::System, offset_nanos: Arc::default() }
    }

    /// The clock of the turmoil simulation that the caller runs in.
    pub fn simulated() -> Self {
        Clock { source: Source::Turmoil, offset_nanos: Arc::default() }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now_unix_nanos(&self) -> u64 {
        let now = match self.source {
            Source::System => system_nanos(),
            Source::Turmoil => {
                let elapsed = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
                SIMULATION_EPOCH_NANOS + elapsed.as_nanos() as u64
            }
        };
        now.saturating_add_signed(self.offset_nanos.load(Ordering::Relaxed))
    }

    /// Makes the clock wrong by `offset_nanos`, from now on.
    pub fn set_offset_nanos(&self, offset_nanos: i64) {
        self.offset_nanos.store(offset_nanos, Ordering::Relaxed);
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the door to the system clock")]
fn system_nanos() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
