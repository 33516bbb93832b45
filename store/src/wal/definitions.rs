//! Which definitions a WAL file holds in records of their own, and where. Batches of the file may name them without
//! carrying them, so that each file can be read without the ones before it.

use std::collections::HashMap;
use std::io;

use oteld_env::DiskFile;
use parking_lot::Mutex;

use super::record::Record;
use crate::batch::{Definition, Kind};

/// Where a definition's bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub kind: Kind,
    pub offset: u64,
    pub len: u32,
}

impl Place {
    /// Of a definition whose record starts at `record_offset`.
    pub(crate) fn of(definition: &Definition, record_offset: u64) -> Self {
        let offset = record_offset + Record::definition_offset() as u64;
        Place { kind: definition.kind, offset, len: definition.bytes.len() as u32 }
    }
}

/// By hash. Grows only, until the file is let go.
#[derive(Debug, Default)]
pub(crate) struct FileDefinitions(Mutex<HashMap<u128, Place>>);

impl FileDefinitions {
    pub(crate) fn contains(&self, hash: u128) -> bool {
        self.0.lock().contains_key(&hash)
    }

    pub(crate) fn insert(&self, hash: u128, place: Place) {
        self.0.lock().insert(hash, place);
    }

    /// Reads one from the file that these are of; `None` where it has none with this hash.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn read(&self, file: &dyn DiskFile, hash: u128) -> io::Result<Option<Definition>> {
        let Some(place) = self.0.lock().get(&hash).copied() else { return Ok(None) };
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(place.offset, &mut bytes)?;
        let definition = Definition::new(place.kind, bytes.into());
        Ok((definition.hash == hash).then_some(definition))
    }
}
