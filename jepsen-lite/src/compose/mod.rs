//! The compose driver: the containers of a Compose file, and what Docker can do to them. Kills, pauses, and whole nodes
//! without a network; the same clients, schedules, history and checkers as for processes.
//!
//! It adds to what the local driver proves: the real image, file systems and networks of containers, names that change
//! their addresses. It cannot do what needs a hand inside of a process or on a single link.

mod docker;
mod file;
mod container;
mod witness;
mod plan;
mod cluster;
mod hands;
mod nemesis;

use std::path::PathBuf;

use self::cluster::Cluster;
pub use self::plan::Plan;
use crate::driver::{self, Progress, Settings, Work, Worked};
use crate::nemesis::fault::FaultKind;
use crate::nemesis::schedule;
use crate::nemesis::topology::Topology;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// As `docker compose -f` takes them: later ones change earlier ones.
    pub files: Vec<PathBuf>,
    /// Nothing of that name may exist: everything that has it is removed at the end.
    pub project: String,
    /// Whether containers and volumes stay at the end.
    pub keep: bool,
    pub replication_factor: u32,
    /// As the Compose file's nodes are configured, where none are given.
    pub shards: Option<u32>,
}

/// Whether a kind of fault can strike containers at all.
///
/// # Errors
/// Why not, in words for whoever asked for it.
pub fn possible(kind: FaultKind, topology: &Topology, replication_factor: u32) -> Result<(), String> {
    let cannot = |what: &str| Err(format!("the compose driver cannot {what}, use --driver local"));
    match kind {
        FaultKind::Power => cannot("lose what is not synced: the kernel outlives a container and writes it"),
        FaultKind::Link => cannot("slow or break single links of a Docker network"),
        FaultKind::Disk => cannot("make a volume fail"),
        FaultKind::Clock => cannot("set a clock: containers have that of the machine"),
        FaultKind::Wipe => cannot("take away a store and leave the rest of its volume"),
        FaultKind::Kill | FaultKind::Pause | FaultKind::Partition | FaultKind::Store | FaultKind::Meta => {
            schedule::possible(kind, topology, replication_factor)
        }
    }
}

/// Must run on a `LocalSet`. `clients` returns what it could not do, once it has read everything after the change to
/// healing. The containers' logs go beside the history.
///
/// # Errors
/// When the cluster does not start, or the history cannot be written.
pub async fn run(
    plan: Plan,
    settings: Settings,
    clients: impl AsyncFnOnce(Work) -> Vec<String> + 'static,
    show: impl FnMut(&Progress),
) -> Result<Worked, String> {
    let cluster = Cluster::prepare(plan, &settings.dir)?;
    driver::run(cluster, settings, clients, show).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_cannot_do_is_refused_with_the_reason() {
        let topology = Topology::new(3, 0, 2);
        let can = |kind: &FaultKind| possible(*kind, &topology, 3).is_ok();
        let all: Vec<FaultKind> = FaultKind::ALL.into_iter().filter(can).collect();
        assert_eq!(all, [FaultKind::Kill, FaultKind::Pause, FaultKind::Partition]);
        for kind in [FaultKind::Power, FaultKind::Link, FaultKind::Disk, FaultKind::Clock, FaultKind::Wipe] {
            let why = possible(kind, &topology, 3).unwrap_err();
            assert!(
                why.starts_with("the compose driver cannot ") && why.ends_with(", use --driver local"),
                "{why}"
            );
        }
        assert!(possible(FaultKind::Meta, &topology, 3).unwrap_err().contains("storage nodes"));
        assert!(possible(FaultKind::Meta, &Topology::new(3, 3, 2), 3).is_ok());
    }
}
