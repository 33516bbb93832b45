//! The machine's file system, hurt on purpose: for fault tests of real processes, never for production.
//!
//! **Injected faults** ([`FaultyDisk::inject`]): `EIO`, `ENOSPC` and waits on the operations that a test names, once
//! or until [`FaultyDisk::heal`]; [`FaultyDisk::struck`] counts those that really happened. A full disk is also a
//! number of bytes that can still be written ([`FaultyDisk::set_capacity_bytes`]).
//!
//! **Power loss**, where it is switched on: what is not synced never reaches the file system, so that SIGKILL does what
//! a power cut would. Bytes and lengths reach the real file at `sync_data` alone; creates, renames and removals reach
//! the real directory at `sync_dir` alone, and a new file has no name (`O_TMPFILE`) until then. A file that is synced
//! and whose name is not is lost, as POSIX allows. Reads, lengths and lists inside the process show everything. Now and
//! then a seeded choice gives an unsynced write (whole, or a run of its 512-byte sectors), or the first of a
//! directory's unsynced changes, to the file system early, as write-back does: so a kill leaves torn tails too. A
//! failed sync loses its pages: they can still be read, and a later successful sync does not make them durable.
//!
//! On a quick disk little is unsynced at any moment, and a kill at random finds it seldom: make syncs slow (the wait comes
//! before the bytes move), or let the process kill itself at a point ([`FaultyDisk::crash_at`]), and look at
//! [`FaultyDisk::unsynced`].
//!
//! Not covered: what does not go through [`Disk`]. That is sled's files (the Raft log of the metadata), which a kill
//! leaves as the kernel has them; directories (made and renamed) and lock files, which are real at once; and with
//! power loss switched off, a failed sync, whose bytes the kernel keeps and writes back all the same.
//!
//! Linux only, on a file system with `O_TMPFILE` (ext4, xfs, btrfs, tmpfs) and a mounted `/proc`.

#![allow(clippy::disallowed_methods, reason = "this is a door to the file system")]

mod inject;
mod names;
mod overlay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::inject::Injections;
use self::names::Names;
use self::overlay::Node;
use super::points::Reached;
use super::{Disk, DiskFile, On, RealDisk};
use crate::Random;
use crate::faults::{DiskFault, Struck};

/// A [`Disk`] over [`RealDisk`] with faults. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Shared>);

/// What is not durable, and so in danger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsynced {
    pub bytes: u64,
    /// Files with unsynced bytes or an unsynced length.
    pub files: u64,
    /// Creates, renames and removals.
    pub names: u64,
}

#[derive(Debug)]
struct Shared {
    real: RealDisk,
    /// What is not synced; `None` where everything is written at once.
    names: Option<Mutex<Names>>,
    injections: Injections,
    points: Mutex<Reached>,
    random: Random,
}

impl FaultyDisk {
    /// The seed decides what reaches the file system early where there is `power_loss`.
    pub fn new(seed: u64, power_loss: bool) -> Self {
        FaultyDisk(Arc::new(Shared {
            real: RealDisk::new(),
            names: power_loss.then(Mutex::default),
            injections: Injections::default(),
            points: Mutex::default(),
            random: Random::from_seed(seed),
        }))
    }

    /// Arms a fault, beside those that are.
    pub fn inject(&self, fault: DiskFault) {
        self.0.injections.arm(fault);
    }

    /// Forgets armed faults, the capacity and armed points.
    pub fn heal(&self) {
        self.0.points.lock().disarm();
        self.0.injections.heal();
    }

    /// How many bytes can still be written from now on, whatever the file system has; `None`: as many as it has.
    /// A write takes its bytes, a removed file gives back what it took of the file system.
    pub fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.0.injections.set_capacity_bytes(bytes);
    }

    /// Faults that struck, by kind, since the start.
    pub fn struck(&self) -> Struck {
        self.0.injections.struck()
    }

    /// Has the process kill itself when `point` is reached the `nth` time from now; 1 is the next.
    pub fn crash_at(&self, point: &'static str, nth: u64) {
        self.0.points.lock().arm(point, nth);
    }

    /// How often each of [`POINTS`](super::POINTS) was reached; those that never were are left out.
    pub fn points(&self) -> BTreeMap<&'static str, u64> {
        self.0.points.lock().counts().clone()
    }

    /// What a kill would lose now.
    pub fn unsynced(&self) -> Unsynced {
        let Some(names) = &self.0.names else { return Unsynced::default() };
        let names = names.lock();
        let mut unsynced = Unsynced { names: names.unsynced_names(), ..Unsynced::default() };
        for (bytes, any) in names.nodes().map(|node| node.unsynced()) {
            unsynced.bytes += bytes;
            unsynced.files += u64::from(any);
        }
        unsynced
    }
}

