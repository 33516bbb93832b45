//! Scenarios by name: what broke others, done to oteld on purpose.
//!
//! Each fixes the cluster's shape and its faults; the seed decides their exact times, what clients do and every order. A
//! scenario that did not really happen, by its own proof, is unknown.

mod all;

use oteld_env::Random;

pub use self::all::ALL;
use super::world::Shape;
use crate::nemesis::fault::{Fault, Link};
use crate::nemesis::schedule::Timed;
use crate::nemesis::topology::Topology;

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    /// Where it happened.
    pub known_from: &'static str,
    pub what: &'static str,
    pub(super) shape: fn() -> Shape,
    faults: fn(&mut Script<'_>),
    /// What must have happened at least once, by the names of [`crate::coverage`].
    pub proof: &'static [&'static str],
}

impl Scenario {
    pub fn find(name: &str) -> Option<&'static Scenario> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Its faults, from `from_ms` on.
    pub(super) fn schedule(&self, topology: &Topology, seed: u64, from_ms: u64) -> Vec<Timed> {
        let random = Random::from_seed(seed ^ 0x5ce0);
        let mut script = Script { topology, random, from_ms, faults: Vec::new() };
        (self.faults)(&mut script);
        let mut faults = script.faults;
        faults.sort_by_key(|timed| timed.at_ms);
        faults.iter_mut().zip(0..).for_each(|(timed, id)| timed.id = id);
        faults
    }
}

/// Faults that are being written down.
struct Script<'a> {
    topology: &'a Topology,
    random: Random,
    from_ms: u64,
    faults: Vec<Timed>,
}

impl Script<'_> {
    /// Times are about so, after the start.
    fn add(&mut self, at_ms: u64, lasts_ms: u64, fault: Fault) {
        let at_ms = self.from_ms + at_ms + self.random.in_range(0..90);
        self.faults.push(Timed { id: 0, at_ms, lasts_ms, fault });
    }

    fn crash_at(&mut self, at_ms: u64, lasts_ms: u64, place: usize, point: &str) {
        let nth = self.random.in_range(1..6);
        let node = self.node(place);
        self.add(at_ms, lasts_ms, Fault::CrashAt { node, point: point.to_owned(), nth });
    }

    fn node(&self, place: usize) -> String {
        self.topology.storage[place].clone()
    }

    fn front(&self, place: usize) -> String {
        self.topology.fronts[place].clone()
    }

    fn meta(&self, place: usize) -> String {
        self.topology.meta[place].clone()
    }

    fn storage(&self) -> Vec<String> {
        self.topology.storage.clone()
    }

    fn links_to_storage(&self, front: &str) -> Vec<Link> {
        self.topology.storage.iter().map(|node| (front.to_owned(), node.clone())).collect()
    }

    /// What storage nodes send to fronts.
    fn links_from_storage(&self) -> Vec<Link> {
        let fronts = &self.topology.fronts;
        let links = self.topology.storage.iter();
        links.flat_map(|node| fronts.iter().map(move |front| (node.clone(), front.clone()))).collect()
    }

    /// Between each of some and each of others, in both directions.
    fn between(&self, some: &[String], others: &[String]) -> Vec<Link> {
        let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (one.clone(), other.clone())));
        pairs.flat_map(|(one, other)| [(one.clone(), other.clone()), (other, one)]).collect()
    }

    /// Between a node and everybody else.
    fn both_ways(&self, node: &str) -> Vec<Link> {
        let others = self.topology.all().into_iter().filter(|other| other != node);
        others.flat_map(|other| [(node.to_owned(), other.clone()), (other, node.to_owned())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_faults_in_order() {
        let mut names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            let shape = (scenario.shape)();
            for seed in 0..5 {
                let faults = scenario.schedule(&shape.topology, seed, 1_000);
                assert!(
                    !faults.is_empty() && faults.is_sorted_by_key(|timed| timed.at_ms),
                    "{}",
                    scenario.name
                );
                assert_eq!(faults, scenario.schedule(&shape.topology, seed, 1_000));
                assert!(faults.iter().all(|timed| timed.end_ms() < 31_000), "{}: {faults:#?}", scenario.name);
            }
        }
    }

    #[test]
    fn no_scenario_stops_a_node_that_another_of_its_faults_holds_stopped() {
        for scenario in ALL {
            let shape = (scenario.shape)();
            let faults = scenario.schedule(&shape.topology, 1, 0);
            for (i, one) in faults.iter().enumerate().filter(|(_, one)| one.fault.stops_nodes()) {
                for other in faults[..i].iter().filter(|other| other.fault.stops_nodes()) {
                    let shared = one.fault.nodes().iter().any(|node| other.fault.nodes().contains(node));
                    let overlap = one.at_ms < other.end_ms() && other.at_ms < one.end_ms();
                    assert!(!(shared && overlap), "{}: {one} and {other}", scenario.name);
                }
            }
        }
    }
}
