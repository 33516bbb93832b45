//! What is left after the power went: everything synced, and any part of the rest.

use super::content::Content;
use super::{Inner, Write};
use crate::Random;

/// Unit in which a torn write is cut, in bytes.
const SECTOR_BYTES: u64 = 512;

impl Inner {
    pub(super) fn crash(&mut self) {
        self.generation += 1;
        self.locks.clear();
        self.faults.clear();
        self.powerless = false;
        for dir in self.dirs.values_mut() {
            let kept = self.random.in_range(0..dir.unsynced.len() as u64 + 1) as usize;
            for change in dir.unsynced.drain(..).take(kept) {
                change.apply(&mut dir.durable);
            }
            dir.current = dir.durable.clone();
        }
        let named: Vec<u64> = self.dirs.values().flat_map(|dir| dir.current.values().copied()).collect();
        self.files.retain(|id, _| named.contains(id));
        for file in self.files.values_mut() {
            for write in std::mem::take(&mut file.unsynced) {
                keep_some(&self.random, &mut file.durable, &write);
            }
            file.current = file.durable.clone();
        }
    }
}

/// Applies an unsynced write as a crash may leave it: not at all, a run of its sectors, or whole.
fn keep_some(random: &Random, durable: &mut Content, write: &Write) {
    match write {
        Write::Len(len) => {
            if random.in_range(0..2) == 0 {
                durable.set_len(*len);
            }
        }
        Write::Bytes { offset, bytes } => {
            let (start, end) = match random.in_range(0..3) {
                0 => return,
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
        }
    }
}
