//! What the drivers of real clusters share: how a run goes, and what is asked of nodes meanwhile. A driver adds the
//! cluster and what hurts it.

pub(crate) mod ask;
pub(crate) mod sample;
mod run;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

pub(crate) use self::run::run;
pub use self::run::{Progress, Settings, Stage, Work, Worked};

use self::sample::Seen;
use crate::history::recorder::Recorder;
use crate::nemesis::schedule::Timed;
use crate::timeline::Timeline;

/// Largest request of a front; the same as in [`SETTINGS`].
pub const REQUEST_BYTES_MAX: u64 = 8_388_608;

/// What all nodes are told beside their names and addresses: small, so that a short run flushes, merges, and outlives
/// logs, and queries without limits that a test would reach.
pub(crate) const SETTINGS: [(&str, &str); 7] = [
    ("storage.memtable_bytes_max", "4MiB"),
    ("storage.wal_keep_bytes", "4MiB"),
    ("storage.min_free_bytes", "64MiB"),
    ("ingest.request_bytes_max", "8388608"),
    // Less than a burst holds.
    ("ingest.memory_bytes_max", "32MiB"),
    ("query.entries_max", "10000000"),
    ("query.series_max", "1000000"),
];

/// Where a node is reached, `host:port` each; empty where it does not listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub node: String,
    pub query: String,
    pub otlp_http: String,
    pub otlp_grpc: String,
}

/// A node that runs, as whoever asks it must know.
pub(crate) struct Running {
    pub(crate) node: String,
    /// How many times it was started.
    pub(crate) boot: u32,
    /// 0 where it cannot be told.
    pub(crate) resident_bytes: u64,
    pub(crate) query: String,
}

/// What a nemesis works with, beside its cluster.
pub(crate) struct Scene {
    pub(crate) timeline: Timeline,
    pub(crate) recorder: Recorder,
    pub(crate) seen: Rc<RefCell<Seen>>,
    pub(crate) seed: u64,
}

/// A cluster on real machines. Dropping it takes away what it started.
pub(crate) trait Cluster: Sized + 'static {
    type Nemesis: Nemesis;

    /// Starts all nodes, and waits until each does all that its roles promise.
    ///
    /// # Errors
    /// When one cannot be started, ends, or is not ready in time.
    async fn start(&mut self) -> Result<(), String>;

    /// Where clients reach the nodes, by name.
    fn addresses(&self) -> BTreeMap<String, Addresses>;

    /// The nodes that run at the moment.
    fn running(&self) -> Vec<Running>;

    /// Whatever hurts it.
    fn nemesis(cluster: Rc<RefCell<Self>>, scene: Scene) -> Self::Nemesis;
}

/// Carries faults out on a cluster, and collects what proves that they struck.
pub(crate) trait Nemesis {
    async fn begin(&mut self, timed: &Timed);

    async fn end(&mut self, id: u32);

    /// To be called every now and then: notices what happened, and looks for what proves faults.
    async fn tick(&mut self);

    /// Ends every fault, and starts whatever does not run.
    async fn heal(&mut self);

    /// The faults in force, in words.
    fn in_force(&self) -> Vec<String>;

    /// What could not be carried out as it was meant, in words.
    fn notes(&mut self) -> Vec<String>;
}

/// A loopback address of this process alone: connections leave from 127.0.0.1, so that no kernel gives the port of a
/// node that is down to somebody else meanwhile.
pub(crate) fn loopback() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + (high & 63), middle, low).into()
}

/// What a starting node says that it read back from its log, once it did.
pub(crate) fn rows_read_back(log: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.contains("segments and WAL are read back"))?;
    let rows = line.split_once("unflushed_rows=")?.1;
    rows.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_a_start_read_back_are_found_in_its_log() {
        let log = "2026 INFO oteld: starting\n2026 INFO oteld_store: the store is open: segments and WAL are read \
                   back replica=ab segments=2 wal_bytes=77 unflushed_rows=1234 ms=5\n";
        assert_eq!(rows_read_back(log), Some(1234));
        assert_eq!(rows_read_back("2026 INFO oteld: starting"), None);
    }
}
