//! A segment's directory and footer: where everything is, and the checksums.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::{Group, PageInfo};
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers, put_varint};
use crate::entities::collect;
use crate::model::{Shard, Signal, Tenant, Window};

const MAGIC: [u8; 4] = *b"OTLS";
const VERSION: u8 = 1;
pub(super) const HEADER_LEN: u64 = 8;
pub(super) const FOOTER_LEN: u64 = 40;

/// The first bytes of a file.
pub(super) fn header(signal: Signal) -> [u8; HEADER_LEN as usize] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, signal.code(), 0, 0]
}

/// A stretch of the file with a checksum of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) len: u64,
    pub(super) checksum: u64,
}

impl Section {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Section { len: bytes.len() as u64, checksum: xxh3_64(bytes) }
    }
}

/// Where everything is. Pages begin after the header; the definitions, the ids, the directory and the footer
/// follow without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) signal: Signal,
    pub(super) window: Window,
    pub(super) definitions: Section,
    pub(super) ids: Section,
    pub(super) id_count: u64,
    pub(super) groups: Vec<Group>,
    pub(super) pages: Vec<PageInfo>,
}

impl Directory {
    /// Where the pages end.
    pub(super) fn pages_end(&self) -> u64 {
        self.pages.last().map_or(HEADER_LEN, |page| page.offset + page.bytes)
    }

    /// Series or streams of all groups.
    pub(super) fn name_count(&self) -> usize {
        self.groups.last().map_or(0, |group| group.names.end)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        const SMALL: Effort = Effort::Small;
        let mut out = vec![self.signal.code()];
        out.extend(self.window.0.to_le_bytes());
        for section in [self.definitions, self.ids] {
            out.extend(section.len.to_le_bytes());
            out.extend(section.checksum.to_le_bytes());
        }
        put_varint(&mut out, self.id_count);

        put_varint(&mut out, self.groups.len() as u64);
        let groups = &self.groups;
        integers::encode(&mut out, SMALL, groups.iter().map(|group| i64::from(group.shard.0)));
        let tenants: Vec<&[u8]> = groups.iter().map(|group| group.tenant.0.as_bytes()).collect();
        bytes::encode(&mut out, SMALL, &tenants);
        integers::encode(&mut out, SMALL, groups.iter().map(|group| group.pages.len() as i64));
        integers::encode(&mut out, SMALL, groups.iter().map(|group| group.names.len() as i64));

        put_varint(&mut out, self.pages.len() as u64);
        let pages = &self.pages;
        integers::encode_u64(&mut out, SMALL, pages.iter().map(|page| page.rows));
        integers::encode_u64(&mut out, SMALL, pages.iter().map(|page| page.bytes));
        integers::encode_u64(&mut out, SMALL, pages.iter().map(|page| page.checksum));
        for id in [|page: &PageInfo| *page.ids.start(), |page: &PageInfo| *page.ids.end()] {
            let ids: Vec<[u8; 16]> = pages.iter().map(|page| id(page).to_be_bytes()).collect();
            bytes::encode(&mut out, SMALL, &ids.iter().map(|id| &id[..]).collect::<Vec<_>>());
        }
        integers::encode_u64(&mut out, SMALL, pages.iter().map(|page| *page.time_unix_nano.start()));
        integers::encode_u64(&mut out, SMALL, pages.iter().map(|page| *page.time_unix_nano.end()));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "directory");
        let signal = Signal::from_code(reader.byte()?).ok_or(FormatError::Invalid { what: "signal" })?;
        let window = Window(reader.u64()?);
        let definitions = Section { len: reader.u64()?, checksum: reader.u64()? };
        let ids = Section { len: reader.u64()?, checksum: reader.u64()? };
        let id_count = reader.varint()?;
        let mut groups = decode_groups(&mut reader)?;
        let mut pages = decode_pages(&mut reader)?;
        reader.finish()?;
        for (number, group) in groups.iter_mut().enumerate() {
            let of_group =
                pages.get_mut(group.pages.clone()).ok_or(FormatError::Invalid { what: "page range" })?;
            for page in of_group {
                page.group = number;
                group.rows = group.rows.saturating_add(page.rows);
            }
        }
        if groups.last().map_or(0, |group| group.pages.end) != pages.len() {
            return Err(FormatError::Invalid { what: "page range" });
        }
        Ok(Directory { signal, window, definitions, ids, id_count, groups, pages })
    }
}

