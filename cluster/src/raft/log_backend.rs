//! What the Raft log needs of a disk: entries by index, a few named values, and a point after which both are
//! durable. Calls block.

use std::io;
use std::ops::Range;

use thiserror::Error;

/// Why a backend could not do what was asked. After a failed write or sync nothing is known about the disk, and
/// the member must stop.
#[derive(Debug, Error)]
pub enum BackendError {
    /// What is on disk is not what was written: the directory must be set aside, with its member id.
    #[error("the Raft log is damaged: {0}")]
    Damaged(String),
    #[error("the Raft log's disk failed: {0}")]
    Io(#[from] io::Error),
    #[error("sled failed: {0}")]
    Sled(#[from] sled::Error),
}

impl BackendError {
    /// The operating system's error behind it, where there is one: neither damage nor a fault of sled.
    pub fn into_io(self) -> Result<io::Error, BackendError> {
        match self {
            BackendError::Io(error) | BackendError::Sled(sled::Error::Io(error)) => Ok(error),
            other => Err(other),
        }
    }
}

/// One change of the log or of a named value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry at the index; indexes are contiguous.
    Put(u64, Vec<u8>),
    /// Removes the entry at the index and all after it.
    TruncateFrom(u64),
    /// Removes the entry at the index and all before it.
    PurgeThrough(u64),
    /// Sets a named value.
    Set(&'static str, Vec<u8>),
}

/// A disk for one member's log. One writer at a time; readers at any time.
pub trait LogBackend: Send + Sync + 'static {
    /// Makes the changes in order, all or none of them; visible at once, durable after [`LogBackend::sync`].
    fn write(&self, changes: Vec<Change>) -> Result<(), BackendError>;
    /// Makes everything written so far durable, across power loss.
    fn sync(&self) -> Result<(), BackendError>;
    /// The entries of `range` that exist, in order, verified.
    fn read(&self, range: Range<u64>) -> Result<Vec<(u64, Vec<u8>)>, BackendError>;
    /// The last entry.
    fn last(&self) -> Result<Option<(u64, Vec<u8>)>, BackendError>;
    /// A named value, verified.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError>;
}
