//! Where a node's store is, and stores that lost synced data (PROTOCOL, LOSS): each is left where it is and marked,
//! and the next directory begins empty, with a replica id of its own.
//!
//! The directories are `store`, `store-2`, `store-3` and so on in the node's data directory. One that was given up
//! has a file `LOST` that says why; the last one that has none is in use. The mark is the only step, so a crash before
//! or after it is harmless. Nothing is ever deleted: what a lost store held may be all that is left of something, and
//! an operator can bring it back.

use std::io;
use std::path::{Path, PathBuf};

use oteld_env::Disk;
use oteld_store::OpenError;

/// Stores that were given up and are kept; with so many, a further one is not replaced before one is removed.
pub(super) const LOST_MAX: usize = 3;

/// Directories are looked for up to this number.
const NUMBER_MAX: u32 = 64;

/// In the directory of a store that was given up.
const MARK: &str = "LOST";

/// A node's directories of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreDirs {
    /// The one in use, or to be made.
    pub(super) current: PathBuf,
    /// Those that were given up.
    pub(super) lost: Vec<PathBuf>,
}

/// Finds a node's stores in its data directory. Blocks.
///
/// # Errors
/// Those of the disk, and when all numbers are taken.
pub(super) fn find(disk: &dyn Disk, data_dir: &Path) -> io::Result<StoreDirs> {
    let mut lost = Vec::new();
    let mut next = 1;
    for number in 1..=NUMBER_MAX {
        let dir = path(data_dir, number);
        if disk.exists(&dir.join(MARK))? {
            lost.push(dir);
            next = number + 1;
        } else if disk.exists(&dir)? {
            next = number;
        }
    }
    if next > NUMBER_MAX {
        return Err(io::Error::other(format!("there are {NUMBER_MAX} store directories already")));
    }
    Ok(StoreDirs { current: path(data_dir, next), lost })
}

/// Marks a store as given up, durably. Blocks.
///
/// # Errors
/// Those of the disk.
pub(super) fn set_aside(disk: &dyn Disk, dir: &Path, why: &str) -> io::Result<()> {
    let text = format!(
        "{why}\n\nThe node goes on with a new store, as a new replica. This directory is not used any more: it may be \
         removed once the cluster is healthy.\n"
    );
    disk.replace(&dir.join(MARK), text.as_bytes())
}

/// What a store lost so that it may not go on as the replica that it was; none for other errors.
pub(super) fn loss(error: &OpenError) -> Option<String> {
    match error {
        OpenError::Loss { what } => Some(what.clone()),
        OpenError::NoManifest { .. } | OpenError::ManifestDamaged { .. } => Some(error.to_string()),
        _ => None,
    }
}

fn path(data_dir: &Path, number: u32) -> PathBuf {
    data_dir.join(if number == 1 { "store".to_owned() } else { format!("store-{number}") })
}

#[cfg(test)]
mod tests {
    use oteld_env::{Random, SimDisk};

    use super::*;

    #[test]
    fn the_last_store_that_was_not_given_up_is_in_use() {
        let disk = SimDisk::new(Random::from_seed(1), 1 << 20);
        let data = Path::new("/data");
        disk.create_dir_all(data).unwrap();
        let found = |current: &str, lost: &[&str]| StoreDirs {
            current: data.join(current),
            lost: lost.iter().map(|dir| data.join(dir)).collect(),
        };
        assert_eq!(find(&disk, data).unwrap(), found("store", &[]));
        for dir in ["store", "store-2"] {
            disk.create_dir_all(&data.join(dir)).unwrap();
            assert_eq!(find(&disk, data).unwrap().current, data.join(dir));
            set_aside(&disk, &data.join(dir), "a segment is missing").unwrap();
        }
        assert_eq!(find(&disk, data).unwrap(), found("store-3", &["store", "store-2"]));
        disk.crash();
        assert_eq!(find(&disk, data).unwrap(), found("store-3", &["store", "store-2"]));
        disk.remove_file(&data.join("store").join(MARK)).unwrap();
        assert_eq!(find(&disk, data).unwrap(), found("store-3", &["store-2"]), "an earlier one stays unused");
        disk.remove_file(&data.join("store-2").join(MARK)).unwrap();
        assert_eq!(find(&disk, data).unwrap(), found("store-2", &[]));
    }
}
