//! What rows come from, named by its content: once it is known to a store, a batch need not carry it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::column::{FormatError, Reader};
use crate::entities::{self, collect};
use crate::model::{Resource, Scope, Series};

/// What a definition defines; part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Resource = 1,
    Scope = 2,
    SeriesList = 3,
}

impl Kind {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Kind::Resource),
            2 => Some(Kind::Scope),
            3 => Some(Kind::SeriesList),
            _ => None,
        }
    }
}

/// A resource, a scope, or the series of one metric of both. Batches that name it share it.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) kind: Kind,
    pub(crate) hash: u128,
    pub(crate) bytes: Bytes,
    content: OnceLock<Content>,
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.hash) == (other.kind, other.hash)
    }
}

#[derive(Clone, Debug)]
enum Content {
    Resource(Arc<Resource>),
    Scope(Arc<Scope>),
    SeriesList(Arc<[Arc<Series>]>),
}

impl Definition {
    /// Names bytes.
    pub(crate) fn new(kind: Kind, bytes: Bytes) -> Self {
        Definition { kind, hash: xxh3_128_with_seed(&bytes, kind as u64), bytes, content: OnceLock::new() }
    }

    /// A copy whose bytes keep nothing else in memory.
    pub(crate) fn detached(&self) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        Definition { kind: self.kind, hash: self.hash, bytes, content: self.content.clone() }
    }

    /// Decodes it, once for all who share it. Those that it names come before it in every batch.
    fn content(&self, before: &Contents) -> Result<Content, FormatError> {
        match self.content.get() {
            Some(content) => Ok(content.clone()),
            None => {
                let content = self.decode(before)?;
                Ok(self.content.get_or_init(|| content).clone())
            }
        }
    }

    fn decode(&self, before: &Contents) -> Result<Content, FormatError> {
        let mut reader = Reader::new(&self.bytes, "definition");
        let one = FormatError::Invalid { what: "definition" };
        let content = match self.kind {
            Kind::Resource => {
                Content::Resource(entities::decode_resources(&mut reader, 1)?.pop().ok_or(one)?)
            }
            Kind::Scope => Content::Scope(entities::decode_scopes(&mut reader, 1)?.pop().ok_or(one)?),
            Kind::SeriesList => {
                let resource = find(&before.resource_of, reader.u128()?)?;
                let scope = find(&before.scope_of, reader.u128()?)?;
                let metric = entities::decode_metrics(&mut reader, 1)?.pop().ok_or(one)?;
                let count = reader.count()?;
                let mut series = entities::decode_series(&mut reader, count)?.into_iter();
                let series = collect(&reader, count, || {
                    let (id, attributes) = series.next()?;
                    let (resource, scope, metric) = (resource.clone(), scope.clone(), metric.clone());
                    Some(Arc::new(Series { id, resource, scope, metric, attributes }))
                })?;
                Content::SeriesList(series.into())
            }
        };
        reader.finish()?;
        Ok(content)
    }
}

fn find<T>(definitions: &HashMap<u128, Arc<T>>, hash: u128) -> Result<Arc<T>, FormatError> {
    definitions.get(&hash).cloned().ok_or(FormatError::Invalid { what: "reference to a definition" })
}

/// The decoded definitions of a batch by kind, each in the batch's order.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) scopes: Vec<Arc<Scope>>,
    /// Those of all lists, one after the other.
    pub(super) series: Vec<Arc<Series>>,
    resource_of: HashMap<u128, Arc<Resource>>,
    scope_of: HashMap<u128, Arc<Scope>>,
}

impl Contents {
    pub(super) fn add(&mut self, definition: &Definition) -> Result<(), FormatError> {
        match definition.content(self)? {
            Content::Resource(resource) => {
                self.resource_of.insert(definition.hash, resource.clone());
                self.resources.push(resource);
            }
            Content::Scope(scope) => {
                self.scope_of.insert(definition.hash, scope.clone());
                self.scopes.push(scope);
            }
            Content::SeriesList(series) => self.series.extend(series.iter().cloned()),
        }
        Ok(())
    }
}
