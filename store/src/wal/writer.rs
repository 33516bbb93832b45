//! Writing groups: one write and one fsync each, a new file where the old one is full or may not be used.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use oteld_env::{Disk, DiskFile};
use xxhash_rust::xxh3::Xxh3;

use super::WalEnd;
use super::definitions::{FileDefinitions, Place};
use super::file;
use super::group::{FileHeader, GroupHeader, HEADER_BYTES};
use super::record::Record;
use crate::position::{Boot, Position, ReplicaId};

/// Batches above this are written from where they are; smaller ones are gathered into one write.
const GATHER_BYTES_MAX: usize = 32 << 10;

/// What the writer needs to know of its node.
#[derive(Clone, Debug)]
pub(crate) struct WalOptions {
    pub dir: PathBuf,
    pub replica: ReplicaId,
    pub boot: Boot,
    /// Length of a new file; a larger group gets a file of its own length.
    pub file_bytes: u64,
    /// A group is refused where less than this would be left.
    pub min_free_bytes: u64,
}

/// Why a group is not durable.
#[derive(Debug)]
pub(crate) enum WriteFailure {
    /// No space; the next group may be tried.
    Full(String),
    /// A write or fsync failed: nothing may be acknowledged until a restart.
    Failed(String),
}

/// A WAL file that groups went to.
#[derive(Clone, Debug)]
pub(crate) struct WalFile {
    pub seq: u64,
    pub file: Arc<dyn DiskFile>,
    /// The last position before the file.
    pub start: Position,
    pub definitions: Arc<FileDefinitions>,
}

/// The end of the log. Blocks: use it on the blocking pool.
#[derive(Debug)]
pub(crate) struct WalWriter {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    file: Arc<dyn DiskFile>,
    file_len: u64,
    /// Everything before it is synced.
    end: WalEnd,
    previous_group: WalEnd,
    last_n: u64,
    /// Those that are in the file already.
    definitions: Arc<FileDefinitions>,
    /// The end of the file may be torn.
    abandoned: bool,
}

