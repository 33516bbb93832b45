//! Power that goes at a named point of the store's work.

use std::collections::BTreeMap;

use super::{Inner, SimDisk};

impl SimDisk {
    /// The power goes when `point` is reached the `nth` time from now (1 is the next), as at a
    /// [`Fault::PowerLoss`](super::Fault::PowerLoss): all later operations fail until [`SimDisk::crash`], which also
    /// forgets what is armed.
    pub fn arm(&self, point: &'static str, nth: u64) {
        self.0.lock().points.arm(point, nth);
    }

    /// Forgets what is armed.
    pub fn disarm(&self) {
        self.0.lock().points.disarm();
    }

    /// How often each of [`POINTS`](crate::disk::POINTS) was reached so far; those that never were are left out.
    pub fn points(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().points.counts().clone()
    }
}

impl Inner {
    pub(super) fn reach(&mut self, point: &'static str) {
        // After the power went nothing happens any more.
        if !self.powerless && self.points.reach(point) {
            self.powerless = true;
        }
    }
}
