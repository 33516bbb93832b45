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

    /// M2: who of the old set learnt the joint epoch, and up to where each published.
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
        if !majority(&entry.entry.old, |replica| positions.contains_key(&replica)) {
            return Err(Rejected::NoMajority("of the old set is fenced".to_owned()));
        }
        let moving = entry.moving.as_mut().ok_or(Rejected::NoSuchMove(id))?;
        if matches!(moving.step, MoveStep::Fenced { .. }) {
            return Ok(Applied::Unchanged);
        }
        moving.step = MoveStep::Fenced { positions };
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

    /// The override of M6: no fence and no majority is asked for, and the loss is written down.
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
        let known = self.shard(shard).ok_or(Rejected::NoSuchShard(shard))?.entry.members();
        self.check_set(set, &known)?;
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
