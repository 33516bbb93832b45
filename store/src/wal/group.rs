//! Headers of WAL files and of the groups in them, byte by byte.

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::xxh3_64;

use super::WalEnd;
use crate::position::{Boot, ReplicaId};

/// Both headers have this length.
pub(crate) const HEADER_BYTES: usize = 96;
const CHECKSUM_AT: usize = HEADER_BYTES - 8;
const FILE_MAGIC: &[u8; 8] = b"OTELDWL1";
pub(crate) const GROUP_MAGIC: &[u8; 8] = b"OTELDWG1";

/// The start of a WAL file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FileHeader {
    pub seq: u64,
    pub replica: ReplicaId,
    pub boot: Boot,
    /// The last position that `boot` gave out before this file; 0 where none.
    pub start_n: u64,
    /// Where the synced part of the file before ended; what lies behind it there never counted.
    pub previous: WalEnd,
}

/// The start of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GroupHeader {
    pub seq: u64,
    /// Where in the file this header is.
    pub offset: u64,
    pub boot: Boot,
    /// Position of the first part of the group.
    pub first_n: u64,
    /// How many positions the group takes.
    pub positions: u32,
    pub records: u32,
    pub payload_len: u64,
    pub payload_checksum: u64,
    /// Where the group before ended; it was synced before this one was written.
    pub previous: WalEnd,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(FILE_MAGIC);
        out.put_u64_le(self.seq);
        out.put_u128_le(self.replica.0);
        out.put_u64_le(self.boot.counter);
        out.put_u64_le(self.boot.nonce);
        out.put_u64_le(self.start_n);
        out.put_u64_le(self.previous.seq);
        out.put_u64_le(self.previous.offset);
        seal(bytes)
    }

    /// The header, where magic and checksum are right.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<FileHeader> {
        let mut fields = check(bytes, FILE_MAGIC)?;
        Some(FileHeader {
            seq: fields.get_u64_le(),
            replica: ReplicaId(fields.get_u128_le()),
            boot: Boot { counter: fields.get_u64_le(), nonce: fields.get_u64_le() },
            start_n: fields.get_u64_le(),
            previous: WalEnd { seq: fields.get_u64_le(), offset: fields.get_u64_le() },
        })
    }
}

impl GroupHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(GROUP_MAGIC);
        out.put_u64_le(self.seq);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.boot.counter);
        out.put_u64_le(self.boot.nonce);
        out.put_u64_le(self.first_n);
        out.put_u32_le(self.positions);
        out.put_u32_le(self.records);
        out.put_u64_le(self.payload_len);
        out.put_u64_le(self.payload_checksum);
        out.put_u64_le(self.previous.seq);
        out.put_u64_le(self.previous.offset);
        seal(bytes)
    }

    /// The header, where magic and checksum are right.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<GroupHeader> {
        let mut fields = check(bytes, GROUP_MAGIC)?;
        Some(GroupHeader {
            seq: fields.get_u64_le(),
            offset: fields.get_u64_le(),
            boot: Boot { counter: fields.get_u64_le(), nonce: fields.get_u64_le() },
            first_n: fields.get_u64_le(),
            positions: fields.get_u32_le(),
            records: fields.get_u32_le(),
            payload_len: fields.get_u64_le(),
            payload_checksum: fields.get_u64_le(),
            previous: WalEnd { seq: fields.get_u64_le(), offset: fields.get_u64_le() },
        })
    }

    /// Where the group ends, or `None` where that is no place in a file.
    pub(crate) fn end(&self) -> Option<u64> {
        self.offset.checked_add(HEADER_BYTES as u64)?.checked_add(self.payload_len)
    }
}

fn seal(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let checksum = xxh3_64(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn check<'a>(bytes: &'a [u8; HEADER_BYTES], magic: &[u8; 8]) -> Option<&'a [u8]> {
    let (fields, checksum) = bytes.split_at(CHECKSUM_AT);
    let valid = fields.starts_with(magic) && checksum == xxh3_64(fields).to_le_bytes();
    valid.then(|| &fields[magic.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_any_flipped_bit_is_seen() {
        let boot = Boot { counter: 4, nonce: 5 };
        let previous = WalEnd { seq: 1, offset: 2 };
        let file = FileHeader { seq: 2, replica: ReplicaId(3), boot, start_n: 6, previous };
        let group = GroupHeader {
            seq: 2,
            offset: 96,
            boot,
            first_n: 7,
            positions: 8,
            records: 9,
            payload_len: 10,
            payload_checksum: 11,
            previous,
        };
        assert_eq!(FileHeader::decode(&file.encode()), Some(file));
        assert_eq!(GroupHeader::decode(&group.encode()), Some(group));
        for bit in 0..HEADER_BYTES * 8 {
            let (mut one, mut other) = (file.encode(), group.encode());
            one[bit / 8] ^= 1 << (bit % 8);
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&one).is_none() && GroupHeader::decode(&other).is_none(), "{bit}");
        }
    }
}
