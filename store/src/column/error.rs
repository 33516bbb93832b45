//! Why bytes are not what they should be.

use thiserror::Error;

/// Bytes that are not a batch or segment that this version wrote.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("the bytes end within {what}")]
    Truncated { what: &'static str },
    #[error("not {what}: wrong magic")]
    Magic { what: &'static str },
    #[error("{what} has version {version}, which this program does not know")]
    Version { what: &'static str, version: u8 },
    #[error("the checksum of {what} does not match its bytes")]
    Checksum { what: &'static str },
    #[error("invalid {what}")]
    Invalid { what: &'static str },
    /// The batch names definitions by hash without their bytes, and they are not known here.
    #[error("{} definitions are absent", .0.len())]
    MissingDefinitions(Vec<u128>),
}
