//! The list of published parts that peers tail: positions and where in the WAL the bodies are. Kept for all WAL
//! files that exist.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::error::TailError;
use crate::ids::PartId;
use crate::memtable::MemPart;
use crate::model::{RequestId, Shard, Signal, Window};
use crate::position::{Position, Prefix};
use crate::wal::writer::WalFile;

/// Entries that one call may look at, so that a reader of few shards does not hold the lock for long.
const LOOKED_AT_MAX: usize = 64 << 10;

/// One published part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailEntry {
    pub position: Position,
    pub signal: Signal,
    /// The window of the part's first row.
    pub window: Window,
    pub request: RequestId,
    pub digest: u64,
    pub shard: Shard,
}

impl TailEntry {
    pub(crate) fn id(&self) -> PartId {
        PartId {
            signal: self.signal,
            window: self.window,
            request: self.request,
            digest: self.digest,
            shard: self.shard,
        }
    }
}

/// A piece of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailPage {
    /// By position.
    pub entries: Vec<TailEntry>,
    /// Every entry of the asked shards up to here is in this page or before it.
    pub covered: Prefix,
    /// Whether the list goes on after `covered`.
    pub has_more: bool,
}

/// The same, before the boot of its end is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub entries: Vec<TailEntry>,
    pub covered: Position,
    pub has_more: bool,
}

/// Where a part's batch is.
#[derive(Clone, Debug)]
pub(crate) struct TailLocation {
    pub wal: WalFile,
    pub batch_offset: u64,
    pub batch_len: u32,
    /// The part's place in that batch.
    pub part: u32,
}

/// An entry before it has its place in the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    id: PartId,
    batch_offset: u64,
    batch_len: u32,
    part: u32,
    /// Whether all of its rows are in the window of the first.
    is_in_one_window: bool,
}

/// Positions to parts, over all WAL files that exist.
#[derive(Debug, Default)]
pub(crate) struct TailIndex {
    files: VecDeque<TailFile>,
    /// Positions at which segments were installed, whose rows have no entries. A file starts at each.
    installs: BTreeSet<Position>,
}

#[derive(Debug)]
struct TailFile {
    wal: WalFile,
    entries: Vec<NewEntry>,
    bytes: u64,
}

impl TailFile {
    fn end(&self) -> Position {
        Position { boot: self.wal.start.boot, n: self.wal.start.n + self.entries.len() as u64 }
    }
}

impl TailIndex {
    /// What follows goes to `wal`.
    pub(crate) fn start_file(&mut self, wal: WalFile) {
        self.files.push_back(TailFile { wal, entries: Vec::new(), bytes: 0 });
    }

    /// Adds the next entry to the newest file.
    pub(crate) fn push(&mut self, entry: NewEntry) {
        let file = self.files.back_mut().expect("a WAL file is started before a part is written to it");
        file.bytes = file.bytes.max(entry.batch_offset + u64::from(entry.batch_len));
        file.entries.push(entry);
    }

    /// Peers cannot tail from before `start` any more. It is where a file starts.
    pub(crate) fn raise_start(&mut self, start: Position) {
        while self.files.front().is_some_and(|file| file.wal.start < start) {
            self.files.pop_front();
        }
    }

    /// Peers tail up to `position`, and cannot get past it. It is where a file starts.
    pub(crate) fn install(&mut self, position: Position) {
        let first = self.first();
        self.installs.retain(|install| first < *install);
        self.installs.insert(position);
    }

