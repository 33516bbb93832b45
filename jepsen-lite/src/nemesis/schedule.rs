//! Which faults strike when: a function of the seed.
//!
//! First each kind once, in a shuffled order, then at random: overlapping, with quiet windows. The envelope within
//! which every promise must hold: at most one replica at a time loses for good what it had synced, and no other does
//! before the cluster could heal.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use oteld_env::Random;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, FaultKind};
use super::partition::Cuts;
use super::pick::Chooser;
use super::topology::Topology;

/// How long after a replica lost everything no other may: many times what it takes to copy a test's data.
pub const HEAL_MS: u64 = 180_000;

/// How long the first loss of the meta majority lasts, where there is time: what the data path does without a leader is
/// judged when the rest of an election is over, and without the aftermath of other faults.
const FIRST_LEADERLESS_MS: u64 = 9_000;

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// From 0, and kept when others are left out.
    pub id: u32,
    /// Since the run began, in milliseconds.
    pub at_ms: u64,
    pub lasts_ms: u64,
    pub fault: Fault,
}

impl Timed {
    pub fn end_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }

    fn overlaps(&self, from_ms: u64, to_ms: u64) -> bool {
        self.at_ms < to_ms && from_ms < self.end_ms()
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at_ms as f64 / 1e3, self.lasts_ms as f64 / 1e3);
        write!(f, "#{:<3} {at:>8.3} s for {lasts:>6.3} s  {:<9} {}", self.id, self.fault.kind(), self.fault)
    }
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Begin(&'a Timed),
    End(&'a Timed),
}

/// All beginnings and ends in order of time; at the same time ends stand first, then the order is that of ids.
pub fn steps(schedule: &[Timed]) -> Vec<(u64, Step<'_>)> {
    let begins = schedule.iter().map(|timed| (timed.at_ms, Step::Begin(timed)));
    let ends = schedule.iter().map(|timed| (timed.end_ms(), Step::End(timed)));
    let mut steps: Vec<_> = begins.chain(ends).collect();
    steps.sort_by_key(|&(at_ms, step)| match step {
        Step::End(timed) => (at_ms, 0, timed.id),
        Step::Begin(timed) => (at_ms, 1, timed.id),
    });
    steps
}

/// Faults of a schedule, by number: `3,7`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Only(pub Vec<u32>);

impl Only {
    /// These of a schedule, unchanged.
    pub fn of(&self, schedule: &[Timed]) -> Vec<Timed> {
        schedule.iter().filter(|timed| self.0.contains(&timed.id)).cloned().collect()
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(if ids.is_empty() { "none".to_owned() } else { ids.join(",") }.as_str())
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Only(Vec::new()));
        }
        let id = |id: &str| id.parse().map_err(|_| format!("`{id}` is not the number of a fault"));
        text.split(',').map(id).collect::<Result<_, _>>().map(Only)
    }
}

/// Whether a kind of fault can strike such a cluster at all.
///
/// # Errors
/// Why not, in words for whoever asked for it.
pub fn possible(kind: FaultKind, topology: &Topology, replication_factor: u32) -> Result<(), String> {
    match kind {
        FaultKind::Store => {
            Err("oteld does not write to an object store yet, so that this fault cannot strike".into())
        }
        FaultKind::Wipe if replication_factor < 3 => Err(format!(
            "with {replication_factor} replicas one is no minority: what it loses may be lost for good"
        )),
        FaultKind::Meta if !topology.has_dedicated_meta() => {
            Err("the meta members are storage nodes or fronts, \
             so that the group cannot lose its majority while the data path is whole"
                .into())
        }
        FaultKind::Partition | FaultKind::Link if topology.all().len() < 2 => {
            Err("one node alone has no links".into())
        }
        _ => Ok(()),
    }
}

/// Faults of these kinds on a cluster, all between `from_ms` and `to_ms`, in the order in which they begin. Kinds that
/// are not [`possible`] are left out.
pub fn schedule(
    seed: u64,
    topology: &Topology,
    cuts: Cuts,
    kinds: &[FaultKind],
    from_ms: u64,
    to_ms: u64,
    replication_factor: u32,
) -> Vec<Timed> {
    let kinds: BTreeSet<FaultKind> = kinds.iter().copied().collect();
    let kinds: Vec<FaultKind> =
        kinds.into_iter().filter(|kind| possible(*kind, topology, replication_factor).is_ok()).collect();
    let span_ms = to_ms.saturating_sub(from_ms);
    let mut plan = Plan {
        random: Random::from_seed(seed),
        topology,
        cuts,
        may_lose_one: replication_factor >= 3,
        wipe_is_due: kinds.contains(&FaultKind::Wipe),
        to_ms,
        pace_ms: (span_ms / 20).clamp(500, 4_000),
        faults: Vec::new(),
    };
    if !kinds.is_empty() {
        let now_ms = plan.each_once(&kinds, from_ms);
        plan.at_random(&kinds, now_ms);
    }
    plan.faults
}

