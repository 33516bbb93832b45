//! Scenarios by name: what broke others, done to oteld on purpose.
//!
//! Each fixes the cluster's shape and its faults; the seed decides their exact times, what clients do and every order. A
//! scenario that did not really happen, by its own proof, is unknown.

use oteld_env::Random;

use super::world::Shape;
use crate::coverage;
use crate::nemesis::fault::{DiskHow, Fault, Link, LinkHow, Shape as Cut};
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

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "power-loss-after-acknowledgement",
        known_from: "NATS 2.12.1, Jepsen analysis",
        what: "all nodes, or most, lose power right after they acknowledged",
        shape: three,
        faults: |script| {
            for round in 0..5 {
                let at_ms = 2_000 + 5_000 * round;
                let nodes = script.storage();
                let some = if round % 2 == 0 { nodes.len() } else { nodes.len() - 1 };
                script.crash_at(at_ms, 1_500, 0, "wal.group_synced");
                script.crash_at(at_ms, 1_500, 1, "wal.group_written");
                script.add(at_ms + 1_600, 1_500, Fault::Power { nodes: nodes[..some].to_vec() });
            }
        },
        proof: &[coverage::KILLED, coverage::POINT_HIT, coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "bit-flip-on-a-minority-that-later-serves",
        known_from: "NATS 2.12.1, Jepsen analysis",
        what: "bits flip on one replica, then it is the one that answers while another is away",
        shape: three,
        faults: |script| {
            let node = script.node(0);
            script.add(6_000, 1_000, Fault::Disk { node, how: DiskHow::FlipBits { bits: 24 } });
            let (second, third) = (script.node(1), script.node(2));
            script.add(14_000, 4_000, Fault::Kill { nodes: vec![second] });
            script.add(20_000, 4_000, Fault::Kill { nodes: vec![third] });
        },
        proof: &[coverage::BITS_FLIPPED],
    },
    Scenario {
        name: "two-crashes-before-the-first-flush",
        known_from: "Loki 14848",
        what: "a node crashes, replays its log, takes new rows, and crashes again before anything was flushed",
        shape: never_flushes,
        faults: |script| {
            for place in 0..3 {
                for round in 0..3 {
                    let nodes = vec![script.node(place)];
                    script.add(2_000 + 9_000 * place as u64 + 2_500 * round, 600, Fault::Power { nodes });
                }
            }
        },
        proof: &[coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "replay-after-a-flush-that-was-cut-off",
        known_from: "Loki 3378",
        what: "power is lost between a flush's commit and the log's release, so that rows are replayed that segments hold",
        shape: flushes_often,
        faults: |script| {
            let points = ["flush.after_commit", "flush.segment_written", "flush.before_commit"];
            for (round, point) in points.into_iter().cycle().take(9).enumerate() {
                script.crash_at(2_000 + 3_000 * round as u64, 2_000, round % 3, point);
            }
        },
        proof: &[coverage::POINT_HIT, coverage::FLUSHES],
    },
    Scenario {
        name: "a-retry-overtakes-its-original",
        known_from: "Elasticsearch 8788",
        what: "what a front sends is held on its way, the client retries through the other, then the original arrives",
        shape: three,
        faults: |script| {
            for round in 0..6 {
                let front = script.front(round % 2);
                let links = script.links_to_storage(&front);
                script.add(1_500 + 4_500 * round as u64, 4_000, Fault::Link { links, how: LinkHow::Hold });
            }
        },
        proof: &[coverage::DELAYED],
    },
    Scenario {
        name: "reply-lost-then-power-lost",
        known_from: "ClickHouse 111196",
        what: "replicas append, their answers are lost, they crash, and the retry must not be taken for applied",
        shape: three,
        faults: |script| {
            for round in 0..5 {
                let at_ms = 1_500 + 5_500 * round;
                let cut = script.links_from_storage();
                script.add(at_ms, 3_000, Fault::Partition { shape: Cut::OneWay, cut });
                script.crash_at(at_ms + 500, 2_500, (round % 3) as usize, "wal.group_written");
                let nodes = vec![script.node((round as usize + 1) % 3)];
                script.add(at_ms + 2_000, 1_500, Fault::Power { nodes });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::KILLED],
    },
    Scenario {
        name: "retries-outlive-restarts",
        known_from: "ClickHouse 121174",
        what: "clients still retry after nodes were flushed, merged and restarted: no window of deduplication may be over",
        shape: flushes_often,
        faults: |script| {
            for round in 0..4 {
                let cut = script.links_from_storage();
                let at_ms = 1_500 + 7_000 * round;
                script.add(at_ms, 3_500, Fault::Partition { shape: Cut::OneWay, cut });
                script.add(at_ms + 3_600, 800, Fault::Kill { nodes: script.storage() });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::FLUSHES],
    },
    Scenario {
        name: "a-replica-fails-while-another-is-waited-for",
        known_from: "ClickHouse 54543",
        what: "one replica is out of reach, a second fails its append, and the quorum is waited for again",
        shape: three,
        faults: |script| {
            for round in 0..5_usize {
                let at_ms = 1_500 + 5_500 * round as u64;
                let (away, fails) = (script.node(round % 3), script.node((round + 1) % 3));
                let cut = script.both_ways(&away);
                script.add(at_ms, 3_500, Fault::Partition { shape: Cut::Single, cut });
                script.add(at_ms + 500, 2_500, Fault::Disk { node: fails, how: DiskHow::FailedSync });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::DISK_STRUCK],
    },
    Scenario {
        name: "a-member-comes-back-with-another-disk",
        known_from: "ClickHouse 118740",
        what: "a store is wiped, its node comes back at once, and shards move to it while it is cut off now and then",
        shape: three,
        faults: |script| {
            let node = script.node(0);
            script.add(3_000, 300, Fault::Wipe { node: node.clone() });
            for round in 0..4 {
                let cut = script.both_ways(&node);
                script.add(5_000 + 5_000 * round, 2_000, Fault::Partition { shape: Cut::Single, cut });
            }
        },
        proof: &[coverage::WIPED],
    },
    Scenario {
        name: "a-node-returns-after-its-peers-forgot",
        known_from: "InfluxDB 4205",
        what: "a node is away until its peers' logs no longer reach back, and must catch up by a snapshot",
        shape: flushes_often,
        faults: |script| {
            script.add(2_000, 20_000, Fault::Kill { nodes: vec![script.node(0)] });
            script.add(24_000, 4_000, Fault::Kill { nodes: vec![script.node(1)] });
        },
        proof: &[coverage::SEGMENTS_INSTALLED],
    },
    Scenario {
        name: "restart-under-back-pressure",
        known_from: "VictoriaMetrics 6905",
        what: "disks are full, requests pile up at the fronts, and nodes are killed",
        shape: three,
        faults: |script| {
            for round in 0..3 {
                let at_ms = 2_000 + 9_000 * round;
                for place in 0..2 {
                    script.add(at_ms, 5_000, Fault::Disk { node: script.node(place), how: DiskHow::NoSpace });
                }
                script.add(at_ms + 5_100, 1_200, Fault::Power { nodes: script.storage() });
            }
        },
        proof: &[coverage::KILLED, coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "partial-answers-end-with-the-fault",
        known_from: "VictoriaMetrics 7332",
        what: "fronts reach one replica only and answer partially; afterwards nothing of that may be left",
        shape: three,
        faults: |script| {
            for round in 0..4 {
                let (one, other) = (script.node(0), script.node(1));
                let cut = [script.both_ways(&one), script.both_ways(&other)].concat();
                script.add(1_500 + 7_000 * round, 5_000, Fault::Partition { shape: Cut::Single, cut });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::PARTIAL_READS],
    },
    Scenario {
        name: "fronts-that-know-nodes-in-another-order",
        known_from: "VictoriaMetrics 7898",
        what: "fronts start at other times with other copies of the metadata, and must place everything alike",
        shape: five,
        faults: |script| {
            for round in 0..6_usize {
                let at_ms = 1_500 + 4_500 * round as u64;
                script.add(at_ms, 800, Fault::Kill { nodes: vec![script.front(round % 2)] });
                script.add(at_ms + 1_000, 2_500, Fault::Kill { nodes: vec![script.node(round % 5)] });
            }
        },
        proof: &[coverage::KILLED],
    },
    Scenario {
        name: "queries-while-members-change",
        known_from: "Mimir 13667",
        what: "the same queries, while a store is replaced and its shards move",
        shape: five,
        faults: |script| {
            script.add(2_000, 500, Fault::Wipe { node: script.node(0) });
            for round in 1..5_usize {
                let at_ms = 5_000 + 5_000 * round as u64;
                script.add(at_ms, 2_000, Fault::Kill { nodes: vec![script.node(round)] });
            }
        },
        proof: &[coverage::WIPED, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "late-answers-of-a-node-that-was-frozen",
        known_from: "etcd 20418",
        what: "everything to and from a node is frozen, the others go on, and then it all arrives",
        shape: three,
        faults: |script| {
            for round in 0..6_usize {
                let links = script.both_ways(&script.node(round % 3));
                script.add(1_500 + 4_500 * round as u64, 3_500, Fault::Link { links, how: LinkHow::Hold });
            }
        },
        proof: &[coverage::DELAYED],
    },
    Scenario {
        name: "one-node-alone-crashes",
        known_from: "etcd 14370",
        what: "a single replica acknowledges, loses power, and is the only one who can know",
        shape: one,
        faults: |script| {
            let points = ["wal.group_written", "wal.group_synced", "flush.after_commit", "wal.file_created"];
            for (round, point) in points.into_iter().cycle().take(9).enumerate() {
                script.crash_at(1_500 + 3_000 * round as u64, 2_000, 0, point);
            }
        },
        proof: &[coverage::POINT_HIT, coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "no-meta-majority",
        known_from: "promise P10",
        what: "the meta group has no majority for long, and nothing else is wrong: data must flow",
        shape: with_meta,
        faults: |script| {
            let nodes = vec![script.meta(0), script.meta(1)];
            script.add(3_000, 11_000, Fault::Meta { nodes, pauses: false });
            let nodes = vec![script.meta(1), script.meta(2)];
            script.add(16_000, 11_000, Fault::Meta { nodes, pauses: true });
        },
        proof: &[coverage::LEADERLESS],
    },
    Scenario {
        name: "elections-under-power-loss",
        known_from: "openraft 1802",
        what: "meta members lose power and links in turn, so that leaders change while settings are changed",
        shape: with_meta,
        faults: |script| {
            for round in 0..7_usize {
                let at_ms = 1_500 + 4_000 * round as u64;
                let (first, second) = (script.meta(round % 3), script.meta((round + 1) % 3));
                script.add(at_ms, 1_200, Fault::Power { nodes: vec![first] });
                let cut = script.both_ways(&second);
                script.add(at_ms + 1_300, 1_800, Fault::Partition { shape: Cut::Single, cut });
            }
        },
        proof: &[coverage::LEADER_HIT, coverage::HELD_BACK],
    },
];

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

fn three() -> Shape {
    Shape::of(Topology::new(3, 0, 2), 3)
}

fn five() -> Shape {
    Shape::of(Topology::new(5, 0, 2), 3)
}

fn with_meta() -> Shape {
    Shape::of(Topology::new(3, 3, 2), 3)
}

fn one() -> Shape {
    Shape::of(Topology::new(1, 0, 2), 1)
}

fn flushes_often() -> Shape {
    Shape { memtable_bytes_max: 16 << 10, wal_keep_bytes: 4 << 10, ..three() }
}

fn never_flushes() -> Shape {
    Shape { memtable_bytes_max: 256 << 20, ..three() }
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