    /// Ids of the entries after [`TailIndex::start`] whose rows are in one window.
    pub(crate) fn ids_in_one_window(&self) -> impl Iterator<Item = PartId> + '_ {
        let start = self.start();
        let entries =
            self.files.iter().filter(move |file| file.wal.start >= start).flat_map(|file| &file.entries);
        entries.filter(|entry| entry.is_in_one_window).map(|entry| entry.id)
    }

    /// Number of the newest file.
    pub(crate) fn newest_seq(&self) -> Option<u64> {
        self.files.back().map(|file| file.wal.seq)
    }

    /// Position of the newest entry, or where the newest file starts.
    pub(crate) fn end(&self) -> Position {
        self.files.back().map(TailFile::end).unwrap_or_default()
    }

    /// What came after it has entries, and they are in the list.
    pub(crate) fn start(&self) -> Position {
        let install = self.installs.last().copied().unwrap_or_default();
        self.first().max(install)
    }

    /// Entries after it are in the list.
    fn first(&self) -> Position {
        self.files.front().map(|file| file.wal.start).unwrap_or_default()
    }

    /// Entries of `shards` after `after`, at most `entries_max`, and none beyond an install: whoever has all before it
    /// has to compare what came with it.
    pub(crate) fn page(
        &self,
        after: Position,
        shards: &BTreeSet<Shard>,
        entries_max: usize,
    ) -> Result<Page, TailError> {
        let below = || Err(TailError::BelowStart { start: self.start() });
        if after < self.first() {
            return below();
        }
        let install = self.installs.range((Bound::Excluded(after), Bound::Unbounded)).next();
        let mut page = Page { entries: Vec::new(), covered: after, has_more: false };
        let mut looked_at = 0;
        for file in &self.files {
            if install.is_some_and(|install| file.wal.start >= *install) {
                page.has_more = true;
                return if page.covered > after { Ok(page) } else { below() };
            }
            if file.end() <= after {
                continue;
            }
            let skip = if file.wal.start < after { after.n - file.wal.start.n } else { 0 };
            for (index, entry) in file.entries.iter().enumerate().skip(skip as usize) {
                if page.entries.len() >= entries_max || looked_at >= LOOKED_AT_MAX {
                    page.has_more = true;
                    return Ok(page);
                }
                looked_at += 1;
                let position = Position { boot: file.wal.start.boot, n: file.wal.start.n + index as u64 + 1 };
                if shards.contains(&entry.id.shard) {
                    page.entries.push(entry.at(position));
                }
                page.covered = position;
            }
            page.covered = file.end();
        }
        Ok(page)
    }

    /// Where the part of a position is.
    pub(crate) fn locate(&self, position: Position) -> Option<TailLocation> {
        let file = self.files.iter().rev().find(|file| file.wal.start < position)?;
        if file.wal.start.boot != position.boot {
            return None;
        }
        let entry = file.entries.get((position.n - file.wal.start.n - 1) as usize)?;
        Some(TailLocation {
            wal: file.wal.clone(),
            batch_offset: entry.batch_offset,
            batch_len: entry.batch_len,
            part: entry.part,
        })
    }

    /// Takes the oldest files below `floor` off the list until those left below it have at most `keep_bytes`.
    /// WAL files below the number that it gives are not needed any more.
    pub(crate) fn drop_files(&mut self, floor: u64, keep_bytes: u64) -> u64 {
        let mut flushed: u64 =
            self.files.iter().filter(|file| file.wal.seq < floor).map(|file| file.bytes).sum();
        while let Some(file) = self.files.front() {
            if file.wal.seq >= floor || flushed <= keep_bytes {
                return file.wal.seq.min(floor);
            }
            flushed -= file.bytes;
            self.files.pop_front();
        }
        floor
    }

    /// Takes the files up to `seq` off the list, but for the newest.
    pub(crate) fn abandon(&mut self, seq: u64) {
        while self.files.len() > 1 && self.files.front().is_some_and(|file| file.wal.seq <= seq) {
            self.files.pop_front();
        }
    }

    /// Takes all files off the list.
    pub(crate) fn forget(&mut self) {
        self.files.clear();
        self.installs.clear();
    }

    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl NewEntry {
    /// Of a part whose batch begins at `batch_offset` of its WAL file.
    pub(crate) fn new(part: &MemPart, batch_offset: u64) -> Self {
        NewEntry {
            id: part.id(),
            batch_offset,
            batch_len: part.batch.bytes().len() as u32,
            part: part.index as u32,
            is_in_one_window: Window::of(part.header().max_time_unix_nano) == part.window(),
        }
    }

    fn at(&self, position: Position) -> TailEntry {
        let PartId { signal, window, request, digest, shard } = self.id;
        TailEntry { position, signal, window, request, digest, shard }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use oteld_env::{Disk, Random, SimDisk};

    use super::*;

    fn index(files: &[(u64, u64, u64, u64)]) -> TailIndex {
        let disk = SimDisk::new(Random::from_seed(1), 1 << 20);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let mut index = TailIndex::default();
        for (seq, boot, start, count) in files {
            let file = disk.open(Path::new("/d/f"), true).unwrap().into();
            let before = Position { boot: *boot, n: *start };
            index.start_file(WalFile { seq: *seq, file, start: before, definitions: Arc::default() });
            for i in 0..*count {
                let id = PartId {
                    signal: Signal::Logs,
                    window: Window(0),
                    request: RequestId(u128::from(start + i)),
                    digest: 0,
                    shard: Shard((i % 2) as u32),
                };
                index.push(NewEntry {
                    id,
                    batch_offset: 100 * i,
                    batch_len: 100,
                    part: 0,
                    is_in_one_window: true,
                });
            }
        }
        index
    }

    fn at(boot: u64, n: u64) -> Position {
        Position { boot, n }
    }

    fn positions(page: &Page) -> Vec<(u64, u64)> {
        page.entries.iter().map(|entry| (entry.position.boot, entry.position.n)).collect()
    }

    #[test]
    fn a_peer_follows_across_files_and_boots() {
        let index = index(&[(1, 1, 0, 2), (2, 1, 2, 1), (3, 2, 0, 2), (4, 3, 0, 0)]);
        let all = BTreeSet::from([Shard(0), Shard(1)]);
        let page = index.page(at(1, 0), &all, 100).unwrap();
        assert_eq!(positions(&page), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]);
        assert_eq!((page.covered, page.has_more), (at(3, 0), false));
        let page = index.page(at(1, 2), &all, 2).unwrap();
        assert_eq!((positions(&page), page.covered), (vec![(1, 3), (2, 1)], at(2, 1)));
        assert!(page.has_more);
        let one = BTreeSet::from([Shard(1)]);
        assert_eq!(positions(&index.page(at(1, 1), &one, 100).unwrap()), [(1, 2), (2, 2)]);
    }

    #[test]
    fn a_page_that_looked_at_enough_says_that_there_is_more() {
        let index = index(&[(1, 1, 0, LOOKED_AT_MAX as u64 + 1)]);
        let none = BTreeSet::from([Shard(2)]);
        let first = index.page(at(1, 0), &none, 9).unwrap();
        assert_eq!((first.entries.len(), first.has_more), (0, true));
        let rest = index.page(first.covered, &none, 9).unwrap();
        assert_eq!((rest.covered, rest.has_more), (at(1, LOOKED_AT_MAX as u64 + 1), false));
    }

    #[test]
    fn a_peer_pulls_what_came_before_an_install_and_compares_there() {
        let mut index = index(&[(1, 1, 0, 2), (2, 1, 2, 2)]);
        let all = BTreeSet::from([Shard(0), Shard(1)]);
        let install = |index: &mut TailIndex, seq, n| {
            let wal = WalFile { seq, start: at(1, n), ..index.files[0].wal.clone() };
            index.start_file(wal);
            index.install(at(1, n));
        };
        install(&mut index, 3, 5);
        let page = index.page(at(1, 1), &all, 9).unwrap();
        assert_eq!((positions(&page), page.covered), (vec![(1, 2), (1, 3), (1, 4)], at(1, 4)));
        assert!(page.has_more);
        assert_eq!(index.page(at(1, 4), &all, 9).unwrap_err(), TailError::BelowStart { start: at(1, 5) });
        assert!(index.locate(at(1, 4)).is_some() && index.locate(at(1, 5)).is_none());
        assert_eq!(index.ids_in_one_window().count(), 0, "nothing came since");
        assert_eq!(index.page(at(1, 5), &all, 9).unwrap().covered, at(1, 5));
        // Two without anything between, and one of no effect.
        install(&mut index, 4, 6);
        assert_eq!(index.page(at(1, 4), &all, 9).unwrap_err(), TailError::BelowStart { start: at(1, 6) });
        assert_eq!(index.page(at(1, 5), &all, 9).unwrap_err(), TailError::BelowStart { start: at(1, 6) });
        assert_eq!(index.page(at(1, 6), &all, 9).unwrap().covered, at(1, 6));
        assert_eq!(index.page(at(1, 1), &all, 9).unwrap().covered, at(1, 4), "still");
        // The next boot knows only where the last one was.
        index.raise_start(at(1, 6));
        assert_eq!(index.page(at(1, 1), &all, 9).unwrap_err(), TailError::BelowStart { start: at(1, 6) });
    }

    #[test]
    fn dropped_files_are_below_the_start() {
        let mut index = index(&[(1, 1, 0, 2), (2, 1, 2, 2), (3, 2, 0, 2)]);
        assert_eq!(index.drop_files(3, 200), 2);
        let all = BTreeSet::from([Shard(0), Shard(1)]);
        assert_eq!(index.page(at(1, 1), &all, 9).unwrap_err(), TailError::BelowStart { start: at(1, 2) });
        assert_eq!(positions(&index.page(at(1, 2), &all, 9).unwrap()).len(), 4);
        assert!(index.locate(at(1, 2)).is_none());
        assert_eq!(index.locate(at(1, 4)).unwrap().batch_offset, 100);
        assert!(index.locate(at(1, 5)).is_none() && index.locate(at(2, 3)).is_none());
        assert_eq!(index.drop_files(3, 0), 3);
        assert_eq!(index.drop_files(3, 0), 3);
    }
}
