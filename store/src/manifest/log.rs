//! The manifest files of a data directory: finding the newest, writing the next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::Disk;

use super::Manifest;
use super::frame::{self, FrameError};
use crate::error::OpenError;

/// The newest manifest and how to write the next. Blocks: use it on the blocking pool.
#[derive(Debug)]
pub(crate) struct ManifestLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    seq: u64,
    manifest: Manifest,
}

impl ManifestLog {
    /// The newest manifest in `dir`, or `None` in a directory that never had one. Older ones are removed.
    ///
    /// # Errors
    /// Where the newest one is damaged: an older one may promise less.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Option<ManifestLog>, OpenError> {
        let listed = disk.list(dir).map_err(OpenError::io(format!("cannot list {}", dir.display())))?;
        let mut files: Vec<_> = listed.into_iter().filter_map(|path| Some((seq_of(&path)?, path))).collect();
        files.sort();
        let Some((seq, newest)) = files.pop() else { return Ok(None) };
        let path = newest.display().to_string();
        let bytes = disk.read(&newest).map_err(OpenError::io(format!("cannot read {path}")))?;
        let manifest = frame::decode(seq, &bytes).map_err(|error| match error {
            FrameError::Damaged(reason) => OpenError::ManifestDamaged { path: path.clone(), reason },
            FrameError::Newer { version } => {
                OpenError::Newer { path: path.clone(), what: format!("manifest version {version}") }
            }
        })?;
        // The rename that made it visible may not be durable yet.
        disk.sync_dir(dir).map_err(OpenError::io(format!("cannot sync {}", dir.display())))?;
        for (_, old) in files {
            disk.remove_file(&old).map_err(OpenError::io(format!("cannot remove {}", old.display())))?;
        }
        Ok(Some(ManifestLog { disk, dir: dir.to_path_buf(), seq, manifest }))
    }

    /// The first manifest of an empty directory.
    pub(crate) fn create(disk: Arc<dyn Disk>, dir: &Path, manifest: Manifest) -> io::Result<ManifestLog> {
        let mut log = ManifestLog { disk, dir: dir.to_path_buf(), seq: 0, manifest: manifest.clone() };
        log.commit(manifest)?;
        Ok(log)
    }

    /// What was committed last.
    pub(crate) fn current(&self) -> &Manifest {
        &self.manifest
    }

    /// Replaces the manifest; durable when this returns.
    ///
    /// # Errors
    /// Those of the disk. After one it is not known whether the old or the new manifest is on disk; each commit
    /// takes a number of its own, so that the next one wins over both.
    pub(crate) fn commit(&mut self, manifest: Manifest) -> io::Result<()> {
        let old = self.seq;
        self.seq += 1;
        self.disk.replace(&path(&self.dir, self.seq), &frame::encode(self.seq, &manifest))?;
        self.manifest = manifest;
        if old > 0
            && let Err(error) = self.disk.remove_file(&path(&self.dir, old))
        {
            tracing::warn!(%error, seq = old, "cannot remove an old manifest; the next start does");
        }
        Ok(())
    }
}

fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("manifest-{seq:020}"))
}

fn seq_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("manifest-")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}
