//! Which shards of a peer are tailed together: shards that this store just came to hold start at the beginning of
//! the peer's log, and must not take those back with them that are level.

use std::collections::BTreeMap;

use oteld_store::model::Shard;

/// Shards, each with the epoch since which this store is a replica of it.
pub type Memberships = BTreeMap<Shard, u64>;

/// How far a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing came yet: nothing is lost when it stops.
    #[default]
    New,
    Behind,
    /// All of the peer's log is held.
    Level,
}

/// What is to be done with a peer's lanes.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Which of the running lanes go on; the others stop.
    pub keep: Vec<bool>,
    /// Those to start.
    pub start: Vec<Memberships>,
}

/// Arranges the lanes of one peer: those that are level become one, those that are behind go on by themselves, and
/// what is new is together in another one, so that a snapshot is copied once for all of it.
pub fn arrange(wanted: &Memberships, running: &[(&Memberships, Standing)]) -> Arrangement {
    let is_wanted = |(shard, since): &(&Shard, &u64)| wanted.get(shard) == Some(since);
    let stays_whole = |lane: &Memberships| lane.iter().all(|held| is_wanted(&held));
    let left_of = |lane: &Memberships| -> Memberships {
        lane.iter().filter(is_wanted).map(|(shard, since)| (*shard, *since)).collect()
    };
    let is_untailed =
        |held: &(&Shard, &u64)| !running.iter().any(|(lane, _)| lane.get(held.0) == Some(held.1));
    let untailed: Memberships =
        wanted.iter().filter(is_untailed).map(|(shard, since)| (*shard, *since)).collect();
    let all = |standing| running.iter().filter(move |(_, of)| *of == standing).map(|(lane, _)| *lane);
    let goes_on = |standing| all(standing).count() == 1 && all(standing).all(stays_whole);
    let (level_goes_on, new_goes_on) =
        (goes_on(Standing::Level), goes_on(Standing::New) && untailed.is_empty());
    let keeps = |(lane, standing): &(&Memberships, Standing)| match standing {
        Standing::Level => level_goes_on,
        Standing::New => new_goes_on,
        Standing::Behind => stays_whole(lane),
    };
    let keep: Vec<bool> = running.iter().map(keeps).collect();
    let mut start = Vec::new();
    if !level_goes_on {
        start.push(all(Standing::Level).flat_map(left_of).collect());
    }
    start.extend(all(Standing::Behind).filter(|lane| !stays_whole(lane)).map(left_of));
    if !new_goes_on {
        start.push(all(Standing::New).flat_map(left_of).chain(untailed).collect());
    }
    start.retain(|lane: &Memberships| !lane.is_empty());
    Arrangement { keep, start }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Behind, Level, New};
    use super::*;

    fn held(shards: &[(u32, u64)]) -> Memberships {
        shards.iter().map(|(shard, since)| (Shard(*shard), *since)).collect()
    }

    #[test]
    fn new_shards_start_apart_and_join_the_others_when_they_are_level() {
        let (old, new, both) = (held(&[(1, 1), (2, 1)]), held(&[(3, 5)]), held(&[(1, 1), (2, 1), (3, 5)]));
        let (rejoined, without) = (held(&[(1, 1), (2, 7)]), held(&[(1, 1)]));
        let (newer, all) = (held(&[(4, 6)]), held(&[(1, 1), (2, 1), (3, 5), (4, 6)]));
        let none = Memberships::new();
        for (wanted, running, keep, start) in [
            (&old, vec![], vec![], vec![&old]),
            (&old, vec![(&old, Level)], vec![true], vec![]),
            (&old, vec![(&old, Behind)], vec![true], vec![]),
            (&old, vec![(&old, New)], vec![true], vec![]),
            (&both, vec![(&old, Level)], vec![true], vec![&new]),
            (&both, vec![(&old, Level), (&new, Behind)], vec![true, true], vec![]),
            (&both, vec![(&old, Level), (&new, Level)], vec![false, false], vec![&both]),
            (&all, vec![(&old, Level), (&new, New)], vec![true, false], vec![&held(&[(3, 5), (4, 6)])]),
            (&all, vec![(&old, Level), (&new, Behind)], vec![true, true], vec![&newer]),
            (&both, vec![(&old, New), (&new, New)], vec![false, false], vec![&both]),
            (&old, vec![(&both, Level)], vec![false], vec![&old]),
            (&old, vec![(&both, Behind)], vec![false], vec![&old]),
            (&old, vec![(&both, New)], vec![false], vec![&old]),
            (&rejoined, vec![(&old, Level)], vec![false], vec![&without, &held(&[(2, 7)])]),
            (&none, vec![(&old, Level), (&new, Behind), (&newer, New)], vec![false; 3], vec![]),
        ] {
            let expected = Arrangement { keep, start: start.into_iter().cloned().collect() };
            assert_eq!(arrange(wanted, &running), expected, "{wanted:?} of {running:?}");
        }
    }
}