struct Plan<'a> {
    random: Random,
    topology: &'a Topology,
    cuts: Cuts,
    /// Whether one replica is a minority of its set.
    may_lose_one: bool,
    /// A wipe was asked for and there was none: flipped bits, a loss too, do not take its place.
    wipe_is_due: bool,
    to_ms: u64,
    /// About how long a fault lasts.
    pace_ms: u64,
    faults: Vec<Timed>,
}

impl Plan<'_> {
    /// Every kind in a slot of its own, as far as the time allows, the loss of the meta majority before all others;
    /// returns when the last slot ends.
    fn each_once(&mut self, kinds: &[FaultKind], from_ms: u64) -> u64 {
        let mut kinds = kinds.to_vec();
        for i in (1..kinds.len()).rev() {
            kinds.swap(i, self.random.in_range(0..i as u64 + 1) as usize);
        }
        let mut at_ms = from_ms;
        if let Some(place) = kinds.iter().position(|kind| *kind == FaultKind::Meta) {
            let lasts_ms = FIRST_LEADERLESS_MS.min(self.to_ms.saturating_sub(from_ms) / 3);
            if self.add(FaultKind::Meta, at_ms, lasts_ms, false) {
                kinds.remove(place);
                at_ms += lasts_ms;
            }
        }
        let span_ms = self.to_ms.saturating_sub(at_ms) * 19 / 20;
        let slot_ms = (span_ms / kinds.len().max(1) as u64).min(2 * self.pace_ms);
        for kind in kinds {
            let end_ms = at_ms + slot_ms;
            // The nodes of the fault before are often free a little later.
            while at_ms < end_ms {
                let left_ms = end_ms - at_ms;
                let lasts_ms = self.random.in_range(left_ms / 2..left_ms.max(1) + 1).max(1);
                if self.add(kind, at_ms, lasts_ms, false) {
                    break;
                }
                at_ms += slot_ms.div_ceil(16).max(1);
            }
            at_ms = end_ms;
        }
        at_ms
    }

    /// Bursts of faults that overlap, with quiet windows between them, until the time is up.
    fn at_random(&mut self, kinds: &[FaultKind], from_ms: u64) {
        let pace_ms = self.pace_ms;
        let mut at_ms = from_ms;
        while at_ms < self.to_ms {
            for _ in 0..self.random.in_range(4..12) {
                at_ms += self.random.in_range(pace_ms / 10..pace_ms * 3 / 2);
                let lasts_ms = self.random.in_range(pace_ms / 4..pace_ms * 5 / 2);
                let kind = kinds[self.random.in_range(0..kinds.len() as u64) as usize];
                self.add(kind, at_ms, lasts_ms, true);
            }
            let all_over_ms = self.faults.iter().map(Timed::end_ms).max().unwrap_or(at_ms);
            at_ms = at_ms.max(all_over_ms) + self.random.in_range(pace_ms..pace_ms * 4);
        }
    }

    /// Adds a fault of the kind where one is possible then. The first of its kind may not miss.
    fn add(&mut self, kind: FaultKind, at_ms: u64, lasts_ms: u64, may_miss: bool) -> bool {
        let end_ms = at_ms + lasts_ms;
        if end_ms >= self.to_ms {
            return false;
        }
        let busy: BTreeSet<String> = (self.faults.iter())
            .filter(|timed| timed.fault.stops_nodes() && timed.overlaps(at_ms, end_ms))
            .flat_map(|timed| timed.fault.nodes())
            .collect();
        // Faults are added in the order in which they begin, so that those before are all there is.
        let heals = |timed: &Timed| timed.fault.destroys() && at_ms < timed.end_ms() + HEAL_MS;
        let may_destroy = self.may_lose_one && !self.faults.iter().any(heals);
        let chooser = Chooser {
            random: &self.random,
            topology: self.topology,
            cuts: self.cuts,
            busy: &busy,
            may_wipe: may_destroy,
            may_flip: may_destroy && !self.wipe_is_due,
            may_miss,
        };
        let Some(fault) = chooser.fault(kind) else { return false };
        self.wipe_is_due &= kind != FaultKind::Wipe;
        self.faults.push(Timed { id: self.faults.len() as u32, at_ms, lasts_ms, fault });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::fault::Shape;

    const POSSIBLE: [FaultKind; 9] = [
        FaultKind::Kill,
        FaultKind::Power,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::Link,
        FaultKind::Disk,
        FaultKind::Clock,
        FaultKind::Wipe,
        FaultKind::Meta,
    ];

    fn of(seed: u64, to_ms: u64) -> Vec<Timed> {
        schedule(seed, &Topology::new(5, 3, 2), Cuts::Links, &FaultKind::ALL, 5_000, to_ms, 3)
    }

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        for seed in 0..20 {
            assert_eq!(of(seed, 60_000), of(seed, 60_000));
            assert_ne!(of(seed, 60_000), of(seed + 1, 60_000));
        }
    }

    #[test]
    fn every_kind_strikes_within_a_minute_and_every_fault_ends() {
        for seed in 0..300 {
            let faults = of(seed, 50_000);
            let kinds: BTreeSet<FaultKind> = faults.iter().map(|timed| timed.fault.kind()).collect();
            assert_eq!(kinds.into_iter().collect::<Vec<_>>(), POSSIBLE, "seed {seed}: {faults:#?}");
            assert!(
                faults
                    .iter()
                    .all(|timed| timed.at_ms >= 5_000 && timed.end_ms() < 50_000 && timed.lasts_ms > 0)
            );
            assert!(faults.is_sorted_by_key(|timed| timed.at_ms));
        }
    }

    #[test]
    fn a_node_that_a_fault_stops_is_left_alone_by_others_that_stop() {
        for seed in 0..50 {
            let faults = of(seed, 300_000);
            for (i, one) in faults.iter().enumerate().filter(|(_, one)| one.fault.stops_nodes()) {
                for other in faults[..i].iter().filter(|other| other.fault.stops_nodes()) {
                    let shared = one.fault.nodes().iter().any(|node| other.fault.nodes().contains(node));
                    assert!(!(shared && one.overlaps(other.at_ms, other.end_ms())), "{one}\n{other}");
                }
            }
        }
    }

    #[test]
    fn one_replica_at_a_time_loses_everything_and_the_next_when_it_could_heal() {
        let mut losses = 0;
        for seed in 0..100 {
            let faults = of(seed, 1_000_000);
            let destroyed: Vec<&Timed> = faults.iter().filter(|timed| timed.fault.destroys()).collect();
            assert!(destroyed.windows(2).all(|pair| pair[1].at_ms >= pair[0].end_ms() + HEAL_MS));
            assert!(destroyed.iter().all(|timed| timed.fault.nodes().len() == 1));
            losses += destroyed.len();
            let short = of(seed, 60_000);
            assert!(short.iter().filter(|timed| timed.fault.destroys()).count() <= 1);
        }
        assert!(losses > 200, "only {losses} losses in 100 long runs");
    }

    #[test]
    fn two_copies_are_never_made_one() {
        let faults = schedule(1, &Topology::new(3, 0, 1), Cuts::Links, &FaultKind::ALL, 0, 600_000, 2);
        assert!(!faults.is_empty() && faults.iter().all(|timed| !timed.fault.destroys()));
        assert!(faults.iter().all(|timed| timed.fault.kind() != FaultKind::Meta));
    }

    #[test]
    fn where_only_nodes_can_be_cut_each_partition_leaves_one_alone() {
        let topology = Topology::new(3, 0, 2);
        let mut alone = BTreeSet::new();
        for seed in 0..50 {
            for timed in schedule(seed, &topology, Cuts::Nodes, &[FaultKind::Partition], 0, 100_000, 3) {
                let Fault::Partition { shape: Shape::Single, cut } = &timed.fault else { panic!("{timed}") };
                // Both ways to each of four others.
                assert_eq!(cut.len(), 8, "{timed}");
                assert!(cut.iter().all(|(from, to)| *from == cut[0].0 || *to == cut[0].0), "{timed}");
                alone.insert(cut[0].0.clone());
            }
        }
        assert_eq!(
            alone.into_iter().collect::<Vec<_>>(),
            ["front-1", "front-2", "storage-1", "storage-2", "storage-3"]
        );
    }

    #[test]
    fn long_runs_overlap_faults_and_have_quiet_windows() {
        let faults = of(3, 600_000);
        let in_force = |at_ms: u64| faults.iter().filter(|timed| timed.overlaps(at_ms, at_ms + 1)).count();
        let counts: Vec<usize> = (5_000..595_000).step_by(250).map(in_force).collect();
        assert!(counts.iter().any(|&count| count >= 3));
        let quiet = counts.split(|&count| count > 0).filter(|window| window.len() >= 16).count();
        assert!(quiet >= 5, "{quiet} quiet windows of 4 s");
    }

    #[test]
    fn steps_are_in_order_and_a_subset_keeps_its_times() {
        let faults = of(9, 60_000);
        let kept = "1,3".parse::<Only>().unwrap().of(&faults);
        assert_eq!(kept.iter().map(|timed| timed.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(kept[1], faults[3]);
        for only in [Only(vec![]), Only(vec![4]), Only(vec![4, 7])] {
            assert_eq!(only.to_string().parse(), Ok(only));
        }
        assert!("".parse::<Only>().is_err() && "3,x".parse::<Only>().is_err());
        let steps = steps(&faults);
        assert_eq!(steps.len(), 2 * faults.len());
        assert!(steps.is_sorted_by_key(|(at_ms, _)| *at_ms));
    }

    #[test]
    fn a_timed_fault_is_one_readable_line() {
        let fault = Fault::Pause { node: "meta-1".into() };
        let timed = Timed { id: 4, at_ms: 12_345, lasts_ms: 2_000, fault };
        assert_eq!(timed.to_string(), "#4     12.345 s for  2.000 s  pause     pause meta-1");
    }
}
