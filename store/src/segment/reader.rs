//! A file to rows, a page at a time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::{Disk, DiskFile};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::definitions::{self, Names};
use super::directory::{Directory, FOOTER_LEN, Footer, HEADER_LEN, Section, header};
use super::{AppliedId, Group, PageInfo, SegmentError, SegmentInfo, ids, writer};
use crate::column::{FormatError, Reader, Selection};
use crate::model::{Rows, Series, Shard, Stream, Tenant};
use crate::page;

/// A whole file is read in pieces of this many bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// An open segment. Its directory and definitions are in memory, its pages and ids are read when they are asked for.
/// The file is open only while it is read: event times decide how many segments there are, and a process may have
/// far fewer files open.
#[derive(Debug)]
pub struct Segment {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    info: SegmentInfo,
    directory: Directory,
    names: Names,
}

impl Segment {
    /// Opens a file and reads its footer, directory and definitions.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, SegmentError> {
        let file = disk.open(path, false).map_err(SegmentError::io("open", path))?;
        let len = file.len().map_err(SegmentError::io("read", path))?;
        let damaged = |source| SegmentError::Damaged { path: path.to_owned(), source };
        let Some(footer_start) = len.checked_sub(FOOTER_LEN).filter(|start| *start >= HEADER_LEN) else {
            return Err(damaged(FormatError::Truncated { what: "segment" }));
        };
        let read = |offset, into: &mut [u8]| {
            file.read_exact_at(offset, into).map_err(SegmentError::io("read", path))
        };
        let mut footer = [0; FOOTER_LEN as usize];
        read(footer_start, &mut footer)?;
        let footer = Footer::decode(&footer).map_err(damaged)?;
        let Some(directory_start) =
            footer_start.checked_sub(footer.directory.len).filter(|start| *start >= HEADER_LEN)
        else {
            return Err(damaged(FormatError::Truncated { what: "directory" }));
        };
        let bytes = read_section(&*file, path, directory_start, footer.directory, "directory")?;
        let directory = Directory::decode(&bytes).map_err(damaged)?;
        let mut first = [0; HEADER_LEN as usize];
        read(0, &mut first)?;
        if first != header(directory.signal) {
            return Err(damaged(FormatError::Magic { what: "a segment" }));
        }
        // Everything is contiguous, so that there is no byte in the file without a checksum.
        let (definitions, ids) = (directory.definitions, directory.ids);
        let definitions_start = directory.pages_end();
        let end = definitions_start.checked_add(definitions.len).and_then(|at| at.checked_add(ids.len));
        if end != Some(directory_start) {
            return Err(damaged(FormatError::Invalid { what: "section lengths" }));
        }
        let bytes = read_section(&*file, path, definitions_start, definitions, "definitions")?;
        let names = definitions::decode(&bytes, directory.signal, directory.name_count()).map_err(damaged)?;
        let info = writer::info(&directory, len, footer.file_checksum);
        drop(file);
        Ok(Segment { disk, path: path.to_owned(), info, directory, names })
    }

    fn file(&self) -> Result<Box<dyn DiskFile>, SegmentError> {
        self.disk.open(&self.path, false).map_err(SegmentError::io("open", &self.path))
    }

    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The requests whose rows are here, sorted by (request, digest). Read from the file at each call.
    pub fn ids(&self) -> Result<Vec<AppliedId>, SegmentError> {
        let start = self.directory.pages_end() + self.directory.definitions.len;
        let bytes = read_section(&*self.file()?, &self.path, start, self.directory.ids, "applied ids")?;
        ids::decode(&bytes, self.directory.id_count).map_err(SegmentError::damaged(&self.path))
    }

    /// Shards and tenants with rows here, in the order of the rows.
    pub fn groups(&self) -> &[Group] {
        &self.directory.groups
    }

    /// Zone maps of the pages, in the order of the rows.
    pub fn pages(&self) -> &[PageInfo] {
        &self.directory.pages
    }

    /// The groups of a tenant in these shards.
    pub fn groups_of<'a>(
        &'a self,
        tenant: &'a Tenant,
        shards: &'a BTreeSet<Shard>,
    ) -> impl Iterator<Item = &'a Group> {
        self.groups().iter().filter(move |group| group.tenant == *tenant && shards.contains(&group.shard))
    }

    /// Pages of a tenant in these shards, with their indices.
    pub fn pages_of<'a>(
        &'a self,
        tenant: &'a Tenant,
        shards: &'a BTreeSet<Shard>,
    ) -> impl Iterator<Item = (usize, &'a PageInfo)> {
        let pages = self.groups_of(tenant, shards).flat_map(|group| group.pages.clone());
        pages.map(|page| (page, &self.directory.pages[page]))
    }

    /// Series of a tenant with points in these shards, by shard and id; none in a segment of another signal. One
    /// id comes more than once when its series was sent with different descriptions.
    pub fn series<'a>(
        &'a self,
        tenant: &'a Tenant,
        shards: &'a BTreeSet<Shard>,
    ) -> impl Iterator<Item = &'a Arc<Series>> {
        let all: &[_] = if let Names::Series(series) = &self.names { series } else { &[] };
        self.groups_of(tenant, shards).flat_map(|group| all.get(group.names.clone()).unwrap_or_default())
    }

    /// Streams of a tenant with rows in these shards, by shard; none in a segment of metrics.
    pub fn streams<'a>(
        &'a self,
        tenant: &'a Tenant,
        shards: &'a BTreeSet<Shard>,
    ) -> impl Iterator<Item = &'a Arc<Stream>> {
        let all: &[_] = if let Names::Streams(streams) = &self.names { streams } else { &[] };
        self.groups_of(tenant, shards).flat_map(|group| all.get(group.names.clone()).unwrap_or_default())
    }

    /// Rows of a page, in order.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn page(&self, index: usize) -> Result<Rows, SegmentError> {
        let page = &self.directory.pages[index];
        let section = Section { len: page.bytes, checksum: page.checksum };
        let bytes = read_section(&*self.file()?, &self.path, page.offset, section, "page")?;
        let decode = || {
            let mut reader = Reader::new(&bytes, "page");
            let count = reader.check_count(page.rows)?;
            let rows =
                page::decode(&mut reader, self.directory.signal, &Selection::all(count), self.names.named())?;
            reader.finish()?;
            Ok(rows)
        };
        decode().map_err(SegmentError::damaged(&self.path))
    }

    /// Bytes of the file as it is on disk, at most `len` of them; none at its end.
    pub fn read_file(&self, offset: u64, len: u64) -> Result<Vec<u8>, SegmentError> {
        let end = offset.saturating_add(len).min(self.info.bytes);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        self.file()?.read_exact_at(offset, &mut bytes).map_err(SegmentError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Reads the whole file and compares its checksum: after a copy, and for scrubbing.
    pub fn verify(&self) -> Result<(), SegmentError> {
        let file = self.file()?;
        let end = self.info.bytes - FOOTER_LEN;
        let mut hash = Xxh3::new();
        let mut at = 0;
        while at < end {
            let mut piece = vec![0; (end - at).min(PIECE_BYTES) as usize];
            file.read_exact_at(at, &mut piece).map_err(SegmentError::io("read", &self.path))?;
            hash.update(&piece);
            at += piece.len() as u64;
        }
        if hash.digest() == self.info.checksum {
            Ok(())
        } else {
            Err(SegmentError::damaged(&self.path)(FormatError::Checksum { what: "segment" }))
        }
    }
}

/// The caller has checked that the section lies within the file.
fn read_section(
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    section: Section,
    what: &'static str,
) -> Result<Vec<u8>, SegmentError> {
    let mut bytes = vec![0; section.len as usize];
    file.read_exact_at(offset, &mut bytes).map_err(SegmentError::io("read", path))?;
    if xxh3_64(&bytes) == section.checksum || oteld_env::mutant("page-checksum-unchecked") {
        Ok(bytes)
    } else {
        Err(SegmentError::damaged(path)(FormatError::Checksum { what }))
    }
}
