//! The Raft log in sled.
//!
//! sled's limits are handled here: its flush is no fsync of the device, so every sync ends with one on a handle
//! of our own; its values carry no checksum that it verifies on read, so ours do; an item of its own log of about
//! 128 KiB and more goes to a file without any fsync, and such an item can be a whole leaf, so long entries are cut
//! into pieces that leave a full leaf far below that; and a log with holes does not open.

use std::ops::Range;
use std::path::Path;

use oteld_env::{Disk, DiskFile};
use xxhash_rust::xxh3::Xxh3;

use super::log_backend::{BackendError, Change, LogBackend};

/// Longest piece of an entry. sled splits a leaf beyond 16 values and merges one of fewer than 4 into another: 20
/// pieces are 80 KiB.
const PIECE_BYTES: usize = 4 << 10;
/// sled's cache; the log is short and read once.
const CACHE_BYTES: u64 = 8 << 20;

const ENTRY: u8 = b'e';
const NAMED: u8 = b'n';
/// Index of the last purged entry, 8 bytes little-endian.
const PURGED: &str = "backend.purged";

/// A log in a directory of its own.
#[derive(Debug)]
pub struct SledLog {
    db: sled::Db,
    file: Box<dyn DiskFile>,
}

impl SledLog {
    /// Opens the log of `dir`, which must exist, and checks that no entry is missing.
    ///
    /// # Errors
    /// [`BackendError::Damaged`], or sled's own error: the log must not be used again under its member id.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, BackendError> {
        let config = sled::Config::new()
            .path(dir)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace);
        let db = config.open()?;
        let file = disk.open(&dir.join("db"), false)?;
        let log = SledLog { db, file };
        log.check_holes()?;
        log.sync()?;
        disk.sync_dir(dir)?;
        Ok(log)
    }

    fn check_holes(&self) -> Result<(), BackendError> {
        let mut expected = self.purged()?.map(|purged| (purged + 1, 0u16));
        let mut pieces = 0;
        for item in self.db.scan_prefix([ENTRY]) {
            let (key, value) = item?;
            let (index, piece) = parse_entry_key(&key)?;
            let body = verified(&key, &value)?;
            let found = expected.is_none_or(|expected| expected == (index, piece));
            if !found || (expected.is_none() && (index, piece) != (0, 0)) {
                return Err(BackendError::Damaged(format!(
                    "entry {index}.{piece} where {expected:?} belongs"
                )));
            }
            if piece == 0 {
                pieces = piece_count(body)?;
            }
            expected = Some(if piece + 1 < pieces { (index, piece + 1) } else { (index + 1, 0) });
        }
        match expected {
            Some((index, piece)) if piece != 0 => {
                Err(BackendError::Damaged(format!("entry {index} ends before piece {piece}")))
            }
            _ => Ok(()),
        }
    }

    fn purged(&self) -> Result<Option<u64>, BackendError> {
        match self.get(PURGED)? {
            None => Ok(None),
            Some(bytes) => match bytes.as_slice().try_into() {
                Ok(bytes) => Ok(Some(u64::from_le_bytes(bytes))),
                Err(_) => Err(BackendError::Damaged("the purge mark is not 8 bytes".to_owned())),
            },
        }
    }

    fn remove_keys(
        &self,
        batch: &mut sled::Batch,
        keys: impl std::ops::RangeBounds<Vec<u8>>,
    ) -> Result<(), BackendError> {
        for key in self.db.range(keys).keys() {
            batch.remove(key?);
        }
        Ok(())
    }

    fn entries(&self, items: sled::Iter) -> Result<Vec<(u64, Vec<u8>)>, BackendError> {
        let mut entries: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut missing = 0;
        for item in items {
            let (key, value) = item?;
            let (index, piece) = parse_entry_key(&key)?;
            let body = verified(&key, &value)?;
            if piece == 0 {
                missing = piece_count(body)? - 1;
                entries.push((index, body[2..].to_vec()));
                continue;
            }
            match entries.last_mut() {
                Some((last, bytes)) if *last == index && missing > 0 => bytes.extend_from_slice(body),
                _ => return Err(BackendError::Damaged(format!("a stray piece of entry {index}"))),
            }
            missing -= 1;
        }
        if missing > 0 {
            return Err(BackendError::Damaged(format!("an entry lacks {missing} pieces")));
        }
        Ok(entries)
    }
}

