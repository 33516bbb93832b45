//! A disk on which chosen operations wait until they are let through.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oteld_env::{Disk, DiskFile, SimDisk};
use parking_lot::{Condvar, Mutex};

/// What is made to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Reads(PathBuf),
    Writes(PathBuf),
}

#[derive(Debug, Default)]
struct Inner {
    stop: Option<Stop>,
    waiting: usize,
}

/// Cheap to clone; clones share the gate.
#[derive(Clone, Debug)]
pub(crate) struct GatedDisk {
    disk: SimDisk,
    gate: Arc<(Mutex<Inner>, Condvar)>,
}

impl GatedDisk {
    pub(crate) fn new(disk: SimDisk) -> Self {
        GatedDisk { disk, gate: Arc::default() }
    }

    pub(crate) fn close(&self, stop: Stop) {
        self.gate.0.lock().stop = Some(stop);
    }

    pub(crate) fn open_gate(&self) {
        self.gate.0.lock().stop = None;
        self.gate.1.notify_all();
    }

    /// Waits until an operation is held up.
    pub(crate) async fn until_stopped(&self) {
        while self.gate.0.lock().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn pass(&self, operation: &Stop) {
        let mut inner = self.gate.0.lock();
        while inner.stop.as_ref() == Some(operation) {
            inner.waiting += 1;
            self.gate.1.wait(&mut inner);
            inner.waiting -= 1;
        }
    }
}

impl Disk for GatedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, create)?;
        Ok(Box::new(GatedFile { file, path: path.to_owned(), disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    disk: GatedDisk,
}

impl DiskFile for GatedFile {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.pass(&Stop::Reads(self.path.clone()));
        self.file.read_exact_at(offset, into)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.pass(&Stop::Writes(self.path.clone()));
        self.file.write_all_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
