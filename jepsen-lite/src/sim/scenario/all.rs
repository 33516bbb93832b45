//! The scenarios.

use super::Scenario;
use crate::coverage;
use crate::nemesis::fault::{DiskHow, Fault, LinkHow, Shape as Cut};
use crate::nemesis::topology::Topology;
use crate::sim::world::Shape;

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
        shape: flushes_often,
        faults: |script| {
            // Few, so that most of what they hit still decodes; then many.
            for (round, bits) in [20, 60, 3_000].into_iter().enumerate() {
                let at_ms = 5_000 + 8_500 * round as u64;
                let node = script.node(0);
                script.add(at_ms, 500, Fault::Disk { node, how: DiskHow::FlipBits { bits } });
                let other = script.node(1 + round % 2);
                script.add(at_ms + 1_000, 4_000, Fault::Kill { nodes: vec![other] });
            }
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
            for round in 0..2 {
                let (one, other) = (script.node(0), script.node(1));
                let cut = [script.both_ways(&one), script.both_ways(&other)].concat();
                script.add(1_500 + 14_500 * round, 13_000, Fault::Partition { shape: Cut::Single, cut });
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
            let points = [
                "wal.group_written",
                "compaction.before_commit",
                "wal.group_synced",
                "flush.after_commit",
                "compaction.after_commit",
                "wal.file_created",
            ];
            for (round, point) in points.into_iter().cycle().take(9).enumerate() {
                script.crash_at(1_500 + 3_000 * round as u64, 2_000, 0, point);
            }
        },
        proof: &[coverage::POINT_HIT, coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "one-node-alone-writes-and-crashes",
        known_from: "etcd 14370",
        what: "a single replica loses power in the middle of its writes, so that groups of its log are torn",
        shape: one,
        faults: |script| {
            for round in 0..12 {
                script.crash_at(1_500 + 2_300 * round, 1_500, 0, "wal.group_written");
            }
        },
        proof: &[coverage::POINT_HIT, coverage::REPLAYED_ROWS],
    },
    Scenario {
        name: "one-node-alone-merges-and-crashes",
        known_from: "PROTOCOL, failure 9",
        what: "a single replica loses power around the commits of its merges",
        shape: one_that_flushes_often,
        faults: |script| {
            for round in 0..12_u64 {
                let point = ["compaction.before_commit", "compaction.after_commit"][(round % 4 / 3) as usize];
                script.crash_at(1_500 + 2_300 * round, 1_700, 0, point);
            }
        },
        proof: &[coverage::POINT_HIT, coverage::COMPACTIONS],
    },
    Scenario {
        name: "the-only-holder-is-lost",
        known_from: "promise P1",
        what: "fronts reach one replica alone, and then its disk is gone: it must not have been enough",
        shape: with_meta,
        faults: |script| {
            let (alone, others) = (script.node(0), [script.node(1), script.node(2)]);
            let cut =
                script.between(&others, &[vec![alone.clone()], script.topology.fronts.clone()].concat());
            script.add(4_000, 8_000, Fault::Partition { shape: Cut::Halves, cut });
            script.add(11_500, 1_000, Fault::Wipe { node: alone });
        },
        proof: &[coverage::HELD_BACK, coverage::WIPED],
    },
    Scenario {
        name: "a-failed-fsync-is-not-done-again",
        known_from: "PostgreSQL, the fsync errors of 2018",
        what: "an fsync fails on all nodes and the pages are gone; then power is lost",
        shape: never_flushes,
        faults: |script| {
            for round in 0..6 {
                let at_ms = 2_000 + 4_500 * round;
                for node in script.storage() {
                    script.add(at_ms, 1_700, Fault::Disk { node, how: DiskHow::FailedSync });
                }
                // Before the fault ends, with a restart.
                script.add(at_ms + 700, 600, Fault::Power { nodes: script.storage() });
            }
        },
        proof: &[coverage::DISK_STRUCK, coverage::KILLED],
    },
    Scenario {
        name: "fronts-that-lag-behind-moves",
        known_from: "PROTOCOL, failure 4",
        what: "shards move while fronts and restarted stores hear nothing of the metadata, and go by old maps",
        shape: five_with_meta,
        faults: |script| {
            for round in 0..4_usize {
                let at_ms = 1_500 + 7_000 * round as u64;
                let (one, other) = (script.node(round % 5), script.node((round + 1) % 5));
                let lags = [script.topology.fronts.clone(), vec![one.clone(), other.clone()]].concat();
                let far = [script.node((round + 2) % 5), script.node((round + 3) % 5)];
                let cut = [
                    script.between(&lags, &script.topology.meta),
                    script.between(&script.topology.fronts, &far),
                ];
                script.add(at_ms, 5_500, Fault::Partition { shape: Cut::Halves, cut: cut.concat() });
                script.add(at_ms + 2_500, 400, Fault::Power { nodes: vec![one, other] });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "moves-to-stores-that-fronts-do-not-reach",
        known_from: "PROTOCOL, F1",
        what: "shards move from stores that fronts reach to others that they do not: both sets must have a majority",
        shape: five_with_meta,
        faults: |script| {
            for round in 0..7_usize {
                let far = [script.node(round % 5), script.node((round + 1) % 5)];
                let cut = script.between(&script.topology.fronts, &far);
                script.add(1_500 + 4_000 * round as u64, 3_500, Fault::Partition { shape: Cut::Halves, cut });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "crashes-in-the-middle-of-moves",
        known_from: "PROTOCOL, M2 to M6",
        what: "shards move while those that come, those that leave, and the one who drives are killed in turn",
        shape: five,
        faults: |script| {
            for round in 0..12_usize {
                let at_ms = 1_500 + 2_300 * round as u64;
                script.add(at_ms, 700, Fault::Power { nodes: vec![script.node(round * 2 % 5)] });
            }
        },
        proof: &[coverage::KILLED, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "a-leader-that-was-deposed-answers",
        known_from: "etcd and Consul, Jepsen analysis of 2014",
        what: "each meta member in turn hears nobody, while clients reach it and the others elect another leader",
        shape: with_meta,
        faults: |script| {
            for round in 0..3_usize {
                let alone = script.meta(round);
                let others = script.topology.meta.iter().filter(|other| **other != alone).cloned();
                let cut = script.between(std::slice::from_ref(&alone), &others.collect::<Vec<_>>());
                script.add(1_500 + 9_500 * round as u64, 8_000, Fault::Partition { shape: Cut::Single, cut });
            }
        },
        proof: &[coverage::HELD_BACK],
    },
    Scenario {
        name: "no-meta-majority",
        known_from: "promise P10",
        what: "the meta group has no majority for long, and nothing else is wrong: data must flow",
        shape: with_meta,
        faults: |script| {
            let nodes = vec![script.meta(0), script.meta(1)];
            script.add(2_000, 13_000, Fault::Meta { nodes, pauses: false });
            let nodes = vec![script.meta(1), script.meta(2)];
            script.add(16_500, 13_000, Fault::Meta { nodes, pauses: true });
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
    Scenario {
        name: "retries-reach-stores-that-still-write",
        known_from: "PROTOCOL, A1",
        what: "disks are slow, fronts die over what they sent, clients retry through the other, and all lose power",
        shape: three,
        faults: |script| {
            for round in 0..6_usize {
                let at_ms = 1_500 + 4_500 * round as u64;
                for node in script.storage() {
                    script.add(at_ms, 2_500, Fault::Disk { node, how: DiskHow::Slow { ms: 900 } });
                }
                let nodes = vec![script.front(round % 2)];
                script.add(at_ms + 900, 300, Fault::Kill { nodes });
                script.add(at_ms + 1_300, 1_200, Fault::Power { nodes: script.storage() });
            }
        },
        proof: &[coverage::DISK_STRUCK, coverage::KILLED],
    },
    Scenario {
        name: "seen-before-others-hold-it",
        known_from: "PROTOCOL, failure 11",
        what: "one replica has what the others still write and clients read it; then it is gone, and they lose power",
        shape: one_shard,
        faults: |script| {
            // Fronts ask a node last for some seconds after it failed: between two rounds that is forgotten.
            for round in 0..3_usize {
                let at_ms = 1_500 + 10_000 * round as u64;
                let others = [script.node((round + 1) % 3), script.node((round + 2) % 3)];
                // Beyond the loss of power: what waits for the first sync would be written at once when it ends.
                for node in others.clone() {
                    script.add(at_ms, 1_200, Fault::Disk { node, how: DiskHow::Slow { ms: 900 } });
                }
                script.add(at_ms + 1_000, 5_500, Fault::Kill { nodes: vec![script.node(round % 3)] });
                // Until clients gave up what they would send again.
                script.add(at_ms + 1_000, 1_500, Fault::Power { nodes: others.into() });
                // New connections are found dead sooner than those that were good.
                script.add(at_ms + 1_000, 1_200, Fault::Kill { nodes: script.topology.fronts.clone() });
            }
        },
        proof: &[coverage::DISK_STRUCK, coverage::KILLED],
    },
    Scenario {
        name: "rows-that-came-by-snapshot-go-on",
        known_from: "PROTOCOL, T2",
        what: "one replica alone takes rows, another gets them from it by a snapshot and is the only one left to pass them on",
        shape: short_logs,
        faults: |script| {
            let (first, second, third) = (script.node(0), script.node(1), script.node(2));
            let fronts = script.topology.fronts.clone();
            let single = |cut| Fault::Partition { shape: Cut::Single, cut };
            let one = std::slice::from_ref(&first);
            script.add(1_500, 8_000, single(script.between(one, &[second.clone(), third.clone()])));
            // It has them by a snapshot alone, and its log stays where the third one knows it.
            script.add(1_500, 15_500, single(script.between(&fronts, &[second])));
            let away = [vec![first.clone()], fronts].concat();
            script.add(1_500, 15_500, single(script.between(&[third], &away)));
            script.add(16_700, 11_000, Fault::Kill { nodes: vec![first] });
        },
        proof: &[coverage::HELD_BACK, coverage::SEGMENTS_INSTALLED],
    },
    Scenario {
        name: "single-copies-move-on-slow-disks",
        known_from: "PROTOCOL, M2",
        what: "shards with one replica move away while what was sent to it still waits for its disk",
        shape: single_copies,
        faults: |script| {
            for round in 0..7_usize {
                let (at_ms, node) = (1_500 + 4_000 * round as u64, script.node(round % 3));
                script.add(at_ms, 3_500, Fault::Disk { node, how: DiskHow::Slow { ms: 600 } });
            }
        },
        proof: &[coverage::DISK_STRUCK, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "fronts-miss-the-end-of-moves",
        known_from: "PROTOCOL, E2 and F1",
        what: "shards leave the one slow store that fronts reach, for stores that they do not, and nobody tells them",
        shape: single_copies,
        faults: |script| {
            for round in 0..5_usize {
                let at_ms = 1_500 + 5_500 * round as u64;
                let (slow, one, other) =
                    (script.node(round % 3), script.node((round + 1) % 3), script.node((round + 2) % 3));
                let fronts = script.topology.fronts.clone();
                let far = [vec![one, other], script.topology.meta.clone()].concat();
                let cut = script.between(&fronts, &far);
                script.add(at_ms, 5_000, Fault::Partition { shape: Cut::Halves, cut });
                script.add(at_ms, 5_000, Fault::Disk { node: slow, how: DiskHow::Slow { ms: 400 } });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::DISK_STRUCK, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "a-fence-outlives-its-store",
        known_from: "PROTOCOL, E3",
        what: "a store is fenced and loses power; what fronts sent before arrives when it is back, and hears nobody else",
        shape: single_copies,
        faults: |script| {
            for round in 0..4_usize {
                let at_ms = 1_500 + 7_000 * round as u64;
                let (fenced, fronts) = (script.node(round % 3), script.topology.fronts.clone());
                let cut = script.between(&fronts, &script.topology.meta);
                script.add(at_ms, 5_800, Fault::Partition { shape: Cut::Halves, cut });
                let links = script.between(&fronts, std::slice::from_ref(&fenced));
                script.add(at_ms, 3_900, Fault::Link { links, how: LinkHow::Hold });
                let others = script.topology.all().into_iter();
                let others =
                    others.filter(|other| *other != fenced && !fronts.contains(other)).collect::<Vec<_>>();
                let cut = script.between(std::slice::from_ref(&fenced), &others);
                script.add(at_ms + 2_900, 2_900, Fault::Partition { shape: Cut::Single, cut });
                script.add(at_ms + 3_000, 700, Fault::Power { nodes: vec![fenced] });
            }
        },
        proof: &[coverage::HELD_BACK, coverage::KILLED, coverage::MOVES_FINISHED],
    },
    Scenario {
        name: "meta-members-restart-in-an-instant",
        known_from: "track record, seed 34",
        what: "each meta member in turn is killed and back at once, so that a leader goes on leading within its term",
        shape: with_meta,
        faults: |script| {
            for round in 0..13_usize {
                let nodes = vec![script.meta(round % 3)];
                script.add(1_500 + 2_200 * round as u64, 60, Fault::Kill { nodes });
            }
        },
        proof: &[coverage::KILLED, coverage::LEADER_HIT],
    },
];

fn three() -> Shape {
    Shape::of(Topology::new(3, 0, 2), 3)
}

fn five() -> Shape {
    Shape::of(Topology::new(5, 0, 2), 3)
}

fn five_with_meta() -> Shape {
    Shape::of(Topology::new(5, 3, 2), 3)
}

fn with_meta() -> Shape {
    Shape::of(Topology::new(3, 3, 2), 3)
}

fn one() -> Shape {
    Shape::of(Topology::new(1, 0, 2), 1)
}

/// Two sets of replicas that share none.
fn single_copies() -> Shape {
    Shape::of(Topology::new(3, 3, 2), 1)
}

fn one_that_flushes_often() -> Shape {
    Shape { topology: one().topology, replication_factor: 1, ..flushes_often() }
}

fn flushes_often() -> Shape {
    Shape { memtable_bytes_max: 16 << 10, wal_keep_bytes: 4 << 10, ..three() }
}

/// The log of a replica that takes rows for some seconds does not reach back to what came before; that of one that
/// takes none does.
fn short_logs() -> Shape {
    Shape { memtable_bytes_max: 4 << 10, wal_keep_bytes: 16 << 10, ..three() }.impatient()
}

/// Whoever answers has all rows, and waits for no other replica's disk that it need not wait for.
fn one_shard() -> Shape {
    Shape { shards: 1, ..three() }.impatient()
}

fn never_flushes() -> Shape {
    Shape { memtable_bytes_max: 256 << 20, ..three() }
}
