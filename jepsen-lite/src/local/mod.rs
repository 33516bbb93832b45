//! The local driver: real `oteld` processes on loopback, a proxy for every directed link between them, and faults that
//! are carried out on both.

pub mod link;
mod proxy;
pub mod mesh;
pub mod process;
mod node;
pub mod cluster;
mod control;
mod flip;
mod nemesis;

use self::cluster::Cluster;
use crate::driver::{self, Progress, Settings, Work, Worked};

/// Must run on a `LocalSet`, on a thread that lives as long as the processes. `clients` returns what it could not do,
/// once it has read everything after the change to healing.
///
/// # Errors
/// When the cluster does not start, or the history cannot be written.
pub async fn run(
    options: &cluster::Options,
    settings: Settings,
    clients: impl AsyncFnOnce(Work) -> Vec<String> + 'static,
    show: impl FnMut(&Progress),
) -> Result<Worked, String> {
    driver::run(Cluster::prepare(options)?, settings, clients, show).await
}
