//! Bits that flip in the files of a node that does not run.

#![allow(clippy::disallowed_methods, reason = "damages files of what is tested, and is part of no node")]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use oteld_env::Random;

/// Flips `bits` bits, each anywhere in the segments and logs among `files`; says how many it flipped.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn flip(random: &Random, files: &[PathBuf], bits: u32) -> io::Result<u64> {
    let mut sizes = Vec::new();
    for path in files.iter().filter(|path| holds_rows(path)) {
        sizes.push((path, std::fs::metadata(path)?.len()));
    }
    let total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    if total == 0 {
        return Ok(0);
    }
    for _ in 0..bits {
        let (mut at, bit) = (random.in_range(0..total), random.in_range(0..8));
        for (path, bytes) in &sizes {
            if at < *bytes {
                let file = OpenOptions::new().read(true).write(true).open(path)?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 1 << bit;
                file.write_all_at(&byte, at)?;
                break;
            }
            at -= bytes;
        }
    }
    Ok(bits.into())
}

fn holds_rows(path: &std::path::Path) -> bool {
    let above = path.parent().and_then(|dir| dir.file_name());
    above.is_some_and(|dir| dir == "segments" || dir == "wal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_flip_where_rows_are_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            ["wal/1", "segments/2", "manifest"].iter().map(|name| dir.path().join(name)).collect();
        for path in &files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [0; 64]).unwrap();
        }
        let ones = |path: &PathBuf| -> u32 {
            std::fs::read(path).unwrap().iter().map(|byte| byte.count_ones()).sum()
        };
        assert_eq!(flip(&Random::from_seed(5), &files, 3).unwrap(), 3);
        assert_eq!((ones(&files[0]) + ones(&files[1]), ones(&files[2])), (3, 0));
        assert_eq!(flip(&Random::from_seed(5), &files[2..], 3).unwrap(), 0);
    }
}
