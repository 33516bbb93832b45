//! Which faults strike when: a function of the seed.

use std::fmt;

use oteld_env::Random;

/// A storage node, from 0.
pub type NodeIndex = usize;

/// What is done to the cluster at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Power loss: the process ends and unsynced bytes are lost.
    Crash(NodeIndex),
    /// Power loss, and the store's disk is gone for good. At most one in a schedule: two could be a majority.
    Wipe(NodeIndex),
    Restart(NodeIndex),
    /// Nothing passes between the two, in either direction.
    Cut(NodeIndex, NodeIndex),
    /// Nothing passes between the node and the front.
    CutFront(NodeIndex),
    Mend(NodeIndex, NodeIndex),
    MendFront(NodeIndex),
}

/// A step and when it is taken, in simulated milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    pub at_ms: u64,
    pub step: Step,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ms {:?}", self.at_ms, self.step)
    }
}

/// Faults between `from_ms` and `to_ms` on `nodes` storage nodes, each with its end before `to_ms`, in order.
///
/// A node is not crashed while another is down: with three replicas a second one would only stop the load. Cuts
/// overlap as they like.
pub fn faults(random: &Random, nodes: usize, from_ms: u64, to_ms: u64) -> Vec<Timed> {
    let mut steps = Vec::new();
    let (mut down_until_ms, mut wiped) = (0, false);
    let mut at_ms = from_ms;
    loop {
        at_ms += random.in_range(200..2500);
        let lasts_ms = random.in_range(100..4000);
        let end_ms = at_ms + lasts_ms;
        if end_ms >= to_ms {
            break;
        }
        let node = random.in_range(0..nodes as u64) as usize;
        let other = (node + 1 + random.in_range(0..nodes as u64 - 1) as usize) % nodes;
        let (start, end) = match random.in_range(0..5) {
            0..=2 if at_ms > down_until_ms => {
                down_until_ms = end_ms;
                let wipes = !wiped && random.in_range(0..4) == 0;
                wiped |= wipes;
                (if wipes { Step::Wipe(node) } else { Step::Crash(node) }, Step::Restart(node))
            }
            3 => (Step::CutFront(node), Step::MendFront(node)),
            _ => (Step::Cut(node, other), Step::Mend(node, other)),
        };
        steps.push(Timed { at_ms, step: start });
        steps.push(Timed { at_ms: end_ms, step: end });
    }
    steps.sort_by_key(|timed| timed.at_ms);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_ends_and_a_seed_gives_the_same_schedule() {
        for seed in 0..50 {
            let steps = faults(&Random::from_seed(seed), 3, 1000, 30_000);
            assert_eq!(steps, faults(&Random::from_seed(seed), 3, 1000, 30_000));
            let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|timed| wanted(&timed.step)).count();
            assert_eq!(
                count(|step| matches!(step, Step::Crash(_) | Step::Wipe(_))),
                count(|step| matches!(step, Step::Restart(_)))
            );
            assert!(count(|step| matches!(step, Step::Wipe(_))) <= 1);
            assert!(steps.iter().all(|timed| (1000..30_000).contains(&timed.at_ms)));
            let mut down = None;
            for timed in &steps {
                match timed.step {
                    Step::Crash(node) | Step::Wipe(node) => {
                        assert_eq!(down.replace(node), None, "two nodes down at once");
                    }
                    Step::Restart(node) => assert_eq!(down.take(), Some(node)),
                    _ => {}
                }
            }
        }
    }
}
