//! Which shards of a peer are tailed together: shards that this store just came to hold start at the beginning of
//! the peer's log, and must not take those back with them that are level.

use std::collections::BTreeMap;

use oteld_store::model::Shard;

/// Shards, each with the epoch since which this store is a replica of it.
pub type Memberships = BTreeMap<Shard, u64>;

/// What is to be done with a peer's lanes.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Which of the running lanes go on; the others stop.
    pub keep: Vec<bool>,
    /// Those to start.
    pub start: Vec<Memberships>,
}

/// Arranges the lanes of one peer: those that are level become one, those that are behind go on by themselves, and
/// what is new gets a lane of its own. `running` says of each whether it is level.
pub fn arrange(wanted: &Memberships, running: &[(&Memberships, bool)]) -> Arrangement {
    let is_wanted = |(shard, since): &(&Shard, &u64)| wanted.get(shard) == Some(since);
    let stays_whole = |lane: &Memberships| lane.iter().all(|held| is_wanted(&held));
    let left_of = |lane: &Memberships| -> Memberships {
        lane.iter().filter(is_wanted).map(|(shard, since)| (*shard, *since)).collect()
    };
    let level = || running.iter().filter(|(_, is_level)| *is_level);
    let level_goes_on = level().count() == 1 && level().all(|(lane, _)| stays_whole(lane));
    let keep: Vec<bool> = running
        .iter()
        .map(|(lane, is_level)| if *is_level { level_goes_on } else { stays_whole(lane) })
        .collect();
    let mut start = Vec::new();
    if !level_goes_on {
        start.push(level().flat_map(|(lane, _)| left_of(lane)).collect());
    }
    let behind = running.iter().zip(&keep).filter(|((_, is_level), keep)| !*is_level && !**keep);
    start.extend(behind.map(|((lane, _), _)| left_of(lane)));
    let is_new = |held: &(&Shard, &u64)| !running.iter().any(|(lane, _)| lane.get(held.0) == Some(held.1));
    start.push(wanted.iter().filter(is_new).map(|(shard, since)| (*shard, *since)).collect());
    start.retain(|lane: &Memberships| !lane.is_empty());
    Arrangement { keep, start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(shards: &[(u32, u64)]) -> Memberships {
        shards.iter().map(|(shard, since)| (Shard(*shard), *since)).collect()
    }

    #[test]
    fn new_shards_start_apart_and_join_the_others_when_they_are_level() {
        let (old, new, both) = (held(&[(1, 1), (2, 1)]), held(&[(3, 5)]), held(&[(1, 1), (2, 1), (3, 5)]));
        let (rejoined, without) = (held(&[(1, 1), (2, 7)]), held(&[(1, 1)]));
        let none = Memberships::new();
        for (wanted, running, keep, start) in [
            (&old, vec![], vec![], vec![&old]),
            (&old, vec![(&old, true)], vec![true], vec![]),
            (&old, vec![(&old, false)], vec![true], vec![]),
            (&both, vec![(&old, true)], vec![true], vec![&new]),
            (&both, vec![(&old, true), (&new, false)], vec![true, true], vec![]),
            (&both, vec![(&old, true), (&new, true)], vec![false, false], vec![&both]),
            (&old, vec![(&both, true)], vec![false], vec![&old]),
            (&old, vec![(&both, false)], vec![false], vec![&old]),
            (&rejoined, vec![(&old, true)], vec![false], vec![&without, &held(&[(2, 7)])]),
            (&none, vec![(&old, true), (&new, false)], vec![false, false], vec![]),
        ] {
            let expected = Arrangement { keep, start: start.into_iter().cloned().collect() };
            assert_eq!(arrange(wanted, &running), expected, "{wanted:?} of {running:?}");
        }
    }
}
