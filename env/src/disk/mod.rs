//! Files. Calls block: run them on [`crate::Tasks::blocking`], never on the reactor.
//!
//! The contract is POSIX's, and no more: bytes are durable after [`DiskFile::sync_data`], a created, renamed or
//! removed name is durable after [`Disk::sync_dir`] of its directory. Whatever was not synced may be lost, in
//! part or whole, by a crash.

mod faulty;
mod points;
mod real;
mod sim;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

pub use faulty::{FaultyDisk, Unsynced};
pub use points::POINTS;
pub use real::RealDisk;
pub use sim::{Amount, Fault, Lost, On, SimDisk};

/// Extension of a file that is to replace another.
const TEMPORARY: &str = "tmp";

/// A file system: the machine's, the machine's with faults, or a simulated one.
pub trait Disk: Send + Sync + Debug {
    /// Makes the directory and those above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Opens for reading and writing; with `create`, makes an empty file where there is none.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>>;
    /// Replaces `to` by `from` in one step; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes creates, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Full paths of the files (not directories) directly in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes the lock that keeps a second process out of a data directory; held until dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Bytes that can still be written on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Says that the work of the caller is at one of [`POINTS`]; a disk with faults may lose power there.
    fn reach(&self, _point: &'static str) {}

    /// The whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, false)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` to `path` so that a crash leaves the old file or the new one, whole: temporary name,
    /// sync, rename, directory sync.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".");
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        if self.exists(&temporary)? {
            self.remove_file(&temporary)?;
        }
        let file = self.open(&temporary, true)?;
        let written = file
            .write_all_at(0, bytes)
            .and_then(|()| file.sync_data())
            .inspect(|_| self.reach("replace.written"))
            .and_then(|()| self.rename(&temporary, path));
        if let Err(error) = written {
            // On a full disk the space is needed; what cannot be removed now is found by the next attempt.
            let _ = self.remove_file(&temporary);
            return Err(error);
        }
        self.reach("replace.renamed");
        if crate::mutant("no-dir-sync-after-rename") {
            return Ok(());
        }
        self.sync_dir(dir)
    }

    /// Removes what a [`Disk::replace`] that a crash interrupted left in `dir`. Only for who alone uses it.
    fn remove_interrupted(&self, dir: &Path) -> io::Result<()> {
        let files = self.list(dir)?;
        let left =
            files.iter().filter(|file| file.extension().is_some_and(|extension| extension == TEMPORARY));
        left.map(PathBuf::as_path).try_for_each(|file| self.remove_file(file))
    }
}

/// An open file. Offsets are bytes from the start; nothing has a position of its own.
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `into`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`, growing the file where needed.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Makes the bytes and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
