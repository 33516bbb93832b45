//! The requests whose rows a segment holds: their ids (bytes, 16 big-endian), digests (integers) and shards (bytes:
//! each set as the varints of its first shard and of the differences from shard to shard, so that equal sets are
//! one dictionary entry), sorted by id and digest.

use super::AppliedId;
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers, put_varint};
use crate::entities::collect;
use crate::model::{RequestId, Shard};

pub(super) fn encode(ids: &[AppliedId]) -> Vec<u8> {
    let mut ids: Vec<&AppliedId> = ids.iter().collect();
    ids.sort();
    let requests: Vec<[u8; 16]> = ids.iter().map(|id| id.request.0.to_be_bytes()).collect();
    let sets: Vec<Vec<u8>> = ids.iter().map(|id| encode_shards(&id.shards)).collect();
    let mut out = Vec::new();
    bytes::encode(&mut out, Effort::Small, &requests.iter().map(|id| &id[..]).collect::<Vec<_>>());
    integers::encode_u64(&mut out, Effort::Small, ids.iter().map(|id| id.digest));
    bytes::encode(&mut out, Effort::Small, &sets.iter().map(Vec::as_slice).collect::<Vec<_>>());
    out
}

pub(super) fn decode(bytes: &[u8], count: u64) -> Result<Vec<AppliedId>, FormatError> {
    let mut reader = Reader::new(bytes, "applied ids");
    let count = reader.check_count(count)?;
    let mut requests = bytes::decode_arrays(&mut reader, &Selection::all(count))?.into_iter();
    let mut digests = integers::decode_u64(&mut reader, &Selection::all(count))?.into_iter();
    let mut sets = bytes::decode_with(&mut reader, &Selection::all(count), decode_shards)?.into_iter();
    let ids = collect(&reader, count, || {
        let request = RequestId(u128::from_be_bytes(requests.next()?));
        Some(AppliedId { request, digest: digests.next()?, shards: sets.next()? })
    })?;
    reader.finish()?;
    Ok(ids)
}

fn encode_shards(shards: &[Shard]) -> Vec<u8> {
    assert!(shards.is_sorted(), "the shards of an applied id are sorted");
    let mut out = Vec::new();
    let mut last = 0;
    for shard in shards {
        put_varint(&mut out, u64::from(shard.0 - last));
        last = shard.0;
    }
    out
}

fn decode_shards(bytes: &[u8]) -> Result<Vec<Shard>, FormatError> {
    let mut reader = Reader::new(bytes, "shards of an applied id");
    let mut shards = Vec::new();
    let mut last = 0_u64;
    while reader.remaining() > 0 {
        last = last.saturating_add(reader.varint()?);
        shards.push(Shard(u32::try_from(last).map_err(|_| reader.invalid())?));
    }
    Ok(shards)
}
