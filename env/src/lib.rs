//! Everything nondeterministic, behind one door: clock, randomness, disk, network and tasks.
//!
//! Production code takes an [`Env`] and never touches the operating system by itself (clippy's
//! `disallowed_methods` enforces it). [`Env::real`] is the machine; the simulation builds an [`Env`] whose
//! clock, network and tasks belong to turmoil and whose disk loses what was not synced, so that a seed
//! replays a whole cluster.

pub mod clock;
pub mod disk;
pub mod faults;
pub mod mutant;
pub mod net;
pub mod random;
pub mod tasks;

use std::sync::Arc;

pub use clock::Clock;
pub use disk::{Disk, DiskFile, FaultyDisk, RealDisk, SimDisk};
pub use mutant::mutant;
pub use net::{Conn, Listener, Net};
pub use random::Random;
pub use tasks::{Tasks, WorkQueue};

/// The outside world of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    pub clock: Clock,
    pub random: Random,
    pub disk: Arc<dyn Disk>,
    pub net: Net,
    pub tasks: Tasks,
}

impl Env {
    /// The machine this process runs on.
    pub fn real() -> Self {
        Env {
            clock: Clock::real(),
            random: Random::from_os(),
            disk: Arc::new(RealDisk::new()),
            net: Net::Tcp,
            tasks: Tasks::threads(),
        }
    }
}
