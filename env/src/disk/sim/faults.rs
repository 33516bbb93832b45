//! Operations that fail because a test asked for it.

use std::io;

use serde::{Deserialize, Serialize};

use super::Inner;

/// What an operation may be made to do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with `EIO`. A failed sync loses the pages it should have written: they can still be
    /// read, and a later successful sync does not make them durable.
    Io,
    /// The operation fails with `ENOSPC`; a write keeps its first half.
    NoSpace,
    /// The power goes: this operation and all later ones fail until [`SimDisk::crash`](super::SimDisk::crash).
    PowerLoss,
}

/// Which operations an injected fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Creates, writes, length changes, renames, removals and syncs of files and directories.
    AnyChange,
    /// Writes to files.
    Write,
    /// Syncs of files.
    Sync,
    /// Reads of files.
    Read,
}

#[derive(Debug)]
pub(super) struct Injected {
    pub(super) on: On,
    pub(super) after: u64,
    pub(super) fault: Fault,
}

impl Inner {
    /// Counts an operation and says what fault it suffers.
    pub(super) fn strike(&mut self, on: On) -> Option<Fault> {
        if self.powerless {
            return Some(Fault::PowerLoss);
        }
        let changes = on != On::Read;
        self.changes += u64::from(changes);
        let mut struck = None;
        self.faults.retain_mut(|injected| {
            if injected.on != on && !(changes && injected.on == On::AnyChange) {
                return true;
            }
            if injected.after > 0 {
                injected.after -= 1;
                return true;
            }
            struck = Some(injected.fault);
            false
        });
        self.powerless |= struck == Some(Fault::PowerLoss);
        self.struck += u64::from(struck.is_some_and(|fault| fault != Fault::PowerLoss));
        struck
    }

    pub(super) fn check(&mut self, on: On) -> io::Result<()> {
        self.strike(on).map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.powerless { Err(error_of(Fault::PowerLoss)) } else { Ok(()) }
    }
}

pub(super) fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("simulated I/O error"),
        Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "simulated full disk"),
        Fault::PowerLoss => io::Error::other("simulated power loss"),
    }
}
