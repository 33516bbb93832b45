//! SEAL and tiering: which windows a majority agreed on, and where their objects are (PROTOCOL, SEAL and failure 9).

use std::collections::BTreeSet;

use super::{ClusterState, SealedWindow, Tier};
use crate::command::{Applied, Rejected};
use crate::ids::{Epoch, ReplicaId, ShardId, Signal};

/// A window of a shard.
type Key = (Signal, u64, ShardId);

impl ClusterState {
    /// The sealed window, if it is.
    pub fn sealed(&self, (signal, window, shard): Key) -> Option<&SealedWindow> {
        self.windows.get(&signal)?.get(&window)?.get(&shard)
    }

    pub(super) fn seal_window(
        &mut self,
        key: Key,
        expect: Epoch,
        digest: String,
        rows: u64,
        agreed: &BTreeSet<ReplicaId>,
    ) -> Result<Applied, Rejected> {
        let (signal, window, shard) = key;
        let known = self.sealed(key);
        if known.is_some_and(|known| known.digest == digest && known.rows == rows) {
            return Ok(Applied::Unchanged);
        }
        if let Some(Tier::Intent { key, .. }) = known.and_then(|known| known.tier.as_ref()) {
            return Err(Rejected::Differs { what: "an upload intent".to_owned(), actual: Some(key.clone()) });
        }
        let generation = known.map_or(1, |known| known.generation + 1);
        let entry = self.shard_at(shard, expect)?;
        if !entry.entry.quorum().is_reached(agreed) {
            return Err(Rejected::NoMajority("agrees on the digest".to_owned()));
        }
        let sealed = SealedWindow { digest, rows, epoch: expect, generation, tier: None };
        self.windows.entry(signal).or_default().entry(window).or_default().insert(shard, sealed);
        Ok(Applied::Done)
    }

    pub(super) fn tier_intent(
        &mut self,
        key: Key,
        digest: &str,
        object: String,
        by: ReplicaId,
    ) -> Result<Applied, Rejected> {
        let sealed = self.sealed_mut(key)?;
        if sealed.digest != digest {
            let actual = Some(sealed.digest.clone());
            return Err(Rejected::Differs { what: "the sealed digest".to_owned(), actual });
        }
        let intent = Tier::Intent { key: object, by };
        match &sealed.tier {
            None => {
                sealed.tier = Some(intent);
                Ok(Applied::Done)
            }
            Some(known) if *known == intent => Ok(Applied::Unchanged),
            Some(known) => Err(differs(known)),
        }
    }

    pub(super) fn tier_commit(
        &mut self,
        key: Key,
        object: String,
        bytes: u64,
        checksum: u64,
    ) -> Result<Applied, Rejected> {
        let sealed = self.sealed_mut(key)?;
        match &sealed.tier {
            Some(Tier::Intent { key, .. }) if *key == object => {
                sealed.tier = Some(Tier::Stored { key: object, bytes, checksum });
                Ok(Applied::Done)
            }
            Some(Tier::Stored { key, .. }) if *key == object => Ok(Applied::Unchanged),
            Some(known) => Err(differs(known)),
            None => Err(Rejected::StepMissing("the intent was cancelled".to_owned())),
        }
    }

    pub(super) fn tier_cancel(&mut self, key: Key, object: &str) -> Result<Applied, Rejected> {
        let sealed = self.sealed_mut(key)?;
        match &sealed.tier {
            Some(Tier::Intent { key, .. }) if key == object => {
                sealed.tier = None;
                Ok(Applied::Done)
            }
            Some(Tier::Stored { key, .. }) if key == object => Err(Rejected::Differs {
                what: "the object".to_owned(),
                actual: Some(format!("{key} is committed")),
            }),
            _ => Ok(Applied::Unchanged),
        }
    }

    pub(super) fn forget_window(&mut self, signal: Signal, window: u64) -> Result<Applied, Rejected> {
        let Some(windows) = self.windows.get_mut(&signal) else { return Ok(Applied::Unchanged) };
        let Some(shards) = windows.get(&window) else { return Ok(Applied::Unchanged) };
        if let Some(busy) = shards.values().find_map(|sealed| sealed.tier.as_ref()) {
            return Err(differs(busy));
        }
        windows.remove(&window);
        if windows.is_empty() {
            self.windows.remove(&signal);
        }
        Ok(Applied::Done)
    }

    fn sealed_mut(&mut self, (signal, window, shard): Key) -> Result<&mut SealedWindow, Rejected> {
        self.windows
            .get_mut(&signal)
            .and_then(|windows| windows.get_mut(&window))
            .and_then(|shards| shards.get_mut(&shard))
            .ok_or_else(|| Rejected::StepMissing(format!("window {window} of shard {shard} is not sealed")))
    }
}

fn differs(tier: &Tier) -> Rejected {
    let (Tier::Intent { key, .. } | Tier::Stored { key, .. }) = tier;
    Rejected::Differs { what: "the window's object".to_owned(), actual: Some(key.clone()) }
}
