//! Named moments of the store's work at which the order of what is made durable matters, and where a test can have
//! the power go.

use std::collections::BTreeMap;

/// Every point, by name.
pub const POINTS: &[&str] = &[
    // A file replaced by another (a manifest, a promise): the new one is synced under its temporary name.
    "replace.written",
    // It has the name, and the directory is not synced.
    "replace.renamed",
    // The next file of the log has its header; neither it nor its name is synced.
    "wal.file_created",
    "wal.group_written",
    // Nothing of it is published yet.
    "wal.group_synced",
    // One segment of a flush is synced; its name is not.
    "flush.segment_written",
    "flush.before_commit",
    // The files of the log that it makes superfluous are still there.
    "flush.after_commit",
    "compaction.before_commit",
    // The inputs are still there.
    "compaction.after_commit",
    // Received segments have their names, and no manifest names them.
    "install.before_commit",
    "install.after_commit",
    // Pulled parts are durable, the cursor over them is not.
    "cursor.before_write",
    "cursor.written",
    "boot.before_commit",
    "boot.recorded",
    "leave.before_commit",
    "leave.after_commit",
    "entry.before_commit",
    "entry.after_commit",
];

/// How often each point was reached, and at which one a test waits.
#[derive(Debug, Default)]
pub(super) struct Reached {
    counts: BTreeMap<&'static str, u64>,
    /// The point, and how many times it is still to be passed.
    armed: BTreeMap<&'static str, u64>,
}

impl Reached {
    /// The `nth` time from now that `point` is reached is the last.
    pub(super) fn arm(&mut self, point: &'static str, nth: u64) {
        self.armed.insert(point, nth);
    }

    pub(super) fn disarm(&mut self) {
        self.armed.clear();
    }

    /// Counts, and says whether this is where a test waited.
    pub(super) fn reach(&mut self, point: &'static str) -> bool {
        debug_assert!(POINTS.contains(&point), "{point} is not in POINTS");
        *self.counts.entry(point).or_default() += 1;
        match self.armed.get_mut(point) {
            Some(left) if *left <= 1 => self.armed.remove(point).is_some(),
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}
