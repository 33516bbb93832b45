//! The checksummed frame around the manifest's fields.

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::xxh3_64;

use super::Manifest;

const MAGIC: &[u8; 8] = b"OTELDMF1";
/// Grows when a reader of the old version would misread the new one.
const VERSION: u32 = 3;
/// Magic, version, reserved, number, payload length.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8;
const CHECKSUM_BYTES: usize = 8;

/// Why a manifest cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    Damaged(String),
    Newer { version: u32 },
}

/// The file of manifest `seq`: header, MessagePack map of named fields, xxh3-64 over both.
pub(crate) fn encode(seq: u64, manifest: &Manifest) -> Vec<u8> {
    let payload = rmp_serde::to_vec_named(manifest).expect("a manifest is plain data in memory");
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len() + CHECKSUM_BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u32_le(0);
    out.put_u64_le(seq);
    out.put_u64_le(payload.len() as u64);
    out.put_slice(&payload);
    let checksum = xxh3_64(&out);
    out.put_u64_le(checksum);
    out
}

/// The manifest of a file that is named `seq`.
pub(crate) fn decode(seq: u64, bytes: &[u8]) -> Result<Manifest, FrameError> {
    let damaged = |what: &str| FrameError::Damaged(what.to_owned());
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(damaged("it is too short"));
    }
    let (framed, mut checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    let (mut header, payload) = framed.split_at(HEADER_BYTES);
    if !header.starts_with(MAGIC) {
        return Err(damaged("it does not start as a manifest"));
    }
    if checksum.get_u64_le() != xxh3_64(framed) {
        return Err(damaged("its checksum is wrong"));
    }
    header.advance(MAGIC.len());
    let version = header.get_u32_le();
    if version > VERSION {
        return Err(FrameError::Newer { version });
    }
    header.advance(4);
    if header.get_u64_le() != seq || header.get_u64_le() != payload.len() as u64 {
        return Err(damaged("its header does not fit its name or its length"));
    }
    rmp_serde::from_slice(payload).map_err(|error| FrameError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::floors::Floors;
    use crate::manifest::{BootRecord, FenceEntry};
    use crate::model::{Shard, Signal, Tenant};
    use crate::position::{Cursor, Position, Prefix, ReplicaId};

    fn floors() -> Floors {
        let own = [(Signal::Logs, [(Tenant::default(), 9)].into())].into();
        Floors { everyone: [(Signal::Traces, 4)].into(), own, version: 3 }
    }

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new(ReplicaId(u128::MAX - 5));
        manifest.cluster = Some(7);
        manifest.boots.insert(1, BootRecord { nonce: 2, end: Some(3) });
        manifest.entries.insert(Shard(4), FenceEntry { epoch: 5, encoded: Bytes::from_static(b"map") });
        let held = Prefix { boot: 2, nonce: 7, n: 3 };
        let cursors = [(Shard(1), Cursor { since: 4, held })].into();
        manifest.cursors.insert(ReplicaId(1 << 100), cursors);
        manifest.raise_floors(&floors());
        manifest.log_start = Position { boot: 1, n: 2 };
        manifest.left.0.insert(Shard(9), 11);
        manifest.lost = Some("a disk".to_owned());
        manifest
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        assert_eq!(decode(6, &encode(6, &manifest())), Ok(manifest()));
    }

    #[test]
    fn damage_and_a_wrong_name_are_seen() {
        let bytes = encode(6, &manifest());
        assert!(decode(7, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(6, &damaged).is_err(), "byte {at}");
            assert!(decode(6, &bytes[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn floors_come_back_and_are_raised_once() {
        let mut manifest = manifest();
        assert_eq!(manifest.all_floors(), floors());
        assert!(!manifest.raise_floors(&floors()));
    }
}
