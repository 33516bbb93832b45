//! A batch: the parts of one or more requests in the bytes that travel, land in the WAL and sit in the memtable.
//! docs/format/batch.md has it byte by byte.

mod definition;
mod encode;
mod layout;
mod decode;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

pub use crate::column::FormatError;
use crate::column::Reader;
use crate::model::{RequestId, Rows, Shard, Signal, Tenant};
use decode::Names;
pub(crate) use definition::{Definition, Kind};
use layout::Layout;

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
    /// One for each of the layout's; `None` where it is not known.
    definitions: Vec<Option<Arc<Definition>>>,
    /// Where the rows are.
    body: Range<usize>,
    headers: Vec<PartHeader>,
    /// Decoded once for all who decode rows.
    names: OnceLock<Names>,
}

impl Inner {
    fn row_count(&self) -> u32 {
        self.headers.last().map_or(0, |part| part.rows.end)
    }
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
    /// are not decoded. Allocates no more than a small multiple of the header. Definitions may be absent.
    pub fn parse(bytes: Bytes) -> Result<Batch, FormatError> {
        let (layout, header_len) = Layout::parse(&bytes)?;
        let payload = layout.payload_len().and_then(|len| header_len.checked_add(len));
        if payload != Some(bytes.len()) {
            return Err(FormatError::Truncated { what: "batch" });
        }
        let mut at = header_len;
        let mut definitions = Vec::with_capacity(layout.definitions.len());
        for reference in &layout.definitions {
            let Some(len) = reference.len else {
                definitions.push(None);
                continue;
            };
            let definition = Definition::new(reference.kind, bytes.slice(at..at + len));
            if definition.hash != reference.hash {
                return Err(FormatError::Checksum { what: "definition" });
            }
            definitions.push(Some(Arc::new(definition)));
            at += len;
        }
        let body = &bytes[at..];
        if xxh3_64(body) != layout.body_checksum && !oteld_env::mutant("torn-tail-taken-as-valid") {
            return Err(FormatError::Checksum { what: "rows of a batch" });
        }
        let batch = Batch::assemble(bytes.clone(), layout, definitions);
        Reader::new(body, "rows of a batch").check_count(u64::from(batch.row_count()))?;
        Ok(batch)
    }

