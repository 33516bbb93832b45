//! The one clock of a run: microseconds since it began.

use std::time::Duration;

use tokio::time::Instant;

/// Cheap to copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Timeline(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The simulation's own time, the same on all of its hosts.
    Simulated,
    Since(Instant),
}

impl Timeline {
    /// The time of the simulation that the caller runs in.
    pub fn simulated() -> Self {
        Timeline(Source::Simulated)
    }

    /// Begins now. Monotonic: clock faults and the system's clock do not move it.
    pub fn begin() -> Self {
        Timeline(Source::Since(Instant::now()))
    }

    pub fn now_us(self) -> u64 {
        let elapsed = match self.0 {
            Source::Simulated => turmoil::sim_elapsed().unwrap_or(Duration::ZERO),
            Source::Since(begin) => begin.elapsed(),
        };
        elapsed.as_micros() as u64
    }
}
