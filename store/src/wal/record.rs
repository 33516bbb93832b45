//! Records: what a group carries.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::batch::{Definition, Kind};
use crate::model::Shard;
use crate::position::{Prefix, ReplicaId};

const KIND_PARTS: u8 = 1;
const KIND_CURSOR: u8 = 2;
const KIND_DEFINITION: u8 = 3;
/// Kind and body length.
const RECORD_HEADER_BYTES: usize = 8;

/// One record of a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Parts of a batch that were accepted, as indexes into its part list; each takes the next position.
    Parts { batch: Bytes, accepted: Vec<u32> },
    /// The prefix of a peer's log that is durable here.
    Cursor(CursorAdvance),
    /// A definition that later batches of the same file name without carrying it.
    Definition(Arc<Definition>),
}

/// Everything of `shards` in `peer`'s log up to `to` is durable here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CursorAdvance {
    pub peer: ReplicaId,
    pub to: Prefix,
    /// Each with the epoch at which this store came into its set.
    pub shards: Vec<(Shard, u64)>,
}

/// Peer, boot, nonce and n; the count of the shards follows.
const CURSOR_BYTES: usize = 16 + 3 * 8;
/// A shard and its epoch.
const CURSOR_SHARD_BYTES: usize = 4 + 8;

impl Record {
    /// Positions that the record takes.
    pub(crate) fn positions(&self) -> u64 {
        match self {
            Record::Parts { accepted, .. } => accepted.len() as u64,
            Record::Cursor(_) | Record::Definition(_) => 0,
        }
    }

    /// Bytes in a group.
    pub(crate) fn encoded_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_len()
    }

    /// Where the batch's bytes start in the encoded record.
    pub(crate) fn batch_offset(accepted: usize) -> usize {
        RECORD_HEADER_BYTES + 4 + 4 * accepted
    }

    /// Where the definition's bytes start in the encoded record.
    pub(crate) fn definition_offset() -> usize {
        RECORD_HEADER_BYTES + 1
    }

    fn body_len(&self) -> usize {
        match self {
            Record::Parts { batch, accepted } => 4 + 4 * accepted.len() + batch.len(),
            Record::Cursor(cursor) => CURSOR_BYTES + 4 + CURSOR_SHARD_BYTES * cursor.shards.len(),
            Record::Definition(definition) => 1 + definition.bytes.len(),
        }
    }

    /// Appends the record to `out`, without the batch's bytes: they follow verbatim.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Record::Parts { .. } => KIND_PARTS,
            Record::Cursor(_) => KIND_CURSOR,
            Record::Definition(_) => KIND_DEFINITION,
        };
        out.put_slice(&[kind, 0, 0, 0]);
        out.put_u32_le(u32::try_from(self.body_len()).expect("a group is below 4 GiB"));
        match self {
            Record::Parts { accepted, .. } => {
                out.put_u32_le(accepted.len() as u32);
                accepted.iter().for_each(|part| out.put_u32_le(*part));
            }
            Record::Cursor(CursorAdvance { peer, to, shards }) => {
                out.put_u128_le(peer.0);
                out.put_u64_le(to.boot);
                out.put_u64_le(to.nonce);
                out.put_u64_le(to.n);
                out.put_u32_le(shards.len() as u32);
                for (shard, since) in shards {
                    out.put_u32_le(shard.0);
                    out.put_u64_le(*since);
                }
            }
            Record::Definition(definition) => {
                out.put_u8(definition.kind as u8);
                out.put_slice(&definition.bytes);
            }
        }
    }

    /// Takes the next record off a payload whose checksum was right.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(payload: &mut Bytes) -> Result<Record, &'static str> {
        if payload.len() < RECORD_HEADER_BYTES {
            return Err("a record is shorter than its header");
        }
        let kind = payload.get_u8();
        payload.advance(3);
        let len = payload.get_u32_le() as usize;
        if payload.len() < len {
            return Err("a record is longer than its group");
        }
        let mut body = payload.split_to(len);
        match kind {
            KIND_PARTS => {
                let accepted = decode_list(&mut body)?;
                Ok(Record::Parts { batch: body, accepted })
            }
            KIND_CURSOR => {
                if body.len() < CURSOR_BYTES + 4 {
                    return Err("a cursor record is too short");
                }
                let peer = ReplicaId(body.get_u128_le());
                let (boot, nonce, n) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
                let to = Prefix { boot, nonce, n };
                let count = body.get_u32_le() as usize;
                if body.len() / CURSOR_SHARD_BYTES < count {
                    return Err("a cursor record names more shards than it holds");
                }
                let shards = (0..count).map(|_| (Shard(body.get_u32_le()), body.get_u64_le())).collect();
                Ok(Record::Cursor(CursorAdvance { peer, to, shards }))
            }
            KIND_DEFINITION => {
                let kind = body.first().copied().and_then(Kind::from_code);
                let kind = kind.ok_or("a definition record has an unknown kind")?;
                body.advance(1);
                Ok(Record::Definition(Arc::new(Definition::new(kind, body))))
            }
            _ => Err("a record has an unknown kind"),
        }
    }
}

fn decode_list(body: &mut Bytes) -> Result<Vec<u32>, &'static str> {
    if body.len() < 4 {
        return Err("a list is shorter than its count");
    }
    let count = body.get_u32_le() as usize;
    if body.len() / 4 < count {
        return Err("a list is longer than its record");
    }
    Ok((0..count).map(|_| body.get_u32_le()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode_head(&mut out);
        if let Record::Parts { batch, .. } = record {
            out.extend_from_slice(batch);
        }
        out
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let records = [
            Record::Parts { batch: Bytes::from_static(b"batch"), accepted: vec![0, 7] },
            Record::Cursor(CursorAdvance {
                peer: ReplicaId(9),
                to: Prefix { boot: 3, nonce: 8, n: 4 },
                shards: vec![(Shard(1), 6), (Shard(5), 2)],
            }),
            Record::Definition(Arc::new(Definition::new(Kind::Scope, Bytes::from_static(b"scope")))),
        ];
        let mut payload = Vec::new();
        for record in &records {
            let bytes = encode(record);
            assert_eq!(bytes.len(), record.encoded_len());
            payload.extend(bytes);
        }
        let mut payload = Bytes::from(payload);
        let decoded = [(); 3].map(|()| Record::decode(&mut payload).unwrap());
        assert_eq!(decoded, records);
        assert!(payload.is_empty());
    }

    #[test]
    fn a_cut_record_is_an_error_at_every_length() {
        let bytes = encode(&Record::Parts { batch: Bytes::new(), accepted: vec![1, 2] });
        for len in 0..bytes.len() {
            assert!(Record::decode(&mut Bytes::copy_from_slice(&bytes[..len])).is_err(), "{len}");
        }
    }
}
