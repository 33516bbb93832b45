//! A disk in memory that behaves as badly as POSIX allows: a crash loses what was not synced, writes tear, a
//! failed fsync loses its pages, space runs out, bits flip. Seeded by [`Random`], so that a seed replays it.
//!
//! The model: a file has durable bytes and a list of writes since its last sync; a directory has durable names
//! and a list of creates, renames and removals since its last sync. [`SimDisk::crash`] keeps any subset of the
//! unsynced writes of a file (each possibly cut at a sector) and any prefix of the unsynced changes of a
//! directory, then forgets the rest. Handles and locks from before a crash are dead.
//!
//! There is no slow disk here: work on it blocks the one thread, whose time stands still. Work waits before it begins
//! and after it is done instead: [`crate::WorkQueue`].

mod content;
mod faults;
mod crash;
mod points;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::points::Reached;
use super::{Disk, DiskFile};
use crate::Random;
use content::Content;
pub use crash::{Amount, Lost};
pub use faults::{Fault, On};
use faults::{Injected, error_of};

/// An in-memory [`Disk`] with faults. Cheap to clone; clones share the files.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: Random,
    /// Grows with every crash; handles of an older one are dead.
    generation: u64,
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    dirs: BTreeMap<PathBuf, DirState>,
    locks: BTreeMap<PathBuf, u64>,
    capacity_bytes: u64,
    faults: Vec<Injected>,
    powerless: bool,
    changes: u64,
    /// Operations that an injected fault or a full disk made fail.
    struck: u64,
    points: Reached,
    lost: Lost,
}

#[derive(Debug, Default)]
struct FileState {
    durable: Content,
    current: Content,
    unsynced: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes { offset: u64, bytes: Arc<[u8]> },
    Len(u64),
}

