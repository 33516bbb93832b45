//! One WAL file on disk: its name, and reading its groups back.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oteld_env::DiskFile;
use xxhash_rust::xxh3::xxh3_64;

use super::WalEnd;
use super::group::{FileHeader, GROUP_MAGIC, GroupHeader, HEADER_BYTES};

/// Path of WAL file `seq`.
pub(crate) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("wal-{seq:020}.log"))
}

/// Number of the WAL file of that name, where it is one.
pub(crate) fn seq_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// A group whose checksums are right. `payload` is its records.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub header: GroupHeader,
    pub payload: Bytes,
}

/// The header of a WAL file, or `None` where it is not one.
pub(crate) fn read_header(file: &dyn DiskFile, seq: u64) -> io::Result<Option<FileHeader>> {
    if file.len()? < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut bytes)?;
    Ok(FileHeader::decode(&bytes).filter(|header| header.seq == seq))
}

/// The group at `offset`, or `None` where there is none that is whole, belongs there and follows `previous`.
pub(crate) fn read_group(
    file: &dyn DiskFile,
    file_header: &FileHeader,
    offset: u64,
    previous: WalEnd,
) -> io::Result<Option<Group>> {
    let Some(header) = read_group_header(file, file_header.seq, offset)? else { return Ok(None) };
    let end = header.end().filter(|end| file.len().is_ok_and(|len| *end <= len));
    if end.is_none() || header.boot != file_header.boot || header.previous != previous {
        return Ok(None);
    }
    let mut payload = vec![0; header.payload_len as usize];
    file.read_exact_at(offset + HEADER_BYTES as u64, &mut payload)?;
    if xxh3_64(&payload) != header.payload_checksum && !oteld_env::mutant("torn-tail-taken-as-valid") {
        return Ok(None);
    }
    Ok(Some(Group { header, payload: payload.into() }))
}

fn read_group_header(file: &dyn DiskFile, seq: u64, offset: u64) -> io::Result<Option<GroupHeader>> {
    if offset.checked_add(HEADER_BYTES as u64).is_none_or(|end| file.len().is_ok_and(|len| end > len)) {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(offset, &mut bytes)?;
    Ok(GroupHeader::decode(&bytes).filter(|header| header.seq == seq && header.offset == offset))
}

/// The first group header behind `from` that `counts`, at any offset. Where it is one that the writer made, its
/// existence proves that everything before it was synced.
pub(crate) fn find_group_behind(
    file: &dyn DiskFile,
    seq: u64,
    from: u64,
    counts: impl Fn(&GroupHeader) -> bool,
) -> io::Result<Option<GroupHeader>> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let len = file.len()?;
    let mut chunk_start = from + 1;
    let mut chunk = Vec::new();
    while chunk_start + HEADER_BYTES as u64 <= len {
        let chunk_len = CHUNK_BYTES.min(len - chunk_start);
        chunk.resize(chunk_len as usize, 0);
        file.read_exact_at(chunk_start, &mut chunk)?;
        for at in find_all(&chunk, GROUP_MAGIC) {
            let header = read_group_header(file, seq, chunk_start + at as u64)?;
            if header.is_some_and(|header| counts(&header)) {
                return Ok(header);
            }
        }
        let overlap = GROUP_MAGIC.len() as u64 - 1;
        chunk_start += chunk_len - overlap.min(chunk_len - 1);
    }
    Ok(None)
}

fn find_all<'a>(bytes: &'a [u8], what: &'a [u8; 8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(what.len()).enumerate().filter(move |(_, window)| window == what).map(|(at, _)| at)
}
