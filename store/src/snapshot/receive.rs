//! Copies of a peer's segments on their way in: written under a temporary name, verified whole, and kept until
//! they are installed, over restarts too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::{Disk, DiskFile};

use crate::engine::{Engine, segments_dir};
use crate::error::StoreError;
use crate::segment::{Segment, SegmentInfo};
use crate::segments::{PARTIAL, RECEIVED, is_received};

/// A segment file that is being received. Dropped unfinished, it is received anew.
#[derive(Debug)]
pub struct Incoming {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn DiskFile>,
    info: SegmentInfo,
    written: u64,
}

impl Incoming {
    /// Appends the next bytes of the file. Blocks.
    ///
    /// # Errors
    /// Where there are more than the segment has, and those of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.written + bytes.len() as u64;
        if end > self.info.bytes {
            let reason = format!("{end} bytes came of a segment of {}", self.info.bytes);
            return Err(StoreError::Damaged { what: "a received segment".to_owned(), reason });
        }
        self.file.write_all_at(self.written, bytes).map_err(io("write a received segment"))?;
        self.written = end;
        Ok(())
    }

    /// Makes the copy durable under its own name, once every byte of it is as it should be. Blocks.
    ///
    /// # Errors
    /// Where the file is not the offered one, and those of the disk.
    pub fn finish(self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(io("sync a received segment"))?;
        let partial = partial_path(&self.dir, &self.info);
        open_verified(&self.disk, &partial, &self.info)?;
        let whole = whole_path(&self.dir, &self.info);
        self.disk.rename(&partial, &whole).map_err(io("name a received segment"))?;
        self.disk.sync_dir(&self.dir).map_err(io("sync the directory of segments"))
    }
}

/// Opens a copy, checks that it is the segment of `info`, and reads all of it against its checksums.
pub(super) fn open_verified(
    disk: &Arc<dyn Disk>,
    path: &Path,
    info: &SegmentInfo,
) -> Result<Segment, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { what: path.display().to_string(), reason };
    let segment = Segment::open(disk.clone(), path).map_err(|error| damaged(error.to_string()))?;
    if segment.info() != info {
        return Err(damaged("it is not the segment that the peer offered".to_owned()));
    }
    segment.verify().map_err(|error| damaged(error.to_string()))?;
    Ok(segment)
}

/// Named after what it holds, so that an offer of the same file finds it again.
pub(super) fn whole_path(dir: &Path, info: &SegmentInfo) -> PathBuf {
    dir.join(format!("{}.{RECEIVED}", name(info)))
}

fn partial_path(dir: &Path, info: &SegmentInfo) -> PathBuf {
    dir.join(format!("{}.{PARTIAL}", name(info)))
}

/// Of a file, by what it holds.
pub(super) fn name(info: &SegmentInfo) -> String {
    format!("{}-{}-{}-{:016x}", info.signal.name(), info.window.0, info.bytes, info.checksum)
}

pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |error| StoreError::Io { what: what.to_owned(), reason: error.to_string() }
}

impl Engine {
    /// See [`crate::Store::receive`].
    pub(crate) async fn receive(&self, info: SegmentInfo) -> Result<Option<Incoming>, StoreError> {
        let (disk, dir) = (self.env.disk.clone(), segments_dir(&self.options));
        let min_free_bytes = self.options.min_free_bytes;
        let open = move || {
            let whole = whole_path(&dir, &info);
            if disk.exists(&whole).map_err(io("look for a received segment"))? {
                match open_verified(&disk, &whole, &info) {
                    Ok(_) => return Ok(None),
                    Err(error) => {
                        tracing::warn!(%error, "a segment that was received before is damaged; copying it again");
                        disk.remove_file(&whole).map_err(io("remove a damaged copy"))?;
                    }
                }
            }
            let free = disk.free_bytes(&dir).map_err(io("tell how much space is free"))?;
            let needed = min_free_bytes.saturating_add(info.bytes);
            if free < needed {
                let reason = format!("the disk is full: {free} bytes are free and {needed} are needed");
                return Err(StoreError::ReadOnly { reason });
            }
            let partial = partial_path(&dir, &info);
            let file: Arc<dyn DiskFile> =
                disk.open(&partial, true).map_err(io("make a file for a segment"))?.into();
            file.set_len(0).map_err(io("empty a file for a segment"))?;
            Ok(Some(Incoming { disk, dir, file, info, written: 0 }))
        };
        self.env.tasks.blocking(open).await
    }

    /// See [`crate::Store::keep_received`].
    pub(crate) async fn keep_received(&self, offered: &[SegmentInfo]) -> Result<(), StoreError> {
        let (disk, dir) = (self.env.disk.clone(), segments_dir(&self.options));
        let kept: BTreeSet<PathBuf> = offered.iter().map(|info| whole_path(&dir, info)).collect();
        let remove = move || {
            let files = disk.list(&dir).map_err(io("list received segments"))?;
            let is_partial = |file: &PathBuf| file.extension().is_some_and(|extension| extension == PARTIAL);
            let came = files.iter().filter(|file| is_received(file) || is_partial(file));
            for file in came.filter(|file| !kept.contains(*file)) {
                disk.remove_file(file).map_err(io("remove a received segment"))?;
            }
            Ok(())
        };
        self.env.tasks.blocking(remove).await
    }
}
