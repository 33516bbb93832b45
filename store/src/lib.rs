//! The storage engine of one node, without network: WAL, memtables, segments, manifest, scan.

pub mod model;
pub mod canonical;

pub mod column;
pub mod attributes;
mod entities;
mod page;
pub mod batch;

pub mod options;
pub mod error;
pub mod position;
pub mod store;
mod floors;
mod engine;
mod append;
mod ids;
mod wal_task;
mod wal;
mod definitions;
mod memtable;
mod tail;
mod pull;
mod flush;
pub mod segment;
mod segments;
pub mod manifest;
mod recovery;
mod maintenance;
mod compaction;
mod retention;
mod leave;
pub mod snapshot;
pub mod scan;
pub mod status;

pub use append::Appended;
pub use error::{AppendError, OpenError, StoreError, TailError};
pub use floors::Floors;
pub use leave::{Leaving, LeftBefore};
pub use manifest::FenceEntry;
pub use options::StoreOptions;
pub use position::{Boot, Cursor, Position, Prefix, ReplicaId};
pub use scan::pin::Pin;
pub use snapshot::{HeldIds, Incoming, SegmentOffer, Snapshot};
pub use status::StoreStatus;
pub use store::Store;
pub use tail::{TailEntry, TailPage};
