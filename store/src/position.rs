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

impl Position {
    /// The prefix of the log of a boot with `nonce` that ends here.
    pub fn in_boot(self, nonce: u64) -> Prefix {
        Prefix { boot: self.boot, nonce, n: self.n }
    }
}

/// A prefix of a replica's log: everything up to and with the `n`-th part of boot `boot`, earlier boots included.
/// It names the boot's nonce too, so that a log that was set back to an older copy and written on in a boot of the
/// same number is not taken for the one that a peer holds (PROTOCOL, LOSS). The default is the empty prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Prefix {
    /// [`Boot::counter`].
    pub boot: u64,
    /// [`Boot::nonce`].
    pub nonce: u64,
    pub n: u64,
}

impl Prefix {
    /// Where it ends.
    pub fn position(&self) -> Position {
        Position { boot: self.boot, n: self.n }
    }

    /// Whether `other` is a part of it. Of two prefixes that end in boots of one number and different nonces
    /// neither covers the other: they are of different logs.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.boot > other.boot || (self.boot, self.nonce) == (other.boot, other.nonce) && self.n >= other.n
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({:016x})", self.boot, self.n, self.nonce)
    }
}

/// How much of a peer's log is durably held here, for one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// The epoch at which this store came into the shard's set. What a store pulled before it left a shard says
    /// nothing after it came back (PROTOCOL, M5).
    pub since: u64,
    pub held: Prefix,
}

impl Cursor {
    /// Takes `to` where that is further, or of a later membership; says whether it did.
    pub(crate) fn advance(&mut self, to: Cursor) -> bool {
        let further = to.since > self.since
            || to.since == self.since && to.held != self.held && to.held.covers(&self.held);
        if further {
            *self = to;
        }
        further
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.boot, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(boot: u64, nonce: u64, n: u64) -> Prefix {
        Prefix { boot, nonce, n }
    }

    #[test]
    fn a_prefix_covers_what_is_before_it_in_the_same_log() {
        for (one, other, covers) in [
            (prefix(2, 7, 3), prefix(2, 7, 3), true),
            (prefix(2, 7, 3), prefix(2, 7, 4), false),
            (prefix(2, 7, 3), prefix(1, 9, 100), true),
            (prefix(2, 7, 3), prefix(3, 9, 0), false),
            (prefix(2, 7, 3), prefix(2, 8, 1), false),
            (prefix(2, 7, 0), Prefix::default(), true),
            (Prefix::default(), Prefix::default(), true),
        ] {
            assert_eq!(one.covers(&other), covers, "{one} and {other}");
        }
    }

    #[test]
    fn a_cursor_grows_within_a_membership_and_starts_again_with_the_next() {
        let mut cursor = Cursor { since: 3, held: prefix(2, 7, 5) };
        assert!(!cursor.advance(Cursor { since: 3, held: prefix(2, 7, 4) }));
        assert!(!cursor.advance(Cursor { since: 2, held: prefix(9, 7, 9) }), "of an earlier membership");
        assert!(!cursor.advance(Cursor { since: 3, held: prefix(2, 8, 9) }), "of another log");
        assert!(cursor.advance(Cursor { since: 3, held: prefix(2, 7, 6) }));
        assert!(cursor.advance(Cursor { since: 5, held: prefix(1, 1, 1) }));
        assert_eq!(cursor, Cursor { since: 5, held: prefix(1, 1, 1) });
    }
}