impl WalWriter {
    /// Starts file `seq` as the continuation of `previous`, synced when this returns.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        seq: u64,
        previous: WalEnd,
    ) -> io::Result<WalWriter> {
        let (file, file_len) = create_file(&*disk, &options, seq, previous, 0, 0)?;
        sync_file(&*disk, &options, &*file)?;
        let end = WalEnd { seq, offset: HEADER_BYTES as u64 };
        Ok(WalWriter {
            disk,
            options,
            file,
            file_len,
            end,
            previous_group: previous,
            last_n: 0,
            definitions: Arc::default(),
            abandoned: false,
        })
    }

    /// Everything before it is synced.
    pub(crate) fn end(&self) -> WalEnd {
        self.end
    }

    /// The file that is written to.
    pub(crate) fn current(&self, start_n: u64) -> WalFile {
        let start = Position { boot: self.options.boot.counter, n: start_n };
        WalFile { seq: self.end.seq, file: self.file.clone(), start, definitions: self.definitions.clone() }
    }

    /// The last position that was made durable.
    pub(crate) fn last_n(&self) -> u64 {
        self.last_n
    }

    /// Writes and syncs a group; the parts in it take the next positions. Definitions that the file has already are
    /// left out. Gives where the other records start in the current file ([`WalWriter::end`] names it).
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<Vec<u64>, WriteFailure> {
        let all_len = HEADER_BYTES as u64 + payload_len(records);
        self.check_space(all_len)?;
        let mut written = self.without_known(records);
        if self.abandoned || self.end.offset + HEADER_BYTES as u64 + payload_len(&written) > self.file_len {
            self.rotate(all_len)?;
            written = self.without_known(records);
        }
        let payload_len = payload_len(&written);
        let positions = written.iter().map(Record::positions).sum::<u64>();
        let chunks = gather(&written);
        let mut checksum = Xxh3::new();
        chunks.iter().for_each(|chunk| checksum.update(chunk));
        let header = GroupHeader {
            seq: self.end.seq,
            offset: self.end.offset,
            boot: self.options.boot,
            first_n: self.last_n + 1,
            positions: u32::try_from(positions).expect("a group is far below 2^32 parts"),
            records: written.len() as u32,
            payload_len,
            payload_checksum: checksum.digest(),
            previous: self.previous_group,
        };
        self.write_and_sync(&header, &chunks)?;
        let mut at = self.end.offset + HEADER_BYTES as u64;
        let mut starts = Vec::with_capacity(records.len());
        for record in &written {
            match record {
                Record::Definition(definition) => {
                    self.definitions.insert(definition.hash, Place::of(definition, at))
                }
                Record::Parts { .. } | Record::Cursor(_) => starts.push(at),
            }
            at += record.encoded_len() as u64;
        }
        self.end.offset += HEADER_BYTES as u64 + payload_len;
        self.previous_group = self.end;
        self.last_n += positions;
        Ok(starts)
    }

    /// The records, each definition once and only where the file does not have it.
    fn without_known(&self, records: &[Record]) -> Vec<Record> {
        let mut new = HashSet::new();
        let is_new = |record: &&Record| match record {
            Record::Definition(definition) => {
                !self.definitions.contains(definition.hash) && new.insert(definition.hash)
            }
            Record::Parts { .. } | Record::Cursor(_) => true,
        };
        records.iter().filter(is_new).cloned().collect()
    }

    /// Leaves the current file and starts the next one, so that everything so far is in files of its own.
    pub(crate) fn rotate(&mut self, group_len: u64) -> Result<(), WriteFailure> {
        // A file that is left half made says already where this one ended: nothing may be added here any more.
        self.abandoned = true;
        let seq = self.end.seq + 1;
        let path = file::path(&self.options.dir, seq);
        let create = || {
            // An earlier attempt may have left one that was never used.
            if self.disk.exists(&path)? {
                self.disk.remove_file(&path)?;
            }
            create_file(&*self.disk, &self.options, seq, self.end, self.last_n, group_len)
        };
        let (file, file_len) =
            create().map_err(|error| self.failure(&format!("cannot start WAL file {seq}"), &error))?;
        self.disk.reach("wal.file_created");
        sync_file(&*self.disk, &self.options, &*file)
            .map_err(|error| WriteFailure::Failed(format!("cannot sync WAL file {seq}: {error}")))?;
        self.file = file;
        self.file_len = file_len;
        self.previous_group = self.end;
        self.end = WalEnd { seq, offset: HEADER_BYTES as u64 };
        self.definitions = Arc::default();
        self.abandoned = false;
        Ok(())
    }

    /// Leaves the current file and one position, which no part will ever have. Gives that position.
    pub(crate) fn skip_position(&mut self) -> Result<u64, WriteFailure> {
        let before = self.last_n;
        self.last_n += 1;
        self.check_space(0).and_then(|()| self.rotate(0)).inspect_err(|_| self.last_n = before)?;
        Ok(self.last_n)
    }

    fn check_space(&self, group_len: u64) -> Result<(), WriteFailure> {
        let free = self.disk.free_bytes(&self.options.dir);
        let free = free
            .map_err(|error| WriteFailure::Failed(format!("cannot tell how much space is free: {error}")))?;
        let needed = self.options.min_free_bytes.saturating_add(group_len);
        if free < needed {
            return Err(WriteFailure::Full(format!(
                "the disk is full: {free} bytes are free and {needed} are needed"
            )));
        }
        Ok(())
    }

    fn write_and_sync(&mut self, header: &GroupHeader, chunks: &[bytes::Bytes]) -> Result<(), WriteFailure> {
        let write = || {
            let mut at = self.end.offset + HEADER_BYTES as u64;
            let mut rest = chunks;
            match chunks {
                [first, others @ ..] if first.len() <= GATHER_BYTES_MAX => {
                    let mut start = Vec::with_capacity(HEADER_BYTES + first.len());
                    start.extend_from_slice(&header.encode());
                    start.extend_from_slice(first);
                    self.file.write_all_at(self.end.offset, &start)?;
                    at += first.len() as u64;
                    rest = others;
                }
                _ => self.file.write_all_at(self.end.offset, &header.encode())?,
            }
            for chunk in rest {
                self.file.write_all_at(at, chunk)?;
                at += chunk.len() as u64;
            }
            Ok(())
        };
        if let Err(error) = write() {
            self.abandoned = true;
            return Err(self.failure("cannot write to the WAL", &error));
        }
        self.disk.reach("wal.group_written");
        if oteld_env::mutant("ack-before-fsync") {
            return Ok(());
        }
        let mut synced = self.file.sync_data();
        if synced.is_err() && oteld_env::mutant("failed-fsync-retried") {
            synced = self.file.sync_data();
        }
        synced.map_err(|error| {
            self.abandoned = true;
            WriteFailure::Failed(format!("cannot sync the WAL: {error}"))
        })?;
        self.disk.reach("wal.group_synced");
        Ok(())
    }

    fn failure(&self, what: &str, error: &io::Error) -> WriteFailure {
        let reason = format!("{what}: {error}");
        if is_full(error) { WriteFailure::Full(reason) } else { WriteFailure::Failed(reason) }
    }
}

/// Whether an error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file with its header, nothing of it synced.
fn create_file(
    disk: &dyn Disk,
    options: &WalOptions,
    seq: u64,
    previous: WalEnd,
    start_n: u64,
    group_len: u64,
) -> io::Result<(Arc<dyn DiskFile>, u64)> {
    let file = disk.open(&file::path(&options.dir, seq), true)?;
    let len = options.file_bytes.max(HEADER_BYTES as u64 + group_len);
    file.set_len(len)?;
    let header = FileHeader { seq, replica: options.replica, boot: options.boot, start_n, previous };
    file.write_all_at(0, &header.encode())?;
    Ok((file.into(), len))
}

/// Makes a new file and its name durable.
fn sync_file(disk: &dyn Disk, options: &WalOptions, file: &dyn DiskFile) -> io::Result<()> {
    file.sync_data()?;
    if oteld_env::mutant("no-dir-sync-of-wal") {
        return Ok(());
    }
    disk.sync_dir(&options.dir)
}

fn payload_len(records: &[Record]) -> u64 {
    records.iter().map(|record| record.encoded_len() as u64).sum()
}

/// The encoded records, small ones together, large batches as they are.
fn gather(records: &[Record]) -> Vec<bytes::Bytes> {
    let mut chunks = Vec::new();
    let mut gathered = Vec::new();
    for record in records {
        record.encode_head(&mut gathered);
        let Record::Parts { batch, .. } = record else { continue };
        if batch.len() <= GATHER_BYTES_MAX {
            gathered.extend_from_slice(batch);
        } else {
            chunks.push(std::mem::take(&mut gathered).into());
            chunks.push(batch.clone());
        }
    }
    if !gathered.is_empty() {
        chunks.push(gathered.into());
    }
    chunks
}
