//! MOVE of PROTOCOL, steps M1 to M6, one command each. Every command names its move and the epoch it expects, so
//! that a repeated one is recognised and a late one refused.

use std::collections::{BTreeMap, BTreeSet};

use super::shards::members;
use super::{ClusterState, Loss, Move, MoveStep, Position, ShardEntry};
use crate::command::{Applied, Rejected};
use crate::ids::{Epoch, MoveId, NodeId, ReplicaId, ShardId};
use crate::shard_map::{Member, majority};

impl ClusterState {
    /// M1.
    pub(super) fn start_move(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        new: &[(NodeId, ReplicaId)],
    ) -> Result<Applied, Rejected> {
        if self.move_ended(shard, id) {
            return Ok(Applied::Unchanged);
        }
        let current = self.shard(shard).ok_or(Rejected::NoSuchShard(shard))?;
        if let Some(moving) = &current.moving {
            let again = moving.id == id;
            return if again {
                Ok(Applied::Unchanged)
            } else {
                Err(Rejected::ShardBusy { shard, id: moving.id })
            };
        }
        if let Some(split) = &self.split {
            return Err(Rejected::ShardBusy { shard, id: split.id });
        }
        let old = current.entry.old.clone();
        self.check_set(new, &old)?;
        let entry = self.shard_at(shard, expect)?;
        let joint = expect.next();
        let new = members(new, joint, &old);
        if same_stores(&new, &old) {
            let reason = "it is the current one".to_owned();
            return Err(Rejected::Invalid("the replica set".to_owned(), reason));
        }
        entry.entry.new = Some(new);
        entry.entry.epoch = joint;
        entry.moving = Some(Move { id, step: MoveStep::Joint });
        Ok(Applied::Epoch(joint))
    }

    /// M2: who of the old set learnt the joint epoch, and up to where each published. Positions may be added later,
    /// so that a move does not depend on the first majority alone; the first one of each store stays.
    pub(super) fn record_fence(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        positions: BTreeMap<ReplicaId, Position>,
    ) -> Result<Applied, Rejected> {
        if self.move_ended(shard, id) {
            return Ok(Applied::Unchanged);
        }
        let entry = self.moving_at(shard, expect, id)?;
        let old = entry.entry.old.clone();
        let moving = entry.moving.as_mut().ok_or(Rejected::NoSuchMove(id))?;
        let known = match &moving.step {
            MoveStep::Joint => BTreeMap::new(),
            MoveStep::Fenced { positions } => positions.clone(),
        };
        let mut fenced = positions;
        fenced.retain(|replica, _| old.iter().any(|member| member.replica == *replica));
        fenced.extend(known.clone());
        if !majority(&old, |replica| fenced.contains_key(&replica)) {
            return Err(Rejected::NoMajority("of the old set is fenced".to_owned()));
        }
        if fenced == known {
            return Ok(Applied::Unchanged);
        }
        moving.step = MoveStep::Fenced { positions: fenced };
        Ok(Applied::Done)
    }

    /// M3 and M4: every newcomer and a majority of the new set hold what was fenced.
    pub(super) fn finish_move(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        holds: &BTreeSet<ReplicaId>,
    ) -> Result<Applied, Rejected> {
        if self.move_ended(shard, id) {
            return Ok(Applied::Unchanged);
        }
        let entry = self.moving_at(shard, expect, id)?;
        if !matches!(&entry.moving, Some(Move { step: MoveStep::Fenced { .. }, .. })) {
            return Err(Rejected::StepMissing("the old set is not fenced".to_owned()));
        }
        let new = entry.entry.new.clone().unwrap_or_default();
        if !majority(&new, |replica| holds.contains(&replica)) {
            return Err(Rejected::NoMajority("of the new set holds the fenced positions".to_owned()));
        }
        let newcomer = |member: &&Member| !entry.entry.old.iter().any(|old| old.replica == member.replica);
        if let Some(behind) = new.iter().filter(newcomer).find(|member| !holds.contains(&member.replica)) {
            return Err(Rejected::StepMissing(format!("newcomer {} is not complete", behind.replica)));
        }
        Ok(end(entry, id, new))
    }

    /// M6.
    pub(super) fn cancel_move(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
    ) -> Result<Applied, Rejected> {
        if self.move_ended(shard, id) {
            return Ok(Applied::Unchanged);
        }
        let entry = self.moving_at(shard, expect, id)?;
        let old = entry.entry.old.clone();
        Ok(end(entry, id, old))
    }

    /// The override of M6: no fence and no majority is asked for, and the loss is written down. The new set is of
    /// survivors of the old one alone, or of none of them: beside a survivor, a store that holds nothing yet would
    /// count as complete, and two of those would be a quorum that misses what is not lost.
    pub(super) fn accept_data_loss(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        id: MoveId,
        set: &[(NodeId, ReplicaId)],
        lost: String,
    ) -> Result<Applied, Rejected> {
        if self.move_ended(shard, id) {
            return Ok(Applied::Unchanged);
        }
        if let Some(split) = &self.split {
            return Err(Rejected::ShardBusy { shard, id: split.id });
        }
        let current = &self.shard(shard).ok_or(Rejected::NoSuchShard(shard))?.entry;
        let (known, old) = (current.members(), current.old.clone());
        self.check_set(set, &known)?;
        let survives = |store: &&(NodeId, ReplicaId)| old.iter().any(|member| member.replica == store.1);
        let survivors = set.iter().filter(survives).count();
        if survivors != 0 && survivors != set.len() {
            let reason =
                "it has survivors of the old set and others: name the survivors, others come by moves";
            return Err(Rejected::Invalid("the replica set".to_owned(), reason.to_owned()));
        }
        let entry = self.shard_at(shard, expect)?;
        let set = members(set, expect.next(), &known);
        let gone = |member: &&Member| !set.iter().any(|kept| kept.replica == member.replica);
        let without = known.iter().filter(gone).copied().collect();
        let applied = end(entry, id, set);
        self.losses.push(Loss { shard, epoch: expect.next(), id, without, lost });
        Ok(applied)
    }

    fn moving_at(&mut self, shard: ShardId, expect: Epoch, id: MoveId) -> Result<&mut ShardEntry, Rejected> {
        let entry = self.shard_at(shard, expect)?;
        if entry.moving.as_ref().is_some_and(|moving| moving.id == id) {
            Ok(entry)
        } else {
            Err(Rejected::NoSuchMove(id))
        }
    }
}

/// Ends a joint epoch with `set` alone, at the next epoch.
fn end(entry: &mut ShardEntry, id: MoveId, set: Vec<Member>) -> Applied {
    entry.entry.epoch = entry.entry.epoch.next();
    entry.entry.old = set;
    entry.entry.new = None;
    entry.moving = None;
    entry.last_move = Some(id);
    Applied::Epoch(entry.entry.epoch)
}

fn same_stores(left: &[Member], right: &[Member]) -> bool {
    let stores = |set: &[Member]| set.iter().map(|member| member.replica).collect::<BTreeSet<_>>();
    stores(left) == stores(right)
}