fn decode_groups(reader: &mut Reader<'_>) -> Result<Vec<Group>, FormatError> {
    let count = reader.count()?;
    let mut shards = integers::decode_as(reader, &Selection::all(count))?.into_iter();
    let mut tenants = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut pages = integers::decode_as::<u32>(reader, &Selection::all(count))?.into_iter();
    let mut names = integers::decode_as::<u32>(reader, &Selection::all(count))?.into_iter();
    let (mut page, mut name) = (0, 0);
    collect(reader, count, || {
        Some(Group {
            shard: Shard(shards.next()?),
            tenant: Tenant(tenants.next()?),
            rows: 0,
            pages: next(&mut page, pages.next()? as usize)?,
            names: next(&mut name, names.next()? as usize)?,
        })
    })
}

/// The range of the next `len` items after those before.
fn next(end: &mut usize, len: usize) -> Option<Range<usize>> {
    let start = *end;
    *end = start.checked_add(len)?;
    Some(start..*end)
}

fn decode_pages(reader: &mut Reader<'_>) -> Result<Vec<PageInfo>, FormatError> {
    let count = reader.count()?;
    let mut rows = integers::decode_u64(reader, &Selection::all(count))?.into_iter();
    let mut lengths = integers::decode_u64(reader, &Selection::all(count))?.into_iter();
    let mut checksums = integers::decode_u64(reader, &Selection::all(count))?.into_iter();
    let mut first_ids = bytes::decode_arrays(reader, &Selection::all(count))?.into_iter();
    let mut last_ids = bytes::decode_arrays(reader, &Selection::all(count))?.into_iter();
    let mut first_times = integers::decode_u64(reader, &Selection::all(count))?.into_iter();
    let mut last_times = integers::decode_u64(reader, &Selection::all(count))?.into_iter();
    let mut end = HEADER_LEN;
    collect(reader, count, || {
        let (offset, bytes) = (end, lengths.next()?);
        end = end.checked_add(bytes)?;
        Some(PageInfo {
            group: 0,
            rows: rows.next()?,
            bytes,
            ids: u128::from_be_bytes(first_ids.next()?)..=u128::from_be_bytes(last_ids.next()?),
            time_unix_nano: first_times.next()?..=last_times.next()?,
            offset,
            checksum: checksums.next()?,
        })
    })
}

/// The last bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) directory: Section,
    /// xxh3 of everything before the footer.
    pub(super) file_checksum: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN as usize);
        out.extend(self.directory.len.to_le_bytes());
        out.extend(self.directory.checksum.to_le_bytes());
        out.extend(self.file_checksum.to_le_bytes());
        out.extend([VERSION, 0, 0, 0]);
        out.extend(MAGIC);
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; FOOTER_LEN as usize]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "footer");
        let directory = Section { len: reader.u64()?, checksum: reader.u64()? };
        let file_checksum = reader.u64()?;
        let version: [u8; 4] = reader.array()?;
        if reader.array()? != MAGIC {
            return Err(FormatError::Magic { what: "a segment" });
        }
        if reader.u64()? != xxh3_64(&bytes[..FOOTER_LEN as usize - 8]) {
            return Err(FormatError::Checksum { what: "footer" });
        }
        if version != [VERSION, 0, 0, 0] {
            return Err(FormatError::Version { what: "segment", version: version[0] });
        }
        Ok(Footer { directory, file_checksum })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_directories_are_an_error_or_a_directory(
            bytes: Vec<u8>,
            flips in proptest::collection::vec(any::<(usize, u8)>(), 0..4),
        ) {
            let _ = Directory::decode(&bytes);
            let page = PageInfo {
                group: 0,
                rows: 3,
                bytes: 100,
                ids: 1..=2,
                time_unix_nano: 3..=4,
                offset: HEADER_LEN,
                checksum: 9,
            };
            let group = Group { shard: Shard(1), tenant: Tenant::default(), rows: 3, pages: 0..1, names: 0..2 };
            let directory = Directory {
                signal: Signal::Logs,
                window: Window(7),
                definitions: Section { len: 1, checksum: 2 },
                ids: Section::default(),
                id_count: 0,
                groups: vec![group],
                pages: vec![page],
            };
            let mut bytes = directory.encode();
            prop_assert_eq!(Directory::decode(&bytes)?, directory);
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let _ = Directory::decode(&bytes);
        }
    }
}
