//! A batch's header: what there is, how long it is, and the checksums.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use crate::column::{FormatError, Reader, put_varint};
use crate::model::{RequestId, Shard, Signal, Tenant};

const MAGIC: [u8; 4] = *b"OTLB";
const VERSION: u8 = 1;
/// Bytes before the checksum.
const PREFIX: usize = 16;
/// Bytes before the header's variable part.
const FIXED: usize = PREFIX + 8;
/// The fewest bytes that a definition and a part take in the header.
const DEFINITION_MIN: usize = 18;
const PART_MIN: usize = 61;

/// What a definition defines; part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Resource = 1,
    Scope = 2,
    SeriesList = 3,
}

/// A definition is named by its content.
pub(super) fn definition_hash(kind: Kind, bytes: &[u8]) -> u128 {
    xxh3_128_with_seed(bytes, kind as u64)
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) kind: Kind,
    pub(super) hash: u128,
    pub(super) len: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) request: RequestId,
    pub(super) digest: u64,
    pub(super) tenant: Tenant,
    pub(super) shard: Shard,
    pub(super) epoch: u64,
    pub(super) rows: u32,
    pub(super) min_time_unix_nano: u64,
    pub(super) max_time_unix_nano: u64,
    /// Indices of the definitions that the part needs.
    pub(super) definitions: Vec<u32>,
    pub(super) page_len: usize,
    pub(super) page_checksum: u64,
}

/// Everything that a header says.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) signal: Signal,
    pub(super) definitions: Vec<Definition>,
    pub(super) parts: Vec<Part>,
}

impl Layout {
    /// Bytes after the header, `None` when they cannot be.
    pub(super) fn payload_len(&self) -> Option<usize> {
        let definitions = self.definitions.iter().map(|definition| definition.len);
        definitions.chain(self.parts.iter().map(|part| part.page_len)).try_fold(0, usize::checked_add)
    }

    /// The header's bytes, checksum included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; FIXED];
        let mut tenants: BTreeMap<&Tenant, usize> = BTreeMap::new();
        for part in &self.parts {
            tenants.insert(&part.tenant, 0);
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
            put_varint(&mut out, definition.len as u64 + 1);
        }
        put_varint(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            part.encode(tenants[&part.tenant], &mut out);
        }
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.signal.code();
        let len = u32::try_from(out.len() - FIXED).expect("a batch is below 4 GiB");
        out[8..12].copy_from_slice(&len.to_le_bytes());
        let checksum = header_checksum(&out[..PREFIX], &out[FIXED..]);
        out[PREFIX..FIXED].copy_from_slice(&checksum.to_le_bytes());
        out
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
        let mut absent = Vec::new();
        for _ in 0..items(&mut reader, DEFINITION_MIN)? {
            let kind = match reader.byte()? {
                1 => Kind::Resource,
                2 => Kind::Scope,
                3 => Kind::SeriesList,
                _ => return Err(reader.invalid()),
            };
            let hash = reader.u128()?;
            match reader.varint()? {
                0 => absent.push(hash),
                more => definitions.push(Definition { kind, hash, len: (more - 1) as usize }),
            }
        }
        if !absent.is_empty() {
            return Err(FormatError::MissingDefinitions(absent));
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut rows = 0_u32;
        for _ in 0..items(&mut reader, PART_MIN)? {
            let part = Part::parse(&mut reader, &tenants, definitions.len())?;
            rows = rows.checked_add(part.rows).ok_or_else(|| reader.invalid())?;
            parts.push(part);
        }
        if !parts.is_sorted_by_key(|part| (part.shard, part.request)) {
            return Err(reader.invalid());
        }
        reader.finish()?;
        Ok(Layout { signal, definitions, parts })
    }
}

impl Part {
    fn encode(&self, tenant: usize, out: &mut Vec<u8>) {
        out.extend(self.request.0.to_le_bytes());
        out.extend(self.digest.to_le_bytes());
        put_varint(out, tenant as u64);
        put_varint(out, u64::from(self.shard.0));
        out.extend(self.epoch.to_le_bytes());
        put_varint(out, u64::from(self.rows));
        out.extend(self.min_time_unix_nano.to_le_bytes());
        out.extend(self.max_time_unix_nano.to_le_bytes());
        put_varint(out, self.definitions.len() as u64);
        self.definitions.iter().for_each(|index| put_varint(out, u64::from(*index)));
        put_varint(out, self.page_len as u64);
        out.extend(self.page_checksum.to_le_bytes());
    }

    fn parse(
        reader: &mut Reader<'_>,
        tenants: &[Tenant],
        definition_count: usize,
    ) -> Result<Self, FormatError> {
        let request = RequestId(reader.u128()?);
        let digest = reader.u64()?;
        let tenant = reader.varint()?;
        let tenant = usize::try_from(tenant).ok().and_then(|index| tenants.get(index)).cloned();
        let tenant = tenant.ok_or_else(|| reader.invalid())?;
        let shard = u32::try_from(reader.varint()?).map_err(|_| reader.invalid())?;
        let epoch = reader.u64()?;
        let rows = u32::try_from(reader.varint()?).map_err(|_| reader.invalid())?;
        let min_time_unix_nano = reader.u64()?;
        let max_time_unix_nano = reader.u64()?;
        let mut definitions = Vec::new();
        for _ in 0..items(reader, 1)? {
            let index = u32::try_from(reader.varint()?).ok();
            let index = index.filter(|index| (*index as usize) < definition_count);
            definitions.push(index.ok_or_else(|| reader.invalid())?);
        }
        let distinct: BTreeSet<&u32> = definitions.iter().collect();
        if distinct.len() < definitions.len() {
            return Err(reader.invalid());
        }
        let page_len = usize::try_from(reader.varint()?).map_err(|_| reader.invalid())?;
        let page_checksum = reader.u64()?;
        Ok(Part {
            request,
            digest,
            tenant,
            shard: Shard(shard),
            epoch,
            rows,
            min_time_unix_nano,
            max_time_unix_nano,
            definitions,
            page_len,
            page_checksum,
        })
    }
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
