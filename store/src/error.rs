//! What can go wrong in the store, for its callers to tell apart.

use std::io;

use thiserror::Error;

use crate::position::{Position, Prefix};

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the data directory {dir} is in use by another process")]
    Locked { dir: String },
    #[error("{dir} holds files of a store but no manifest, so it is not known what belongs to it")]
    NoManifest { dir: String },
    #[error(
        "the newest manifest, {path}, is damaged: {reason}. An older one is not used in its place, since it may \
         promise less"
    )]
    ManifestDamaged { path: String, reason: String },
    /// PROTOCOL, LOSS: the replica may not serve under its identity any more.
    #[error("{}", crate::engine::lost_text(.what))]
    Loss { what: String },
    /// Its checksum is right, so nothing was lost.
    #[error("{path} cannot be read by this version of oteld: {reason}. Start the version that wrote it")]
    Unreadable { path: String, reason: String },
    #[error("{path} was written by a newer version ({what})")]
    Newer { path: String, what: String },
}

impl OpenError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let what = what.into();
        move |source| OpenError::Io { what, source }
    }

    pub(crate) fn loss(what: impl Into<String>) -> OpenError {
        OpenError::Loss { what: what.into() }
    }
}

/// Why parts were not appended. None of them was acknowledged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// A write or fsync failed, or the disk is full. The first lasts until a restart.
    #[error("the store takes no writes: {reason}")]
    ReadOnly { reason: String },
    /// Memory for unflushed data is used up; later writes may be taken.
    #[error("the store is behind: {reason}")]
    Busy { reason: String },
    /// The batch names definitions without carrying them, by these hashes: send it with them.
    #[error("{} definitions of the batch are not known here", .0.len())]
    MissingDefinitions(Vec<u128>),
    #[error("the batch cannot be read: {0}")]
    Format(String),
    #[error("the store is closed")]
    Closed,
}

/// Why the store could not do something other than an append.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("the store takes no writes: {reason}")]
    ReadOnly { reason: String },
    #[error("cannot {what}: {reason}")]
    Io { what: String, reason: String },
    #[error("{what} is damaged: {reason}")]
    Damaged { what: String, reason: String },
    #[error("position {0} is not in the log")]
    NoSuchPosition(Position),
    #[error("segment {0} is not in the snapshot")]
    NoSuchSegment(u64),
    #[error("a shard was left since its segments were compared with a peer's")]
    LeftMeanwhile,
    #[error("the cluster id is already {0:032x}")]
    OtherCluster(u128),
    #[error("the store is closed")]
    Closed,
}

/// Why a peer cannot go on tailing from where it is.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TailError {
    /// PROTOCOL, T2: install a pinned snapshot.
    #[error("the log starts after {start}")]
    BelowStart { start: Position },
    /// PROTOCOL, LOSS: the peer holds what this replica no longer knows.
    #[error("the log ends at {end}, which is not where the peer holds it up to")]
    BeyondEnd { end: Prefix },
    /// PROTOCOL, LOSS: this replica serves nobody any more.
    #[error("{reason}")]
    Lost { reason: String },
}
