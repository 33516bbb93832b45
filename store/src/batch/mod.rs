//! A batch: the parts of one or more requests in the bytes that travel, land in the WAL and sit in the memtable.
//! docs/format/batch.md has it byte by byte.

mod decode;
mod encode;
mod layout;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

pub use crate::column::FormatError;
use crate::column::Reader;
use crate::model::{RequestId, Rows, Shard, Signal, Tenant};
use decode::Decoded;
use layout::{Layout, definition_hash};

/// Rows of one request that fall in one shard, before encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct PartRows {
    pub request: RequestId,
    /// xxh3 of the request's body, to detect two bodies under one id.
    pub digest: u64,
    pub tenant: Tenant,
    pub shard: Shard,
    /// The shard's epoch that the front saw.
    pub epoch: u64,
    pub rows: Rows,
}

/// What a batch says about a part without decoding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHeader {
    pub request: RequestId,
    pub digest: u64,
    pub tenant: Tenant,
    pub shard: Shard,
    pub epoch: u64,
    /// Which rows of the batch.
    pub rows: Range<u32>,
    /// Least event time; 0 when there are no rows.
    pub min_time_unix_nano: u64,
    /// Greatest event time; 0 when there are no rows.
    pub max_time_unix_nano: u64,
}

/// Encoded parts of one signal, sorted by (shard, request). Cheap to clone.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    layout: Layout,
    /// Where each definition's bytes are.
    definitions: Vec<Range<usize>>,
    /// Where each part's bytes are.
    pages: Vec<Range<usize>>,
    headers: Vec<PartHeader>,
    /// Definitions that were decoded before, so that all rows of a batch share them.
    decoded: Vec<OnceLock<Decoded>>,
}

impl Batch {
    /// Encodes parts, sorted by (shard, request).
    ///
    /// # Panics
    /// When the rows of a part are of another signal, or the batch would be 4 GiB: the front bounds both.
    pub fn encode(signal: Signal, parts: Vec<PartRows>) -> Batch {
        encode::encode(signal, parts)
    }

    /// Takes bytes that may be hostile: magic, version, every checksum and the header's bounds are checked, rows
    /// are not decoded. Allocates no more than a small multiple of the header.
    pub fn parse(bytes: Bytes) -> Result<Batch, FormatError> {
        let (layout, header_len) = Layout::parse(&bytes)?;
        let payload = layout.payload_len().and_then(|len| header_len.checked_add(len));
        if payload != Some(bytes.len()) {
            return Err(FormatError::Truncated { what: "batch" });
        }
        let batch = Batch::assemble(bytes, layout, header_len);
        let inner = &*batch.0;
        for (definition, range) in inner.layout.definitions.iter().zip(&inner.definitions) {
            if definition_hash(definition.kind, &inner.bytes[range.clone()]) != definition.hash {
                return Err(FormatError::Checksum { what: "definition" });
            }
        }
        for (part, range) in inner.layout.parts.iter().zip(&inner.pages) {
            Reader::new(&inner.bytes[range.clone()], "part").check_count(u64::from(part.rows))?;
            if xxh3_64(&inner.bytes[range.clone()]) != part.page_checksum {
                return Err(FormatError::Checksum { what: "part" });
            }
        }
        Ok(batch)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    pub fn signal(&self) -> Signal {
        self.0.layout.signal
    }

    pub fn parts(&self) -> &[PartHeader] {
        &self.0.headers
    }

    /// Rows of all parts.
    pub fn row_count(&self) -> u32 {
        self.0.headers.last().map_or(0, |part| part.rows.end)
    }

    /// Rows of one part, in the order in which they were encoded. Rows of a batch share their resources, scopes
    /// and metrics.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn decode(&self, part: usize) -> Result<Rows, FormatError> {
        decode::decode(&self.0, part)
    }

    /// Rows of each part.
    pub fn decode_all(&self) -> Result<Vec<Rows>, FormatError> {
        (0..self.parts().len()).map(|part| self.decode(part)).collect()
    }

    /// A batch of only these parts, in their order in this one, with the definitions that they need.
    ///
    /// # Errors
    /// `Invalid` when there is no such part.
    pub fn select(&self, parts: &[usize]) -> Result<Batch, FormatError> {
        if parts.iter().any(|part| *part >= self.parts().len()) {
            return Err(FormatError::Invalid { what: "number of a part" });
        }
        Ok(encode::select(&self.0, parts))
    }

    /// The same batch with other epochs. Row bytes and their checksums stay as they are.
    pub fn with_epoch(&self, epoch_of: &dyn Fn(Shard) -> u64) -> Batch {
        let inner = &*self.0;
        let mut layout = inner.layout.clone();
        for part in &mut layout.parts {
            part.epoch = epoch_of(part.shard);
        }
        let payload = inner.definitions.iter().chain(&inner.pages).map(|range| &inner.bytes[range.clone()]);
        Batch::build(layout, payload)
    }

    fn build<'a>(layout: Layout, payload: impl Iterator<Item = &'a [u8]>) -> Batch {
        let mut bytes = layout.encode();
        let header_len = bytes.len();
        payload.for_each(|piece| bytes.extend_from_slice(piece));
        assert!(u32::try_from(bytes.len()).is_ok(), "a batch is below 4 GiB");
        Batch::assemble(bytes.into(), layout, header_len)
    }

    /// `layout` must describe `bytes`.
    fn assemble(bytes: Bytes, layout: Layout, header_len: usize) -> Batch {
        let mut at = header_len;
        let mut place = |len: usize| {
            at += len;
            at - len..at
        };
        let definitions = layout.definitions.iter().map(|definition| place(definition.len)).collect();
        let pages = layout.parts.iter().map(|part| place(part.page_len)).collect();
        let mut row = 0;
        let headers = layout.parts.iter().map(|part| {
            row += part.rows;
            PartHeader {
                request: part.request,
                digest: part.digest,
                tenant: part.tenant.clone(),
                shard: part.shard,
                epoch: part.epoch,
                rows: row - part.rows..row,
                min_time_unix_nano: part.min_time_unix_nano,
                max_time_unix_nano: part.max_time_unix_nano,
            }
        });
        let headers = headers.collect();
        let decoded = layout.definitions.iter().map(|_| OnceLock::new()).collect();
        Batch(Arc::new(Inner { bytes, layout, definitions, pages, headers, decoded }))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("signal", &self.signal())
            .field("bytes", &self.0.bytes.len())
            .field("parts", &self.0.headers)
            .finish()
    }
}

#[cfg(test)]
mod tests;
