//! Small files that are replaced whole and never believed unchecked: magic, XXH3 of the rest, the bytes.
//! Calls block.

use std::io;
use std::path::Path;

use oteld_env::Disk;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"otelmet1";
const HEADER: usize = 16;

/// Replaces the file; a crash leaves the old one or the new one.
pub(crate) fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Vec::with_capacity(HEADER + bytes.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&xxh3_64(bytes).to_le_bytes());
    file.extend_from_slice(bytes);
    disk.replace(path, &file)
}

/// The bytes; `None` where there is no file.
///
/// # Errors
/// `InvalidData` when the file is not what was written.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let mut file = disk.read(path)?;
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let Some((header, bytes)) = file.split_at_checked(HEADER) else { return Err(damaged("too short")) };
    if &header[..8] != MAGIC {
        return Err(damaged("wrong magic"));
    }
    if header[8..] != xxh3_64(bytes).to_le_bytes() {
        return Err(damaged("wrong checksum"));
    }
    file.drain(..HEADER);
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use oteld_env::RealDisk;

    use super::*;

    #[test]
    fn a_flipped_bit_is_an_error_not_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, path) = (RealDisk::new(), dir.path().join("file"));
        assert_eq!(read(&disk, &path).expect("reads"), None);
        write(&disk, &path, b"state").expect("writes");
        assert_eq!(read(&disk, &path).expect("reads").as_deref(), Some(&b"state"[..]));
        let mut bytes = disk.read(&path).expect("reads");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        disk.replace(&path, &bytes).expect("writes");
        let error = read(&disk, &path).expect_err("is damaged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