#[derive(Debug, Default)]
struct DirState {
    durable: BTreeMap<PathBuf, u64>,
    current: BTreeMap<PathBuf, u64>,
    unsynced: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Rename { from: PathBuf, to: PathBuf, file: u64 },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Set(path, file) => {
                names.insert(path.clone(), *file);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl SimDisk {
    /// An empty disk of `capacity_bytes`.
    pub fn new(random: Random, capacity_bytes: u64) -> Self {
        SimDisk(Arc::new(Mutex::new(Inner {
            random,
            generation: 0,
            files: BTreeMap::new(),
            next_file: 0,
            dirs: BTreeMap::new(),
            locks: BTreeMap::new(),
            capacity_bytes,
            faults: Vec::new(),
            powerless: false,
            changes: 0,
            struck: 0,
            points: Reached::default(),
            lost: Lost::default(),
        })))
    }

    /// Power loss and restart: unsynced state is lost in part or whole, handles and locks die, faults are
    /// forgotten.
    pub fn crash(&self) {
        self.0.lock().crash();
    }

    /// SIGKILL and restart: what was written stays, synced or not; handles and locks die, faults go on.
    pub fn kill(&self) {
        let mut inner = self.0.lock();
        inner.generation += 1;
        inner.locks.clear();
    }

    /// The `after`-th operation from now that matches `on` (0 is the next one) does `fault`.
    pub fn inject(&self, on: On, after: u64, fault: Fault) {
        self.0.lock().faults.push(Injected { on, after, fault });
    }

    /// Forgets injected faults that did not strike yet; armed points stay.
    pub fn clear_faults(&self) {
        self.0.lock().faults.clear();
    }

    /// Whether a [`Fault::PowerLoss`] struck and [`SimDisk::crash`] has not been called since.
    pub fn is_powerless(&self) -> bool {
        self.0.lock().powerless
    }

    /// How many operations failed so far because of an injected fault or a full disk; power losses are not counted.
    pub fn struck(&self) -> u64 {
        self.0.lock().struck
    }

    /// How many operations changed something so far: the range of points to fail at.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Size of the disk. Below what is stored, nothing can be written.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.0.lock().capacity_bytes = capacity_bytes;
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset`, on the platter and in what is read.
    ///
    /// # Errors
    /// `NotFound` where there is no such file, `UnexpectedEof` beyond its end.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut inner = self.0.lock();
        let id = inner.find(path).ok_or(io::ErrorKind::NotFound)?;
        let file = inner.file(id)?;
        let mut byte = [0];
        file.current.read(offset, &mut byte)?;
        byte[0] ^= 1 << bit;
        file.current.write(offset, &byte);
        if offset < file.durable.len() {
            file.durable.read(offset, &mut byte)?;
            byte[0] ^= 1 << bit;
            file.durable.write(offset, &byte);
        }
        Ok(())
    }
}

impl Inner {
    fn find(&self, path: &Path) -> Option<u64> {
        self.dirs.get(parent(path))?.current.get(path).copied()
    }

    fn file(&mut self, id: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn dir(&mut self, path: &Path) -> io::Result<&mut DirState> {
        self.dirs.get_mut(parent(path)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, path: &Path, change: NameChange) -> io::Result<()> {
        let dir = self.dir(path)?;
        change.apply(&mut dir.current);
        dir.unsynced.push(change);
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.dirs
            .values()
            .flat_map(|dir| dir.current.values())
            .filter_map(|id| self.files.get(id))
            .map(|file| file.current.allocated_bytes())
            .sum()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check_power()?;
        for dir in dir.ancestors() {
            inner.dirs.entry(dir.to_path_buf()).or_default();
        }
        Ok(())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.0.lock();
        inner.check_power()?;
        let id = match inner.find(path) {
            Some(id) => id,
            None if create => {
                inner.check(On::AnyChange)?;
                let id = inner.next_file;
                inner.next_file += 1;
                inner.change_name(path, NameChange::Set(path.to_path_buf(), id))?;
                inner.files.insert(id, FileState::default());
                id
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(SimFile { disk: self.clone(), id, generation: inner.generation }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check(On::AnyChange)?;
        if parent(from) != parent(to) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulated rename stays in its directory",
            ));
        }
        let file = inner.find(from).ok_or(io::ErrorKind::NotFound)?;
        inner.change_name(from, NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), file })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.check(On::AnyChange)?;
        inner.find(path).ok_or(io::ErrorKind::NotFound)?;
        inner.change_name(path, NameChange::Remove(path.to_path_buf()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock();
        let struck = inner.strike(On::AnyChange);
        let state = inner.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        if let Some(fault) = struck {
            return Err(error_of(fault));
        }
        for change in std::mem::take(&mut state.unsynced) {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.0.lock();
        inner.check_power()?;
        let state = inner.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.current.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.0.lock();
        inner.check_power()?;
        Ok(inner.find(path).is_some() || inner.dirs.contains_key(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut inner = self.0.lock();
        inner.check_power()?;
        if inner.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let generation = inner.generation;
        inner.locks.insert(path.to_path_buf(), generation);
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf(), generation }))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let inner = self.0.lock();
        inner.check_power()?;
        Ok(inner.capacity_bytes.saturating_sub(inner.used_bytes()))
    }

    fn reach(&self, point: &'static str) {
        self.0.lock().reach(point);
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    generation: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.disk.0.lock();
        if inner.locks.get(&self.path) == Some(&self.generation) {
            inner.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
    generation: u64,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.0.lock();
        inner.check_power()?;
        if inner.generation != self.generation {
            return Err(io::Error::other("a file handle from before the crash"));
        }
        work(&mut inner)
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(|inner| {
            inner.check(On::Read)?;
            inner.file(self.id)?.current.read(offset, into)
        })
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|inner| {
            let mut fault = inner.strike(On::Write);
            if fault.is_none() && inner.used_bytes().saturating_add(bytes.len() as u64) > inner.capacity_bytes
            {
                fault = Some(Fault::NoSpace);
                inner.struck += 1;
            }
            let kept = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
            let file = inner.file(self.id)?;
            file.current.write(offset, kept);
            file.unsynced.push(Write::Bytes { offset, bytes: kept.into() });
            fault.map_or(Ok(()), |fault| Err(error_of(fault)))
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|inner| {
            inner.check(On::AnyChange)?;
            let file = inner.file(self.id)?;
            file.current.set_len(len);
            file.unsynced.push(Write::Len(len));
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|inner| Ok(inner.file(self.id)?.current.len()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|inner| {
            let struck = inner.strike(On::Sync);
            let file = inner.file(self.id)?;
            match struck {
                None => {
                    for write in std::mem::take(&mut file.unsynced) {
                        match write {
                            Write::Bytes { offset, bytes } => file.durable.write(offset, &bytes),
                            Write::Len(len) => file.durable.set_len(len),
                        }
                    }
                    Ok(())
                }
                Some(fault) => {
                    if fault != Fault::PowerLoss {
                        file.unsynced.clear();
                    }
                    Err(error_of(fault))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> SimDisk {
        let disk = SimDisk::new(Random::from_seed(seed), 1 << 20);
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk
    }

    #[test]
    fn synced_bytes_survive_a_crash_and_unsynced_ones_may_not() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..50 {
            let disk = disk(seed);
            let path = Path::new("/d/a");
            let file = disk.open(path, true).unwrap();
            file.write_all_at(0, b"synced").unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_all_at(6, b" not").unwrap();
            disk.crash();
            assert!(file.len().is_err(), "a handle from before the crash is dead");
            match disk.read(path).unwrap().as_slice() {
                b"synced" => lost += 1,
                b"synced not" => kept += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(lost > 0 && kept > 0);
    }

    #[test]
    fn an_unsynced_rename_happens_or_does_not() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = disk(seed);
            disk.replace(Path::new("/d/a"), b"old").unwrap();
            let file = disk.open(Path::new("/d/b"), true).unwrap();
            file.write_all_at(0, b"new").unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            disk.rename(Path::new("/d/b"), Path::new("/d/a")).unwrap();
            disk.crash();
            seen.insert(disk.read(Path::new("/d/a")).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()]);
    }

    #[test]
    fn a_failed_sync_loses_its_pages_even_when_the_next_one_succeeds() {
        let disk = disk(1);
        let file = disk.open(Path::new("/d/a"), true).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(0, b"gone").unwrap();
        disk.inject(On::Sync, 0, Fault::Io);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        disk.crash();
        assert_eq!(disk.read(Path::new("/d/a")).unwrap(), b"");
    }

    #[test]
    fn a_full_disk_refuses_and_power_loss_stops_everything() {
        let disk = disk(1);
        let file = disk.open(Path::new("/d/a"), true).unwrap();
        disk.set_capacity_bytes(2);
        assert_eq!(file.write_all_at(0, b"long").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_capacity_bytes(1 << 20);
        disk.inject(On::AnyChange, 1, Fault::PowerLoss);
        file.write_all_at(0, b"x").unwrap();
        assert!(file.sync_data().is_err() && disk.is_powerless());
        assert!(disk.list(Path::new("/d")).is_err());
        disk.crash();
        assert!(disk.list(Path::new("/d")).is_ok());
    }

    #[test]
    fn a_lock_is_held_until_dropped_or_crashed() {
        let disk = disk(1);
        let path = Path::new("/d/lock");
        let held = disk.lock(path).unwrap();
        assert!(disk.lock(path).is_err());
        drop(held);
        let old = disk.lock(path).unwrap();
        disk.crash();
        let _new = disk.lock(path).unwrap();
        drop(old);
        assert!(disk.lock(path).is_err(), "the lock of before the crash does not free the new one");
    }
}
