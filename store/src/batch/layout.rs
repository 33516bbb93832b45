//! A batch's header: what there is, how long it is, and the checksums.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::definition::Kind;
use crate::column::{Effort, FormatError, Reader, Selection, integers, put_varint};
use crate::model::{RequestId, Shard, Signal, Tenant};

const MAGIC: [u8; 4] = *b"OTLB";
const VERSION: u8 = 2;
/// Bytes before the checksum.
const PREFIX: usize = 16;
/// Bytes before the header's variable part.
const FIXED: usize = PREFIX + 8;
/// The fewest bytes that a definition and a request take in the header.
const DEFINITION_MIN: usize = 18;
const REQUEST_MIN: usize = 25;

/// A definition that the batch needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    pub(super) kind: Kind,
    pub(super) hash: u128,
    /// Bytes in the batch; `None` when they are not in it.
    pub(super) len: Option<usize>,
}

/// A request with parts in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) digest: u64,
    pub(super) tenant: Tenant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Index of its request.
    pub(super) request: u32,
    pub(super) shard: Shard,
    pub(super) epoch: u64,
    pub(super) rows: u32,
    pub(super) min_time_unix_nano: u64,
    pub(super) max_time_unix_nano: u64,
}

/// Everything that a header says.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) signal: Signal,
    pub(super) definitions: Vec<Reference>,
    pub(super) requests: Vec<Request>,
    pub(super) parts: Vec<Part>,
    pub(super) body_len: usize,
    pub(super) body_checksum: u64,
}

impl Layout {
    /// Bytes after the header, `None` when they cannot be.
    pub(super) fn payload_len(&self) -> Option<usize> {
        let lengths = self.definitions.iter().filter_map(|definition| definition.len);
        lengths.chain([self.body_len]).try_fold(0, usize::checked_add)
    }

    /// The header's bytes, checksum included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; FIXED];
        let mut tenants: BTreeMap<&Tenant, usize> = BTreeMap::new();
        for request in &self.requests {
            tenants.insert(&request.tenant, 0);
        }
        put_varint(&mut out, tenants.len() as u64);
        for (number, (tenant, index)) in tenants.iter_mut().enumerate() {
            *index = number;
            put_varint(&mut out, tenant.0.len() as u64);
            out.extend_from_slice(tenant.0.as_bytes());
        }
        put_varint(&mut out, self.definitions.len() as u64);
        for definition in &self.definitions {
            out.push(definition.kind as u8);
            out.extend(definition.hash.to_le_bytes());
            put_varint(&mut out, definition.len.map_or(0, |len| len as u64 + 1));
        }
        put_varint(&mut out, self.requests.len() as u64);
        for request in &self.requests {
            out.extend(request.id.0.to_le_bytes());
            out.extend(request.digest.to_le_bytes());
            put_varint(&mut out, tenants[&request.tenant] as u64);
        }
        self.encode_parts(&mut out);
        put_varint(&mut out, self.body_len as u64);
        out.extend(self.body_checksum.to_le_bytes());
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.signal.code();
        let len = u32::try_from(out.len() - FIXED).expect("a batch is below 4 GiB");
        out[8..12].copy_from_slice(&len.to_le_bytes());
        let checksum = header_checksum(&out[..PREFIX], &out[FIXED..]);
        out[PREFIX..FIXED].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn encode_parts(&self, out: &mut Vec<u8>) {
        put_varint(out, self.parts.len() as u64);
        let parts = || self.parts.iter();
        integers::encode(out, Effort::Fast, parts().map(|part| i64::from(part.request)));
        integers::encode(out, Effort::Fast, parts().map(|part| i64::from(part.shard.0)));
        integers::encode_u64(out, Effort::Fast, parts().map(|part| part.epoch));
        integers::encode(out, Effort::Fast, parts().map(|part| i64::from(part.rows)));
        integers::encode_u64(out, Effort::Fast, parts().map(|part| part.min_time_unix_nano));
        let span = |part: &Part| part.max_time_unix_nano.wrapping_sub(part.min_time_unix_nano);
        integers::encode_u64(out, Effort::Fast, parts().map(span));
    }

