//! A real file, and what was written to it and not synced: kept in memory, seen by whoever reads in this process,
//! and gone with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use parking_lot::Mutex;

use crate::Random;

/// Unit in which a torn write is cut, in bytes.
const SECTOR_BYTES: u64 = 512;

/// One in so many unsynced writes reaches the file early, whole or in part.
const EARLY_ONE_IN: u64 = 16;

/// A file of the file system and its unsynced writes. All handles of one file share it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) file: File,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    /// In order. Applied to the file, they give what readers see; those that reached it early stay here, since to
    /// apply them again changes nothing.
    pending: Vec<Pending>,
    /// As readers see it; the file's own where nothing is pending.
    len: u64,
}

#[derive(Debug)]
struct Pending {
    write: Write,
    /// Whether a sync makes it durable; a failed one gave up on it otherwise.
    dirty: bool,
}

#[derive(Debug)]
enum Write {
    Bytes { offset: u64, bytes: Box<[u8]> },
    Len(u64),
}

impl Node {
    pub(super) fn new(file: File) -> Node {
        Node { file, pages: Mutex::new(Pages { pending: Vec::new(), len: 0 }) }
    }

    /// Fills `into` with what was written, synced or not.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let pages = self.pages.lock();
        if pages.pending.is_empty() {
            drop(pages);
            return self.file.read_exact_at(into, offset);
        }
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > pages.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut filled = 0;
        while filled < into.len() {
            match self.file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        into[filled..].fill(0);
        pages.pending.iter().for_each(|pending| pending.write.show(offset, into));
        Ok(())
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        let pages = self.pages.lock();
        if pages.pending.is_empty() { Ok(self.file.metadata()?.len()) } else { Ok(pages.len) }
    }

    /// Keeps a write back, except for what happens to reach the file early.
    pub(super) fn write(&self, offset: u64, bytes: &[u8], random: &Random) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let mut pages = self.pages.lock();
        if pages.pending.is_empty() {
            pages.len = self.file.metadata()?.len();
        }
        pages.len = pages.len.max(end);
        pages.pending.push(Pending { write: Write::Bytes { offset, bytes: bytes.into() }, dirty: true });
        if let Some((start, end)) = early_run(random, bytes.len() as u64) {
            // A failure shows at the sync, which writes the same again.
            let _ = self.file.write_all_at(&bytes[start as usize..end as usize], offset + start);
        }
        Ok(())
    }

    /// Where nothing is kept back.
    pub(super) fn write_now(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn set_len(&self, len: u64, random: &Random) -> io::Result<()> {
        if i64::try_from(len).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut pages = self.pages.lock();
        pages.len = len;
        pages.pending.push(Pending { write: Write::Len(len), dirty: true });
        if random.in_range(0..EARLY_ONE_IN) == 0 {
            let _ = self.file.set_len(len);
        }
        Ok(())
    }

    /// Gives every unsynced write to the file and waits for the file system.
    pub(super) fn sync(&self) -> io::Result<()> {
        {
            let mut pages = self.pages.lock();
            let written = pages.pending.iter().filter(|pending| pending.dirty).try_for_each(|pending| {
                match &pending.write {
                    Write::Bytes { offset, bytes } => self.file.write_all_at(bytes, *offset),
                    Write::Len(len) => self.file.set_len(*len),
                }
            });
            if let Err(error) = written {
                pages.give_up();
                return Err(error);
            }
            pages.clean();
        }
        // Without the lock: reads go on meanwhile.
        self.file.sync_data()
    }

    /// A failed sync: readers go on to see what was written, and no later sync makes it durable.
    pub(super) fn lose_pages(&self) {
        self.pages.lock().give_up();
    }

    /// Bytes that a sync would make durable, and whether there is anything at all.
    pub(super) fn unsynced(&self) -> (u64, bool) {
        let pages = self.pages.lock();
        let dirty = || pages.pending.iter().filter(|pending| pending.dirty);
        (dirty().map(|pending| pending.write.bytes()).sum(), dirty().next().is_some())
    }

    /// Whether readers see what the file does not have.
    pub(super) fn is_ahead(&self) -> bool {
        !self.pages.lock().pending.is_empty()
    }

    /// Bytes that the file takes on the file system, and will when it is synced.
    pub(super) fn allocated_bytes(&self) -> u64 {
        allocated_bytes(&self.file).saturating_add(self.unsynced().0)
    }
}

/// Bytes of blocks, and no more than the length.
pub(super) fn allocated_bytes(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512).min(metadata.len()))
}

impl Pages {
    fn give_up(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.dirty = false);
    }

    /// After all that is dirty was written. Where something is lost, what came after may lie over it in part, so
    /// that the whole list goes on to be needed to tell what readers see.
    fn clean(&mut self) {
        if self.pending.iter().all(|pending| pending.dirty) {
            self.pending.clear();
        } else {
            self.give_up();
        }
    }
}

impl Write {
    fn bytes(&self) -> u64 {
        match self {
            Write::Bytes { bytes, .. } => bytes.len() as u64,
            Write::Len(_) => 0,
        }
    }

    /// Applies the write to the part of the file that `view` shows, from `start`.
    fn show(&self, start: u64, view: &mut [u8]) {
        let end = start + view.len() as u64;
        match self {
            Write::Len(len) if *len < end => {
                let kept = len.saturating_sub(start) as usize;
                view[kept..].fill(0);
            }
            Write::Len(_) => {}
            Write::Bytes { offset, bytes } => {
                let (from, to) = (start.max(*offset), end.min(offset + bytes.len() as u64));
                if from < to {
                    view[(from - start) as usize..(to - start) as usize]
                        .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
                }
            }
        }
    }
}

/// The part of a write of `len` bytes that is written back early: mostly none, else a run of its sectors or all.
fn early_run(random: &Random, len: u64) -> Option<(u64, u64)> {
    match random.in_range(0..EARLY_ONE_IN * 2) {
        0 => Some((0, len)),
        1 => {
            let sectors = len.div_ceil(SECTOR_BYTES);
            let (a, b) = (random.in_range(0..sectors + 1), random.in_range(0..sectors + 1));
            let (start, end) = (a.min(b) * SECTOR_BYTES, (a.max(b) * SECTOR_BYTES).min(len));
            (start < end).then_some((start, end))
        }
        _ => None,
    }
}
