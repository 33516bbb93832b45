//! Identities in the metadata. Each has one text form that never changes: decimal for counters, 32 hexadecimal
//! digits for random identities; serialised as that text where people read it and as bytes elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not an identity.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl $name {
            /// The number that follows.
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse()
                    .map($name)
                    .map_err(|_| ParseIdError { text: text.to_owned(), expected: "a decimal number" })
            }
        }
    };
}

counter!(
    /// A node of the cluster. Given once by the metadata, never used again for another node.
    NodeId(u64)
);
counter!(
    /// A member of the meta Raft group. Apart from [`NodeId`]: a node that lost its vote keeps its node id and
    /// gets another member id (PROTOCOL, failure 15).
    MetaId(u64)
);
counter!(
    /// A shard's number in the shard map, which grows with every change of its replica set.
    Epoch(u64)
);
counter!(
    /// One of the parts of the key space, counted from 0.
    ShardId(u32)
);

impl From<u64> for MetaId {
    fn from(number: u64) -> Self {
        MetaId(number)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let well_formed = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(number) if well_formed => Ok($name(number)),
                    _ => Err(ParseIdError { text: text.to_owned(), expected: "32 hexadecimal digits" }),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0.to_be_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(IdVisitor).map($name)
                } else {
                    deserializer.deserialize_bytes(IdVisitor).map($name)
                }
            }
        }
    };
}

random_id!(
    /// The cluster. A full restore makes a new one.
    ClusterId
);
random_id!(
    /// A store: born with its data directory, discarded when it lost synced data.
    ReplicaId
);
random_id!(
    /// One move, split or other long change, so that a repeated command is recognised.
    MoveId
);
random_id!(
    /// A meta member's Raft directory: born with it, so that a wiped member never votes under its old id.
    Incarnation
);

struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = u128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("128 bits as 32 hexadecimal digits or 16 bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u128, E> {
        ClusterId::from_str(text).map(|id| id.0).map_err(E::custom)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
        match bytes.try_into() {
            Ok(bytes) => Ok(u128::from_be_bytes(bytes)),
            Err(_) => Err(E::invalid_length(bytes.len(), &self)),
        }
    }
}

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// As in names of settings and readings.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_stable() {
        assert_eq!(NodeId(17).to_string(), "17");
        assert_eq!("17".parse(), Ok(NodeId(17)));
        assert_eq!(ReplicaId(0xab).to_string(), "000000000000000000000000000000ab");
        assert_eq!("000000000000000000000000000000ab".parse(), Ok(ReplicaId(0xab)));
        assert!("ab".parse::<ReplicaId>().is_err());
        assert!("+00000000000000000000000000000ab".parse::<ReplicaId>().is_err());
        assert!("-1".parse::<NodeId>().is_err());
    }

    #[test]
    fn serialised_forms_read_back() {
        let id = ReplicaId(u128::MAX - 5);
        let packed = rmp_serde::to_vec_named(&id).expect("packs");
        assert_eq!(rmp_serde::from_slice::<ReplicaId>(&packed).expect("unpacks"), id);
        let json = serde_json::to_string(&id).expect("packs");
        assert_eq!(json, "\"fffffffffffffffffffffffffffffffa\"");
        assert_eq!(serde_json::from_str::<ReplicaId>(&json).expect("unpacks"), id);
        assert!(serde_json::from_str::<ReplicaId>("\"fffa\"").is_err());
    }
}
