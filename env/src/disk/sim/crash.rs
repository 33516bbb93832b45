//! What is left after the power went: everything synced, and any part of the rest.

use std::collections::BTreeSet;

use super::content::Content;
use super::{DirState, Inner, NameChange, SimDisk, Write};
use crate::Random;

/// Unit in which a torn write is cut, in bytes.
const SECTOR_BYTES: u64 = 512;

/// What a crash endangered, and what it took: one that found everything synced proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// What was not durable when the power went.
    pub unsynced: Amount,
    /// What of it is gone. Synced bytes of a file whose name is gone count as that name alone.
    pub dropped: Amount,
}

/// An amount of what no sync has made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub bytes: u64,
    /// Writes and changes of a length.
    pub writes: u64,
    /// Creates, renames and removals.
    pub names: u64,
}

impl SimDisk {
    /// What the last [`SimDisk::crash`] endangered and took; nothing before the first.
    pub fn lost(&self) -> Lost {
        self.0.lock().lost
    }

    /// What a crash would endanger now.
    pub fn unsynced(&self) -> Amount {
        self.0.lock().unsynced()
    }
}

impl Inner {
    fn unsynced(&self) -> Amount {
        let reachable = self.reachable();
        let files = self.files.iter().filter(|(id, _)| reachable.contains(id));
        let writes = || files.clone().flat_map(|(_, file)| &file.unsynced);
        Amount {
            bytes: writes().map(Write::bytes).sum(),
            writes: writes().count() as u64,
            names: self.dirs.values().map(|dir| dir.unsynced.len() as u64).sum(),
        }
    }

    /// Files that some crash would leave a name, or that have one now.
    fn reachable(&self) -> BTreeSet<u64> {
        let set = |change: &NameChange| match change {
            NameChange::Set(_, file) | NameChange::Rename { file, .. } => Some(*file),
            NameChange::Remove(_) => None,
        };
        let of_dir = |dir: &'_ DirState| {
            let named = dir.durable.values().chain(dir.current.values()).copied();
            named.chain(dir.unsynced.iter().filter_map(set)).collect::<Vec<u64>>()
        };
        self.dirs.values().flat_map(of_dir).collect()
    }

    pub(super) fn crash(&mut self) {
        let reachable = self.reachable();
        let mut lost = Lost { unsynced: self.unsynced(), dropped: Amount::default() };
        self.generation += 1;
        self.locks.clear();
        self.faults.clear();
        self.points.disarm();
        self.powerless = false;
        for dir in self.dirs.values_mut() {
            let kept = self.random.in_range(0..dir.unsynced.len() as u64 + 1) as usize;
            lost.dropped.names += (dir.unsynced.len() - kept) as u64;
            for change in dir.unsynced.drain(..).take(kept) {
                change.apply(&mut dir.durable);
            }
            dir.current = dir.durable.clone();
        }
        let named: BTreeSet<u64> = self.dirs.values().flat_map(|dir| dir.current.values().copied()).collect();
        self.files.retain(|id, file| {
            let is_named = named.contains(id);
            if !is_named && reachable.contains(id) {
                file.unsynced.iter().for_each(|write| lost.dropped.add(write.bytes()));
            }
            is_named
        });
        for file in self.files.values_mut() {
            for write in std::mem::take(&mut file.unsynced) {
                if let Some(bytes) = keep_some(&self.random, &mut file.durable, &write) {
                    lost.dropped.add(bytes);
                }
            }
            file.current = file.durable.clone();
        }
        self.lost = lost;
    }
}

impl Amount {
    /// A write, of which so many bytes count.
    fn add(&mut self, bytes: u64) {
        self.writes += 1;
        self.bytes += bytes;
    }
}

impl Write {
    fn bytes(&self) -> u64 {
        match self {
            Write::Bytes { bytes, .. } => bytes.len() as u64,
            Write::Len(_) => 0,
        }
    }
}

/// Applies an unsynced write as a crash may leave it: not at all, a run of its sectors, or whole. Gives the bytes that
/// are gone where it is not whole.
fn keep_some(random: &Random, durable: &mut Content, write: &Write) -> Option<u64> {
    match write {
        Write::Len(len) => {
            if random.in_range(0..2) != 0 {
                return Some(0);
            }
            durable.set_len(*len);
            None
        }
        Write::Bytes { offset, bytes } => {
            let (start, end) = match random.in_range(0..3) {
                0 => return Some(bytes.len() as u64),
                1 => (0, bytes.len() as u64),
                _ => {
                    let sectors = (bytes.len() as u64).div_ceil(SECTOR_BYTES);
                    let from = random.in_range(0..sectors + 1) * SECTOR_BYTES;
                    let to = random.in_range(0..sectors + 1) * SECTOR_BYTES;
                    (from.min(to), from.max(to).min(bytes.len() as u64))
                }
            };
            if start < end {
                durable.write(offset + start, &bytes[start as usize..end as usize]);
            }
            let dropped = bytes.len() as u64 - end.saturating_sub(start);
            (dropped > 0).then_some(dropped)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;

    fn amount(bytes: u64, writes: u64, names: u64) -> Amount {
        Amount { bytes, writes, names }
    }

    #[test]
    fn a_crash_tells_what_it_endangered_and_what_it_took() {
        let (mut took_all, mut took_none) = (0, 0);
        for seed in 0..100 {
            let disk = SimDisk::new(Random::from_seed(seed), 1 << 20);
            let (dir, path) = (Path::new("/d"), Path::new("/d/a"));
            disk.create_dir_all(dir).unwrap();
            disk.replace(path, b"durable").unwrap();
            disk.crash();
            assert_eq!(disk.lost(), Lost::default(), "everything was synced");
            disk.open(path, false).unwrap().write_all_at(7, b"!").unwrap();
            disk.open(Path::new("/d/b"), true).unwrap();
            assert_eq!(disk.unsynced(), amount(1, 1, 1));
            disk.crash();
            let Lost { unsynced, dropped } = disk.lost();
            assert_eq!(unsynced, amount(1, 1, 1));
            let is_there = (disk.read(path).unwrap().len() == 8, disk.list(dir).unwrap().len() == 2);
            let gone = (u64::from(!is_there.0), u64::from(!is_there.1));
            assert_eq!(dropped, amount(gone.0, gone.0, gone.1));
            took_all += u64::from(gone == (1, 1));
            took_none += u64::from(gone == (0, 0));
        }
        assert!(took_all > 0 && took_none > 0);
    }

    #[test]
    fn the_power_goes_when_an_armed_point_is_reached_for_the_nth_time() {
        let disk = SimDisk::new(Random::from_seed(1), 1 << 20);
        let (point, other) = ("wal.group_written", "wal.group_synced");
        disk.arm(point, 2);
        disk.reach(point);
        disk.reach(other);
        assert!(!disk.is_powerless());
        disk.reach(point);
        assert!(disk.is_powerless());
        disk.crash();
        disk.reach(point);
        assert!(!disk.is_powerless(), "once");
        assert_eq!(disk.points(), [(point, 3), (other, 1)].into());
    }
}
