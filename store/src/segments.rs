//! The segments that a store has open, and how their files go: with the last pin that shows them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oteld_env::Disk;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::manifest::SegmentMeta;
use crate::model::{Rows, Signal, Window};
use crate::segment::{AppliedId, Segment, SegmentError};

/// Files that nothing shows any more, to be removed by the next maintenance.
pub(crate) type Trash = Arc<Mutex<BTreeSet<PathBuf>>>;

/// What was found missing, once synced data was lost (PROTOCOL, LOSS). What was found first stays.
pub(crate) type Loss = Arc<watch::Sender<Option<String>>>;

/// Records a loss; says whether it is the first.
pub(crate) fn note_loss(loss: &Loss, what: impl FnOnce() -> String) -> bool {
    loss.send_if_modified(|lost| lost.is_none() && lost.replace(what()).is_none())
}

/// Path of segment `id`.
pub(crate) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:020}.seg"))
}

/// Number of the segment of that name, where it is one.
pub(crate) fn id_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// Of a peer's segment that was received whole and is not installed yet. Not numbered: named after what it holds.
pub(crate) const RECEIVED: &str = "received";
/// Of one that is on its way.
pub(crate) const PARTIAL: &str = "part";

/// Whether a file is one that was received whole.
pub(crate) fn is_received(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == RECEIVED)
}

/// A segment that the manifest names, or named when a pin was taken.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub meta: SegmentMeta,
    pub segment: Segment,
    path: PathBuf,
    obsolete: AtomicBool,
    trash: Trash,
    loss: Loss,
}

impl OpenSegment {
    pub(crate) fn new(meta: SegmentMeta, segment: Segment, path: PathBuf, trash: Trash, loss: Loss) -> Self {
        OpenSegment { meta, segment, path, obsolete: AtomicBool::new(false), trash, loss }
    }

    /// See [`Segment::page`].
    pub(crate) fn page(&self, index: usize) -> Result<Rows, SegmentError> {
        self.noticing(self.segment.page(index))
    }

    /// See [`Segment::ids`].
    pub(crate) fn ids(&self) -> Result<Vec<AppliedId>, SegmentError> {
        self.noticing(self.segment.ids())
    }

    /// See [`Segment::verify`].
    pub(crate) fn verify(&self) -> Result<(), SegmentError> {
        self.noticing(self.segment.verify())
    }

    /// Damage of a segment that the manifest names is a loss of synced data, whoever meets it. Before the error is
    /// passed on, so that nobody is answered from this replica who asks after it.
    fn noticing<T>(&self, read: Result<T, SegmentError>) -> Result<T, SegmentError> {
        if let Err(error) = &read
            && error.is_loss()
            && !self.obsolete.load(Ordering::Acquire)
        {
            note_loss(&self.loss, || error.to_string());
        }
        read
    }

    /// The manifest does not name it any more: the file goes when nobody holds it.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    pub(crate) fn key(&self) -> (Signal, Window) {
        (self.meta.info.signal, self.meta.info.window)
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OpenSegment {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.trash.lock().insert(std::mem::take(&mut self.path));
        }
    }
}

/// Segments whose files have their names and that no manifest names yet. Dropped, they are retired: whoever wrote them
/// failed, or went away.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted(Vec<Arc<OpenSegment>>);

impl Uncommitted {
    pub(crate) fn push(&mut self, segment: Arc<OpenSegment>) {
        self.0.push(segment);
    }

    pub(crate) fn as_slice(&self) -> &[Arc<OpenSegment>] {
        &self.0
    }

    /// They are about to be in a manifest.
    pub(crate) fn into_kept(mut self) -> Vec<Arc<OpenSegment>> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        self.0.iter().for_each(|segment| segment.retire());
    }
}

/// The segments of one moment, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentSet(pub Vec<Arc<OpenSegment>>);

impl SegmentSet {
    /// Those of one window.
    pub(crate) fn of(&self, signal: Signal, window: Window) -> Vec<Arc<OpenSegment>> {
        self.0.iter().filter(|segment| segment.key() == (signal, window)).cloned().collect()
    }

    /// With `added` and without those of the ids in `removed`, which are retired.
    pub(crate) fn replace(&self, removed: &BTreeSet<u64>, added: Vec<Arc<OpenSegment>>) -> SegmentSet {
        let mut kept = Vec::with_capacity(self.0.len() + added.len());
        for segment in &self.0 {
            if removed.contains(&segment.meta.id) {
                segment.retire();
            } else {
                kept.push(segment.clone());
            }
        }
        kept.extend(added);
        kept.sort_by_key(|segment| segment.meta.id);
        SegmentSet(kept)
    }
}

/// Removes the files in the trash. A file that cannot be removed stays in it.
pub(crate) fn empty_trash(disk: &dyn Disk, trash: &Trash) {
    let files: Vec<PathBuf> = trash.lock().iter().cloned().collect();
    for file in files {
        match disk.remove_file(&file) {
            Ok(()) => {
                trash.lock().remove(&file);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                trash.lock().remove(&file);
            }
            Err(error) => tracing::warn!(%error, path = %file.display(), "cannot remove a segment"),
        }
    }
}
