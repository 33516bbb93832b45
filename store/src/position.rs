//! Who a replica is and how far it got: the identities and positions that replicas exchange (PROTOCOL, STATE).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A replica: born with its data directory, discarded when synced data was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u128);

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One life of a replica's process. The nonce tells apart two lives that took the same counter, the first of
/// which never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Grows by one a boot, from 1.
    pub counter: u64,
    pub nonce: u64,
}

/// A place in a replica's log: the `n`-th part (from 1) that boot `boot` published. `n` 0 is before the first;
/// the default is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// [`Boot::counter`].
    pub boot: u64,
    pub n: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.boot, self.n)
    }
}