    /// Whether `other` is a clone of this one.
    pub(crate) fn is(&self, other: &Batch) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
        self.0.row_count()
    }

    /// Hashes of the definitions that the rows need.
    pub fn definition_hashes(&self) -> impl Iterator<Item = u128> {
        self.0.layout.definitions.iter().map(|definition| definition.hash)
    }

    /// The bytes of this batch for somebody who knows some of the definitions: without those.
    pub fn bytes_for(&self, knows: &dyn Fn(u128) -> bool) -> Bytes {
        let inner = &*self.0;
        let mut layout = inner.layout.clone();
        layout.definitions.iter_mut().filter(|reference| knows(reference.hash)).for_each(|it| it.len = None);
        if layout.payload_len() == inner.layout.payload_len() {
            return inner.bytes.clone();
        }
        Batch::build(layout, inner.definitions.clone(), &inner.bytes[inner.body.clone()]).bytes().clone()
    }

    /// The batch with the definitions that `find` gives in the place of those that it has, and of those that are
    /// absent. Its bytes stay as they are.
    ///
    /// # Errors
    /// `MissingDefinitions` where one is neither in the bytes nor found.
    pub(crate) fn resolve(
        &self,
        mut find: impl FnMut(u128, Option<&Arc<Definition>>) -> Option<Arc<Definition>>,
    ) -> Result<Batch, FormatError> {
        let inner = &*self.0;
        let mut absent = Vec::new();
        let mut definitions = Vec::with_capacity(inner.definitions.len());
        for (reference, own) in inner.layout.definitions.iter().zip(&inner.definitions) {
            let found = find(reference.hash, own.as_ref()).or_else(|| own.clone());
            let found = found.filter(|found| (found.kind, found.hash) == (reference.kind, reference.hash));
            if found.is_none() {
                absent.push(reference.hash);
            }
            definitions.push(found);
        }
        if !absent.is_empty() {
            return Err(FormatError::MissingDefinitions(absent));
        }
        Ok(Batch::assemble(inner.bytes.clone(), inner.layout.clone(), definitions))
    }

    /// Known definitions whose bytes are not in the batch's.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<Definition>> {
        let references = self.0.layout.definitions.iter().zip(&self.0.definitions);
        references.filter_map(|(reference, known)| known.as_ref().filter(|_| reference.len.is_none()))
    }

    /// Rows of one part, in the order in which they were encoded. Rows of a batch share their resources, scopes
    /// and metrics.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn decode(&self, part: usize) -> Result<Rows, FormatError> {
        self.decode_parts(&[part])
    }

    /// Rows of some parts, one after the other; the others are passed over at little cost.
    ///
    /// # Panics
    /// When there is no such part, or they are not in order.
    pub fn decode_parts(&self, parts: &[usize]) -> Result<Rows, FormatError> {
        let rows = parts.iter().map(|part| self.0.headers[*part].rows.clone());
        decode::decode(&self.0, rows.map(|rows| rows.start as usize..rows.end as usize))
    }

    /// A batch of only these parts, in their order in this one, with all definitions in its bytes.
    ///
    /// # Errors
    /// `Invalid` when there is no such part, and those of decoding.
    pub fn select(&self, parts: &[usize]) -> Result<Batch, FormatError> {
        if parts.iter().any(|part| *part >= self.parts().len()) {
            return Err(FormatError::Invalid { what: "number of a part" });
        }
        let chosen: BTreeSet<usize> = parts.iter().copied().collect();
        if chosen.len() == self.parts().len() {
            return self.with_definitions();
        }
        let rows = chosen.into_iter().map(|part| {
            let PartHeader { request, digest, tenant, shard, epoch, .. } = self.parts()[part].clone();
            Ok(PartRows { request, digest, tenant, shard, epoch, rows: self.decode(part)? })
        });
        Ok(Batch::encode(self.signal(), rows.collect::<Result<_, FormatError>>()?))
    }

    /// The batch with all definitions in its bytes.
    fn with_definitions(&self) -> Result<Batch, FormatError> {
        let inner = &*self.0;
        let mut layout = inner.layout.clone();
        let mut absent = Vec::new();
        for (reference, definition) in layout.definitions.iter_mut().zip(&inner.definitions) {
            match definition {
                Some(definition) => reference.len = Some(definition.bytes.len()),
                None => absent.push(reference.hash),
            }
        }
        if !absent.is_empty() {
            return Err(FormatError::MissingDefinitions(absent));
        }
        if layout.payload_len() == inner.layout.payload_len() {
            return Ok(self.clone());
        }
        Ok(Batch::build(layout, inner.definitions.clone(), &inner.bytes[inner.body.clone()]))
    }

    /// The same batch with other epochs. Definitions and rows stay as they are.
    pub fn with_epoch(&self, epoch_of: &dyn Fn(Shard) -> u64) -> Batch {
        let inner = &*self.0;
        let mut layout = inner.layout.clone();
        for part in &mut layout.parts {
            part.epoch = epoch_of(part.shard);
        }
        Batch::build(layout, inner.definitions.clone(), &inner.bytes[inner.body.clone()])
    }

    /// Writes the definitions that `layout` gives a length, and the body, behind the header.
    fn build(layout: Layout, definitions: Vec<Option<Arc<Definition>>>, body: &[u8]) -> Batch {
        let mut bytes = layout.encode();
        bytes.reserve_exact(layout.payload_len().expect("a batch is below 4 GiB"));
        for (reference, definition) in layout.definitions.iter().zip(&definitions) {
            if reference.len.is_some() {
                let definition = definition.as_ref().expect("what the header gives a length is known");
                bytes.extend_from_slice(&definition.bytes);
            }
        }
        bytes.extend_from_slice(body);
        assert!(u32::try_from(bytes.len()).is_ok(), "a batch is below 4 GiB");
        Batch::assemble(bytes.into(), layout, definitions)
    }

    /// `layout` must describe `bytes`.
    fn assemble(bytes: Bytes, layout: Layout, definitions: Vec<Option<Arc<Definition>>>) -> Batch {
        let body = bytes.len() - layout.body_len..bytes.len();
        let mut row = 0;
        let headers = layout.parts.iter().map(|part| {
            let request = &layout.requests[part.request as usize];
            row += part.rows;
            PartHeader {
                request: request.id,
                digest: request.digest,
                tenant: request.tenant.clone(),
                shard: part.shard,
                epoch: part.epoch,
                rows: row - part.rows..row,
                min_time_unix_nano: part.min_time_unix_nano,
                max_time_unix_nano: part.max_time_unix_nano,
            }
        });
        let headers = headers.collect();
        Batch(Arc::new(Inner { bytes, layout, definitions, body, headers, names: OnceLock::new() }))
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
