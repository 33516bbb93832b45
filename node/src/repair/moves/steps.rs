//! What a move needs next, and who holds what was fenced. Pure.

use std::collections::{BTreeMap, BTreeSet};

use oteld_cluster::command::Command;
use oteld_cluster::ids::ReplicaId;
use oteld_cluster::shard_map::{Entry, Member, majority};
use oteld_cluster::state::{Move, MoveStep, Position, ShardEntry};

/// Fenced stores of a shard, each with where its log ended at the fence.
pub type Positions = BTreeMap<ReplicaId, Position>;

/// Whom to ask about a shard that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// M2: they are to learn the joint entry and reply their positions.
    pub fence: BTreeSet<Member>,
    /// M3: do they hold what was fenced?
    pub holds: BTreeSet<Member>,
    /// Up to where.
    pub positions: Positions,
}

/// What the members said of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub fenced: Positions,
    pub holds: BTreeSet<ReplicaId>,
}

/// Whom to ask next; nobody where nothing moves. Old members that were not fenced yet are asked also when a majority
/// was: should one of that be lost for good, another majority can take its place.
pub fn asks(shard: &ShardEntry) -> Asks {
    let (Some(moving), Some(new)) = (&shard.moving, &shard.entry.new) else { return Asks::default() };
    let positions = positions(moving);
    let unfenced = shard.entry.old.iter().filter(|member| !positions.contains_key(&member.replica));
    let is_fenced = matches!(moving.step, MoveStep::Fenced { .. });
    let holds = if is_fenced { new.iter().copied().collect() } else { BTreeSet::new() };
    Asks { fence: unfenced.copied().collect(), holds, positions }
}

/// The command that carries the move a step further, where the answers allow one.
pub fn next_command(shard: &ShardEntry, answers: &Answers) -> Option<Command> {
    let (Some(moving), Some(new)) = (&shard.moving, &shard.entry.new) else { return None };
    let (shard_id, expect, id) = (shard.shard, shard.entry.epoch, moving.id);
    let known = positions(moving);
    if matches!(moving.step, MoveStep::Fenced { .. }) && is_held(&shard.entry, new, &answers.holds) {
        return Some(Command::FinishMove { shard: shard_id, expect, id, holds: answers.holds.clone() });
    }
    let mut positions = answers.fenced.clone();
    positions.extend(known.clone());
    let fenced = majority(&shard.entry.old, |replica| positions.contains_key(&replica));
    (fenced && positions != known).then_some(Command::RecordFence { shard: shard_id, expect, id, positions })
}

/// M3: every newcomer, and a majority of the new set, holds what was fenced.
fn is_held(entry: &Entry, new: &[Member], holds: &BTreeSet<ReplicaId>) -> bool {
    let is_newcomer = |member: &&Member| !entry.old.iter().any(|old| old.replica == member.replica);
    majority(new, |replica| holds.contains(&replica))
        && new.iter().filter(is_newcomer).all(|member| holds.contains(&member.replica))
}

/// Whether a store holds all that was acknowledged before the fence: what a majority of the old set had published at
/// its fence. Any majority will do, and two stores may hold by two of them: what was acknowledged is at some member of
/// each. `covers` says whether the store holds a member's log up to a position.
pub fn holds_fenced(
    entry: &Entry,
    positions: &Positions,
    covers: impl Fn(ReplicaId, &Position) -> bool,
) -> bool {
    majority(&entry.old, |replica| positions.get(&replica).is_some_and(|position| covers(replica, position)))
        || oteld_env::mutant("moved-before-catch-up")
}

fn positions(moving: &Move) -> Positions {
    match &moving.step {
        MoveStep::Joint => Positions::new(),
        MoveStep::Fenced { positions } => positions.clone(),
    }
}

#[cfg(test)]
mod tests {
    use oteld_cluster::ids::{Epoch, MoveId, NodeId, ShardId};

    use super::*;

    fn set(replicas: &[u128]) -> Vec<Member> {
        let member = |&replica: &u128| Member {
            node: NodeId(replica as u64),
            replica: ReplicaId(replica),
            since_epoch: Epoch(1),
        };
        replicas.iter().map(member).collect()
    }

    fn ids(replicas: &[u128]) -> BTreeSet<ReplicaId> {
        replicas.iter().copied().map(ReplicaId).collect()
    }

    fn at(replicas: &[u128]) -> Positions {
        replicas.iter().map(|r| (ReplicaId(*r), Position { boot: 1, nonce: 2, n: *r as u64 })).collect()
    }

