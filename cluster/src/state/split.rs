//! SPLIT of PROTOCOL: the number of shards doubles. All shards are fenced by an epoch of their own, every parent's
//! log is closed by a majority, then shards `s` and `s + n` take over from `s`: f(2n) mod n = f(n).

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterState, ShardEntry, Split};
use crate::command::{Applied, Rejected};
use crate::ids::{Epoch, MoveId, ReplicaId, ShardId};
use crate::shard_map::majority;

/// Most shards that a cluster may have.
pub(super) const SHARDS_MAX: u32 = 1 << 16;

impl ClusterState {
    pub(super) fn start_split(&mut self, id: MoveId, expect_shards: u32) -> Result<Applied, Rejected> {
        if self.last_split == Some(id) || self.split.as_ref().is_some_and(|split| split.id == id) {
            return Ok(Applied::Unchanged);
        }
        let actual = self.shards.len() as u32;
        if actual != expect_shards || actual == 0 {
            return Err(Rejected::ShardCountIs { expected: expect_shards, actual });
        }
        if actual > SHARDS_MAX / 2 {
            let reason = format!("there would be more than {SHARDS_MAX} shards");
            return Err(Rejected::Invalid("the split".to_owned(), reason));
        }
        if let Some(split) = &self.split {
            return Err(Rejected::ShardBusy { shard: ShardId(0), id: split.id });
        }
        for shard in &self.shards {
            if let Some(moving) = &shard.moving {
                return Err(Rejected::ShardBusy { shard: shard.shard, id: moving.id });
            }
        }
        self.raise_all_epochs();
        self.split = Some(Split { id, from: actual, closed: BTreeMap::new() });
        Ok(Applied::Done)
    }

    pub(super) fn record_split_fence(
        &mut self,
        id: MoveId,
        shard: ShardId,
        expect: Epoch,
        closed: BTreeSet<ReplicaId>,
    ) -> Result<Applied, Rejected> {
        if self.last_split == Some(id) {
            return Ok(Applied::Unchanged);
        }
        self.splitting(id)?;
        let entry = self.shard_at(shard, expect)?;
        if !majority(&entry.entry.old, |replica| closed.contains(&replica)) {
            return Err(Rejected::NoMajority("of the set has closed the parent's log".to_owned()));
        }
        let split = self.split.as_mut().ok_or(Rejected::NoSuchMove(id))?;
        if split.closed.contains_key(&shard) {
            return Ok(Applied::Unchanged);
        }
        split.closed.insert(shard, closed);
        Ok(Applied::Done)
    }

    pub(super) fn finish_split(&mut self, id: MoveId) -> Result<Applied, Rejected> {
        if self.last_split == Some(id) {
            return Ok(Applied::Unchanged);
        }
        let split = self.splitting(id)?;
        if let Some(open) = self.shards.iter().find(|shard| !split.closed.contains_key(&shard.shard)) {
            return Err(Rejected::StepMissing(format!("shard {} is not fenced", open.shard)));
        }
        let parents = split.from;
        let fences: Vec<Epoch> = self.shards.iter().map(|shard| shard.entry.epoch).collect();
        self.raise_all_epochs();
        let mut children = Vec::with_capacity(self.shards.len());
        for (parent, fence) in self.shards.iter_mut().zip(fences) {
            let split_from = Some((parent.shard, fence));
            let (shard, entry) = (ShardId(parent.shard.0 + parents), parent.entry.clone());
            parent.split_from = split_from;
            children.push(ShardEntry { shard, entry, moving: None, last_move: None, split_from });
        }
        self.shards.extend(children);
        self.split = None;
        self.last_split = Some(id);
        Ok(Applied::Done)
    }

    pub(super) fn cancel_split(&mut self, id: MoveId) -> Result<Applied, Rejected> {
        if self.last_split == Some(id) {
            return Ok(Applied::Unchanged);
        }
        self.splitting(id)?;
        self.raise_all_epochs();
        self.split = None;
        self.last_split = Some(id);
        Ok(Applied::Done)
    }

    fn splitting(&self, id: MoveId) -> Result<&Split, Rejected> {
        self.split.as_ref().filter(|split| split.id == id).ok_or(Rejected::NoSuchMove(id))
    }

    fn raise_all_epochs(&mut self) {
        for shard in &mut self.shards {
            shard.entry.epoch = shard.entry.epoch.next();
        }
    }
}