impl LogBackend for SledLog {
    fn write(&self, changes: Vec<Change>) -> Result<(), BackendError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(index, bytes) => put(&mut batch, index, &bytes),
                Change::TruncateFrom(index) => {
                    self.remove_keys(&mut batch, entry_key(index, 0)..vec![ENTRY + 1])?;
                }
                Change::PurgeThrough(index) => {
                    self.remove_keys(&mut batch, vec![ENTRY]..entry_key(index + 1, 0))?;
                    insert(&mut batch, named_key(PURGED), &index.to_le_bytes());
                }
                Change::Set(name, bytes) => {
                    assert!(bytes.len() <= PIECE_BYTES, "named values are small");
                    insert(&mut batch, named_key(name), &bytes);
                }
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<(u64, Vec<u8>)>, BackendError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.entries(self.db.range(entry_key(range.start, 0)..entry_key(range.end, 0)))
    }

    fn last(&self) -> Result<Option<(u64, Vec<u8>)>, BackendError> {
        let Some(item) = self.db.scan_prefix([ENTRY]).next_back() else { return Ok(None) };
        let (index, _) = parse_entry_key(&item?.0)?;
        Ok(self.read(index..index + 1)?.pop())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let key = named_key(name);
        match self.db.get(&key)? {
            None => Ok(None),
            Some(value) => Ok(Some(verified(&key, &value)?.to_vec())),
        }
    }
}

fn put(batch: &mut sled::Batch, index: u64, bytes: &[u8]) {
    let pieces = bytes.len().div_ceil(PIECE_BYTES).max(1);
    let count = u16::try_from(pieces).expect("an entry is shorter than 256 MiB, as messages are");
    let (first, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES));
    insert(batch, entry_key(index, 0), &[&count.to_be_bytes()[..], first].concat());
    for (piece, body) in (1..).zip(rest.chunks(PIECE_BYTES)) {
        insert(batch, entry_key(index, piece), body);
    }
}

fn insert(batch: &mut sled::Batch, key: Vec<u8>, body: &[u8]) {
    let value = [&checksum(&key, body).to_le_bytes()[..], body].concat();
    batch.insert(key, value);
}

/// `e`, index, piece; big-endian, so that keys sort as entries do.
fn entry_key(index: u64, piece: u16) -> Vec<u8> {
    [&[ENTRY][..], &index.to_be_bytes(), &piece.to_be_bytes()].concat()
}

fn named_key(name: &str) -> Vec<u8> {
    [&[NAMED][..], name.as_bytes()].concat()
}

fn parse_entry_key(key: &[u8]) -> Result<(u64, u16), BackendError> {
    let damaged = || BackendError::Damaged("a key is not one of an entry".to_owned());
    let (index, piece) = key.get(1..).and_then(<[u8]>::split_first_chunk::<8>).ok_or_else(damaged)?;
    let piece: [u8; 2] = piece.try_into().map_err(|_| damaged())?;
    Ok((u64::from_be_bytes(*index), u16::from_be_bytes(piece)))
}

fn piece_count(body: &[u8]) -> Result<u16, BackendError> {
    match body.first_chunk::<2>() {
        Some(count) if *count != [0, 0] => Ok(u16::from_be_bytes(*count)),
        _ => Err(BackendError::Damaged("an entry has no piece count".to_owned())),
    }
}

fn verified<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], BackendError> {
    match value.split_first_chunk::<8>() {
        Some((sum, body)) if *sum == checksum(key, body).to_le_bytes() => Ok(body),
        _ => Err(BackendError::Damaged(format!("the checksum of {key:02x?} does not match"))),
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(key);
    hash.update(body);
    hash.digest()
}