    /// Reads a header, and says how long it is.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut reader = Reader::new(bytes, "batch");
        let prefix = reader.take(PREFIX)?;
        if prefix[..4] != MAGIC {
            return Err(FormatError::Magic { what: "a batch" });
        }
        if prefix[4] != VERSION {
            return Err(FormatError::Version { what: "batch", version: prefix[4] });
        }
        let signal = Signal::from_code(prefix[5]).ok_or(FormatError::Invalid { what: "signal" })?;
        if prefix[6..8] != [0; 2] || prefix[12..16] != [0; 4] {
            return Err(FormatError::Invalid { what: "reserved bytes of a batch" });
        }
        let checksum = reader.u64()?;
        let len = u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]) as usize;
        let header = reader.take(len)?;
        if header_checksum(prefix, header) != checksum {
            return Err(FormatError::Checksum { what: "batch header" });
        }
        let layout = Layout::parse_variable(signal, Reader::new(header, "batch header"))?;
        Ok((layout, FIXED + len))
    }

    fn parse_variable(signal: Signal, mut reader: Reader<'_>) -> Result<Self, FormatError> {
        let mut tenants = Vec::new();
        for _ in 0..items(&mut reader, 1)? {
            let len = reader.length()?;
            let name = std::str::from_utf8(reader.take(len)?).map_err(|_| reader.invalid())?;
            tenants.push(Tenant::new(name));
        }
        let mut definitions = Vec::new();
        for _ in 0..items(&mut reader, DEFINITION_MIN)? {
            let kind = Kind::from_code(reader.byte()?).ok_or_else(|| reader.invalid())?;
            let hash = reader.u128()?;
            let len = reader.varint()?.checked_sub(1).map(|len| len as usize);
            definitions.push(Reference { kind, hash, len });
        }
        let mut requests = Vec::new();
        for _ in 0..items(&mut reader, REQUEST_MIN)? {
            let (id, digest) = (RequestId(reader.u128()?), reader.u64()?);
            let tenant = usize::try_from(reader.varint()?).ok().and_then(|index| tenants.get(index)).cloned();
            requests.push(Request { id, digest, tenant: tenant.ok_or_else(|| reader.invalid())? });
        }
        let parts = parse_parts(&mut reader, requests.len())?;
        let sorted = parts.is_sorted_by_key(|part| (part.shard, requests[part.request as usize].id));
        let rows = parts.iter().try_fold(0_u32, |rows, part| rows.checked_add(part.rows));
        if !sorted || rows.is_none() {
            return Err(reader.invalid());
        }
        let body_len = usize::try_from(reader.varint()?).map_err(|_| reader.invalid())?;
        let body_checksum = reader.u64()?;
        reader.finish()?;
        Ok(Layout { signal, definitions, requests, parts, body_len, body_checksum })
    }
}

fn parse_parts(reader: &mut Reader<'_>, requests: usize) -> Result<Vec<Part>, FormatError> {
    let all = Selection::all(reader.count()?);
    let mut of_request = integers::decode_indices(reader, &all, requests)?.into_iter();
    let mut shards = integers::decode_as(reader, &all)?.into_iter();
    let mut epochs = integers::decode_u64(reader, &all)?.into_iter();
    let mut rows = integers::decode_as(reader, &all)?.into_iter();
    let mut min_times = integers::decode_u64(reader, &all)?.into_iter();
    let mut spans = integers::decode_u64(reader, &all)?.into_iter();
    crate::entities::collect(reader, all.len(), || {
        let min_time_unix_nano: u64 = min_times.next()?;
        Some(Part {
            request: of_request.next()? as u32,
            shard: Shard(shards.next()?),
            epoch: epochs.next()?,
            rows: rows.next()?,
            min_time_unix_nano,
            max_time_unix_nano: min_time_unix_nano.wrapping_add(spans.next()?),
        })
    })
}

/// A number of items that each take at least `bytes_min`.
fn items(reader: &mut Reader<'_>, bytes_min: usize) -> Result<usize, FormatError> {
    let count = reader.varint()?;
    if count > (reader.remaining() / bytes_min) as u64 {
        return Err(reader.invalid());
    }
    Ok(count as usize)
}

pub(super) fn header_checksum(prefix: &[u8], header: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(prefix);
    hash.update(header);
    hash.digest()
}
