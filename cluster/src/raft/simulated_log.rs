//! A log in memory that forgets what was not synced when it crashes. Nothing in it depends on time, threads or
//! randomness of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use oteld_env::Random;
use parking_lot::Mutex;

use super::log_backend::{BackendError, Change, LogBackend};

/// A log for simulations. Cheap to clone; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedLog(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    durable: Content,
    /// Writes since the last sync, oldest first.
    unsynced: Vec<Vec<Change>>,
    visible: Content,
}

#[derive(Clone, Debug, Default)]
struct Content {
    entries: BTreeMap<u64, Vec<u8>>,
    named: BTreeMap<&'static str, Vec<u8>>,
}

impl Content {
    fn change(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(index, bytes) => {
                    self.entries.insert(*index, bytes.clone());
                }
                Change::TruncateFrom(index) => {
                    self.entries.split_off(index);
                }
                Change::PurgeThrough(index) => self.entries = self.entries.split_off(&(index + 1)),
                Change::Set(name, bytes) => {
                    self.named.insert(name, bytes.clone());
                }
            }
        }
    }
}

impl SimulatedLog {
    pub fn new() -> Self {
        SimulatedLog::default()
    }

    /// Makes the disk empty, durably.
    pub fn clear(&self) {
        *self.0.lock() = Disk::default();
    }

    /// Power loss: of the writes since the last sync, some first ones survive, as `random` decides.
    pub fn crash(&self, random: &Random) {
        let mut disk = self.0.lock();
        let kept = random.in_range(0..disk.unsynced.len() as u64 + 1) as usize;
        let unsynced = std::mem::take(&mut disk.unsynced);
        for changes in &unsynced[..kept] {
            disk.durable.change(changes);
        }
        disk.visible = disk.durable.clone();
    }
}

impl LogBackend for SimulatedLog {
    fn write(&self, changes: Vec<Change>) -> Result<(), BackendError> {
        let mut disk = self.0.lock();
        disk.visible.change(&changes);
        disk.unsynced.push(changes);
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        let mut disk = self.0.lock();
        let unsynced = std::mem::take(&mut disk.unsynced);
        for changes in &unsynced {
            disk.durable.change(changes);
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<(u64, Vec<u8>)>, BackendError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let disk = self.0.lock();
        Ok(disk.visible.entries.range(range).map(|(index, bytes)| (*index, bytes.clone())).collect())
    }

    fn last(&self) -> Result<Option<(u64, Vec<u8>)>, BackendError> {
        let disk = self.0.lock();
        Ok(disk.visible.entries.last_key_value().map(|(index, bytes)| (*index, bytes.clone())))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.0.lock().visible.named.get(name).cloned())
    }
}