    fn shard(old: &[u128], new: &[u128], fenced: Option<&[u128]>) -> ShardEntry {
        let step = fenced.map_or(MoveStep::Joint, |fenced| MoveStep::Fenced { positions: at(fenced) });
        ShardEntry {
            shard: ShardId(3),
            entry: Entry { epoch: Epoch(7), old: set(old), new: Some(set(new)) },
            moving: Some(Move { id: MoveId(9), step }),
            last_move: None,
            split_from: None,
        }
    }

    const OLD: &[u128] = &[1, 2, 3];
    const NEW: &[u128] = &[1, 2, 4];

    #[test]
    fn members_that_were_not_fenced_are_asked_until_the_end_and_new_ones_after_the_fence() {
        for (fenced, fence, holds) in [
            (None, &[1, 2, 3][..], &[][..]),
            (Some(&[1, 2][..]), &[3], &[1, 2, 4]),
            (Some(&[1, 2, 3]), &[], &[1, 2, 4]),
        ] {
            let asks = asks(&shard(OLD, NEW, fenced));
            let replicas = |set: &BTreeSet<Member>| set.iter().map(|m| m.replica).collect::<BTreeSet<_>>();
            assert_eq!(
                (replicas(&asks.fence), replicas(&asks.holds)),
                (ids(fence), ids(holds)),
                "{fenced:?}"
            );
        }
        let idle = ShardEntry { moving: None, ..shard(OLD, NEW, None) };
        assert_eq!(asks(&idle), Asks::default());
    }

    #[test]
    fn a_step_is_taken_when_enough_members_answered() {
        #[derive(Debug, PartialEq)]
        enum Step {
            None,
            Fence(&'static [u128]),
            Finish,
        }
        for (old, new, known, fenced, holds, expected) in [
            (OLD, NEW, None, &[][..], &[][..], Step::None),
            (OLD, NEW, None, &[1], &[], Step::None),
            (OLD, NEW, None, &[1, 4], &[], Step::None),
            (OLD, NEW, None, &[1, 3], &[], Step::Fence(&[1, 3])),
            (OLD, NEW, None, &[1, 3], &[1, 2, 4], Step::Fence(&[1, 3])),
            (OLD, NEW, Some(&[1, 2][..]), &[], &[1, 2], Step::None),
            (OLD, NEW, Some(&[1, 2]), &[3], &[1, 2], Step::Fence(&[1, 2, 3])),
            (OLD, NEW, Some(&[1, 2]), &[], &[4], Step::None),
            (OLD, NEW, Some(&[1, 2]), &[], &[2, 4], Step::Finish),
            (OLD, NEW, Some(&[1, 2]), &[3], &[1, 2, 4], Step::Finish),
            // From 5 to 3, nobody new: a majority of the kept ones must hold all the same.
            (&[1, 2, 3, 4, 5], &[1, 2, 3], Some(&[1, 2, 3]), &[], &[1], Step::None),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], Some(&[1, 2, 3]), &[], &[1, 2], Step::Finish),
            // Both newcomers, also where one of them makes a majority.
            (&[1], &[1, 5, 6], Some(&[1]), &[], &[1, 5], Step::None),
            (&[1], &[1, 5, 6], Some(&[1]), &[], &[5, 6], Step::Finish),
        ] {
            let answers = Answers { fenced: at(fenced), holds: ids(holds) };
            let command = next_command(&shard(old, new, known), &answers);
            let common = (ShardId(3), Epoch(7), MoveId(9));
            match (command, &expected) {
                (None, Step::None) => {}
                (Some(Command::RecordFence { shard, expect, id, positions }), Step::Fence(fenced)) => {
                    assert_eq!(((shard, expect, id), positions), (common, at(fenced)));
                }
                (Some(Command::FinishMove { shard, expect, id, holds: held }), Step::Finish) => {
                    assert_eq!(((shard, expect, id), held), (common, ids(holds)));
                }
                (command, expected) => panic!("{command:?} is not {expected:?}: {known:?} {answers:?}"),
            }
        }
    }

    #[test]
    fn a_store_holds_what_was_fenced_by_any_majority_of_the_old_set() {
        for (fenced, covered, holds) in [
            (&[1, 2][..], &[1, 2][..], true),
            (&[1, 2], &[1], false),
            (&[1, 2, 3], &[2, 3], true),
            (&[1, 2, 3], &[3], false),
            (&[1, 2], &[1, 3], false),
            (&[1, 2], &[], false),
        ] {
            let entry = shard(OLD, NEW, None).entry;
            let covers = |replica: ReplicaId, position: &Position| {
                assert_eq!(position.n, replica.0 as u64);
                covered.contains(&replica.0)
            };
            assert_eq!(holds_fenced(&entry, &at(fenced), covers), holds, "{fenced:?} {covered:?}");
        }
    }
}
