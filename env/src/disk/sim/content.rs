//! Bytes of a simulated file: sparse, in blocks that copies share.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const BLOCK_BYTES: u64 = 4096;

type Block = [u8; BLOCK_BYTES as usize];

/// Sparse bytes; what was never written reads as zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the blocks that exist.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for_each_block(offset, into.len(), |block, inside, range| match self.blocks.get(&block) {
            Some(bytes) => into[range.clone()].copy_from_slice(&bytes[inside..inside + range.len()]),
            None => into[range].fill(0),
        });
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for_each_block(offset, bytes.len(), |block, inside, range| {
            let target = self.blocks.entry(block).or_insert_with(|| Arc::new([0; BLOCK_BYTES as usize]));
            Arc::make_mut(target)[inside..inside + range.len()].copy_from_slice(&bytes[range]);
        });
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.retain(|block, _| block * BLOCK_BYTES < len);
            let inside = (len % BLOCK_BYTES) as usize;
            if let Some(last) = self.blocks.get_mut(&(len / BLOCK_BYTES)) {
                Arc::make_mut(last)[inside..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Calls `work(block, offset inside the block, range of the buffer)` for each block that the range touches.
fn for_each_block(offset: u64, len: usize, mut work: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let inside = (at % BLOCK_BYTES) as usize;
        let count = (BLOCK_BYTES as usize - inside).min(len - done);
        work(at / BLOCK_BYTES, inside, done..done + count);
        done += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_reads_as_zero_when_the_file_grows_again() {
        let mut content = Content::default();
        content.write(4090, b"0123456789");
        content.set_len(4095);
        content.set_len(4100);
        let mut read = [0; 10];
        content.read(4090, &mut read).unwrap();
        assert_eq!(&read, b"01234\0\0\0\0\0");
        assert!(content.read(4091, &mut read).is_err());
    }
}
