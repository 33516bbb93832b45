//! Randomness, from the operating system or from a seed.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// A source of random numbers that all parts of a node share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Random(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same seed gives the same numbers.
    pub fn from_seed(seed: u64) -> Self {
        Random(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A uniform 64-bit number.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A uniform 128-bit number, for identities.
    pub fn next_u128(&self) -> u128 {
        self.0.lock().random()
    }

    /// A uniform number in `range`, which must not be empty.
    pub fn in_range(&self, range: std::ops::Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }
}