impl Shared {
    fn handle(self: &Arc<Self>, node: Arc<Node>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.clone(), node })
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.real.create_dir_all(dir)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let shared = &self.0;
        let Some(names) = &shared.names else {
            if create && !path.try_exists()? {
                shared.injections.strike(On::AnyChange)?;
            }
            let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
            return Ok(shared.handle(Arc::new(Node::new(file))));
        };
        match names.lock().find(path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {}
            found => return Ok(shared.handle(found?)),
        }
        shared.injections.strike(On::AnyChange)?;
        let mut names = names.lock();
        // Another thread may have made it meanwhile.
        let node =
            if names.exists(path)? { names.find(path)? } else { names.create(path, &shared.random)? };
        Ok(shared.handle(node))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.injections.strike(On::Read)?;
        let Some(names) = &self.0.names else { return self.0.real.read(path) };
        let node = names.lock().find_to_read(path)?;
        let mut bytes = vec![0; node.len()? as usize];
        node.read(0, &mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let shared = &self.0;
        shared.injections.strike(On::AnyChange)?;
        let freed = match &shared.names {
            Some(names) => {
                let replaced = names.lock().rename(from, to, &shared.random)?;
                replaced.map_or(0, |node| node.allocated_bytes())
            }
            None => {
                let freed = names::freed_by_removal(to);
                shared.real.rename(from, to)?;
                freed
            }
        };
        shared.injections.release(freed);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let shared = &self.0;
        shared.injections.strike(On::AnyChange)?;
        let freed = match &shared.names {
            Some(names) => names.lock().remove(path, &shared.random)?.allocated_bytes(),
            None => {
                let freed = names::freed_by_removal(path);
                shared.real.remove_file(path)?;
                freed
            }
        };
        shared.injections.release(freed);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.injections.strike(On::AnyChange)?;
        if let Some(names) = &self.0.names {
            names.lock().apply_all(dir)?;
        }
        self.0.real.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match &self.0.names {
            Some(names) => names.lock().list(dir),
            None => self.0.real.list(dir),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match &self.0.names {
            Some(names) => names.lock().exists(path),
            None => self.0.real.exists(path),
        }
    }

    /// Real at once: a lock that a kill takes back would keep nobody out.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.real.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = self.0.real.free_bytes(path)?;
        Ok(self.0.injections.capacity_bytes().map_or(free, |left| left.min(free)))
    }

    fn reach(&self, point: &'static str) {
        let mut points = self.0.points.lock();
        if points.reach(point) {
            kill_myself();
        }
    }
}

/// As a power cut would: nothing is flushed, dropped or said.
fn kill_myself() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // A process that may not even kill itself still ends here.
    std::process::abort()
}

/// An open file.
#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Shared>,
    node: Arc<Node>,
}

impl FaultyFile {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.disk.names {
            Some(_) => self.node.write(offset, bytes, &self.disk.random),
            None => self.node.write_now(offset, bytes),
        }
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.injections.strike(On::Read)?;
        self.node.read(offset, into)
    }

    /// A write without space keeps its first half.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let injections = &self.disk.injections;
        let struck = injections.strike(On::Write).and_then(|()| injections.allocate(bytes.len() as u64));
        match struck {
            Ok(()) => self.write(offset, bytes),
            Err(error) => {
                if error.kind() == io::ErrorKind::StorageFull {
                    self.write(offset, &bytes[..bytes.len() / 2])?;
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.injections.strike(On::AnyChange)?;
        match &self.disk.names {
            Some(_) => self.node.set_len(len, &self.disk.random),
            None => self.node.file.set_len(len),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.node.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Err(error) = self.disk.injections.strike(On::Sync) {
            self.node.lose_pages();
            return Err(error);
        }
        self.node.sync()
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        if let Some(names) = &self.disk.names {
            names.lock().release(&self.node);
        }
    }
}
