//! The names in directories: those that the file system has, and the changes to them that no sync of their directory
//! has made durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, OFlags};

use super::overlay::{Node, allocated_bytes};
use crate::Random;

/// One in so many changes has the file system take some of its directory's changes early.
const EARLY_ONE_IN: u64 = 16;

/// What tells a file: its device and inode.
type Key = (u64, u64);

/// Every directory with changes, and every file that is open or has unsynced writes.
#[derive(Debug, Default)]
pub(super) struct Names {
    dirs: BTreeMap<PathBuf, Dir>,
    nodes: BTreeMap<Key, Arc<Node>>,
}

#[derive(Debug, Default)]
struct Dir {
    /// In order. A sync applies all of them, a kill leaves a prefix.
    unsynced: Vec<Change>,
    /// Names that are not as the file system has them; `None`: removed.
    current: BTreeMap<PathBuf, Option<Arc<Node>>>,
}

#[derive(Debug)]
enum Change {
    /// The file has no name yet in the file system (`O_TMPFILE`), so that it vanishes with the process.
    Create(PathBuf, Arc<Node>),
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
}

impl Change {
    fn apply(&self) -> io::Result<()> {
        match self {
            Change::Create(path, node) => {
                let handle = format!("/proc/self/fd/{}", node.file.as_raw_fd());
                Ok(rustix::fs::linkat(CWD, handle, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
            }
            Change::Remove(path) => fs::remove_file(path),
            Change::Rename { from, to } => fs::rename(from, to),
        }
    }
}

impl Names {
    /// The file of a name as of now.
    pub(super) fn find(&mut self, path: &Path) -> io::Result<Arc<Node>> {
        match self.changed(path) {
            Some(Some(node)) => Ok(node.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = OpenOptions::new().read(true).write(true).open(path)?;
                self.adopt(file)
            }
        }
    }

    /// The same for who only reads: the file may be read-only, and it stays unknown here.
    pub(super) fn find_to_read(&self, path: &Path) -> io::Result<Arc<Node>> {
        match self.changed(path) {
            Some(Some(node)) => Ok(node.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = File::open(path)?;
                match self.nodes.get(&key_of(&file)?) {
                    Some(node) => Ok(node.clone()),
                    None => Ok(Arc::new(Node::new(file))),
                }
            }
        }
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.changed(path) {
            Some(entry) => Ok(entry.is_some()),
            None => path.try_exists(),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = std::collections::BTreeSet::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.insert(entry.path());
            }
        }
        let changed = self.dirs.get(dir).into_iter().flat_map(|dir| &dir.current);
        for (path, entry) in changed {
            match entry {
                Some(_) => files.insert(path.clone()),
                None => files.remove(path),
            };
        }
        Ok(files.into_iter().collect())
    }

    /// A new empty file; the name must not exist.
    pub(super) fn create(&mut self, path: &Path, random: &Random) -> io::Result<Arc<Node>> {
        let dir = parent(path);
        let unnamed =
            OpenOptions::new().read(true).write(true).custom_flags(OFlags::TMPFILE.bits() as i32).open(dir);
        let node = self.adopt(unnamed.map_err(|error| {
            let reason = format!("cannot make a file without a name in {}: {error}", dir.display());
            io::Error::new(error.kind(), reason)
        })?)?;
        let change = Change::Create(path.to_owned(), node.clone());
        self.change(dir, [(path, Some(node.clone()))], change, random);
        Ok(node)
    }

    /// Gives the file that lost its name.
    pub(super) fn remove(&mut self, path: &Path, random: &Random) -> io::Result<Arc<Node>> {
        let node = self.find(path)?;
        self.change(parent(path), [(path, None)], Change::Remove(path.to_owned()), random);
        Ok(node)
    }

    /// Gives the file that `to` named before.
    pub(super) fn rename(
        &mut self,
        from: &Path,
        to: &Path,
        random: &Random,
    ) -> io::Result<Option<Arc<Node>>> {
        if parent(from) != parent(to) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a rename stays in its directory"));
        }
        if self.changed(from).is_none() && from.is_dir() {
            // Real at once, as all of directories is; not before what was changed earlier, though.
            self.apply_first(parent(from), usize::MAX)?;
            return fs::rename(from, to).map(|()| None);
        }
        let node = self.find(from)?;
        let replaced = if self.exists(to)? { Some(self.find(to)?) } else { None };
        let change = Change::Rename { from: from.to_owned(), to: to.to_owned() };
        self.change(parent(from), [(from, None), (to, Some(node))], change, random);
        Ok(replaced)
    }

    /// Gives all changes of a directory to the file system, in order.
    pub(super) fn apply_all(&mut self, dir: &Path) -> io::Result<()> {
        self.apply_first(dir, usize::MAX)?;
        // Whoever is neither open nor named any more is forgotten, with what it had not synced.
        self.nodes.retain(|_, node| {
            Arc::strong_count(node) > 1
                || (node.is_ahead() && node.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0))
        });
        Ok(())
    }

    /// A handle is gone; a file that nothing is left to say about is forgotten.
    pub(super) fn release(&mut self, node: &Arc<Node>) {
        // The handle's own and the table's.
        if Arc::strong_count(node) == 2
            && !node.is_ahead()
            && let Ok(key) = key_of(&node.file)
        {
            self.nodes.remove(&key);
        }
    }

    pub(super) fn unsynced_names(&self) -> u64 {
        self.dirs.values().map(|dir| dir.unsynced.len() as u64).sum()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    fn changed(&self, path: &Path) -> Option<&Option<Arc<Node>>> {
        self.dirs.get(parent(path))?.current.get(path)
    }

    /// The one node of a file.
    fn adopt(&mut self, file: File) -> io::Result<Arc<Node>> {
        let key = key_of(&file)?;
        if let Some(node) = self.nodes.get(&key) {
            return Ok(node.clone());
        }
        let node = Arc::new(Node::new(file));
        self.nodes.insert(key, node.clone());
        Ok(node)
    }

    fn change<const N: usize>(
        &mut self,
        dir: &Path,
        entries: [(&Path, Option<Arc<Node>>); N],
        change: Change,
        random: &Random,
    ) {
        let state = self.dirs.entry(dir.to_owned()).or_default();
        state.unsynced.push(change);
        state.current.extend(entries.into_iter().map(|(path, entry)| (path.to_owned(), entry)));
        if random.in_range(0..EARLY_ONE_IN) == 0 {
            let count = random.in_range(1..state.unsynced.len() as u64 + 1);
            // A failure shows at the sync, which goes on where this stopped.
            let _ = self.apply_first(dir, count as usize);
        }
    }

    fn apply_first(&mut self, dir: &Path, count: usize) -> io::Result<()> {
        let Some(state) = self.dirs.get_mut(dir) else { return Ok(()) };
        let count = count.min(state.unsynced.len());
        let mut applied = 0;
        let result = state.unsynced[..count].iter().try_for_each(|change| {
            change.apply()?;
            applied += 1;
            Ok(())
        });
        state.unsynced.drain(..applied);
        if state.unsynced.is_empty() {
            self.dirs.remove(dir);
        }
        result
    }
}

/// What removing a file that nothing here knows would free.
pub(super) fn freed_by_removal(path: &Path) -> u64 {
    File::open(path).map_or(0, |file| allocated_bytes(&file))
}

fn key_of(file: &File) -> io::Result<Key> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The directory of a name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
