//! The write-ahead log of a node: preallocated files of checksummed groups, one fsync a group. The bytes are
//! described in docs/format/wal.md.
//!
//! A group is written only after the fsync of the one before it returned, and says where that one ended. So a
//! damaged group with nothing behind it is a torn tail that nobody was told about, and a damaged group that a
//! later one vouches for is lost data (PROTOCOL, failure 6).

pub(crate) mod file;
pub(crate) mod group;
pub(crate) mod record;
pub(crate) mod definitions;
pub(crate) mod replay;
pub(crate) mod writer;

use serde::{Deserialize, Serialize};

/// A place in the WAL: everything before `offset` of file `seq` was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WalEnd {
    /// Number of the file, from 1; 0 is none.
    pub seq: u64,
    /// Bytes from its start.
    pub offset: u64,
}
