//! Which entities the rows of one batch or segment name, each once.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::{encode_metrics, encode_resources, encode_scopes};
use crate::canonical::attributes_bytes;
use crate::column::Effort;
use crate::model::{Metric, Resource, Scope, Series, SeriesId, Stream, StreamId};

/// The resource, scope and metric of a series, or the resource and scope of a stream (whose metric is 0), by
/// index in [`Entities`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) resource: u32,
    pub(crate) scope: u32,
    pub(crate) metric: u32,
}

/// Entities by content, in the order in which they were first named. Two are one only when every bit is equal:
/// what identities leave out (schema URLs, descriptions, the order of attributes) is kept apart.
#[derive(Debug, Default)]
pub(crate) struct Entities {
    pub(crate) resources: Interned<Resource>,
    pub(crate) scopes: Interned<Scope>,
    pub(crate) metrics: Interned<Metric>,
}

impl Entities {
    pub(crate) fn owner_of_series(&mut self, series: &Series) -> Owner {
        Owner {
            resource: self.resources.index(&series.resource, |resource, out| {
                encode_resources(out, Effort::Fast, &[resource]);
            }),
            scope: self.scopes.index(&series.scope, |scope, out| encode_scopes(out, Effort::Fast, &[scope])),
            metric: self.metrics.index(&series.metric, |metric, out| {
                encode_metrics(out, Effort::Fast, &[metric]);
            }),
        }
    }

    pub(crate) fn owner_of_stream(&mut self, stream: &Stream) -> Owner {
        Owner {
            resource: self.resources.index(&stream.resource, |resource, out| {
                encode_resources(out, Effort::Fast, &[resource]);
            }),
            scope: self.scopes.index(&stream.scope, |scope, out| encode_scopes(out, Effort::Fast, &[scope])),
            metric: 0,
        }
    }
}

/// Items of one kind with their encoded bytes.
#[derive(Debug)]
pub(crate) struct Interned<T> {
    pub(crate) items: Vec<Arc<T>>,
    /// A table of one, as a batch stores it.
    pub(crate) encoded: Vec<Vec<u8>>,
    by_pointer: HashMap<*const T, u32>,
    by_content: HashMap<u128, u32>,
    /// Keeps every item of `by_pointer` alive, so that no pointer comes to mean another.
    held: Vec<Arc<T>>,
    /// The last answer: rows that follow each other mostly name the same.
    last: Option<(Arc<T>, u32)>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned {
            items: Vec::new(),
            encoded: Vec::new(),
            by_pointer: HashMap::new(),
            by_content: HashMap::new(),
            held: Vec::new(),
            last: None,
        }
    }
}

impl<T> Interned<T> {
    fn index(&mut self, item: &Arc<T>, encode: impl FnOnce(&T, &mut Vec<u8>)) -> u32 {
        if let Some((last, index)) = &self.last
            && Arc::ptr_eq(last, item)
        {
            return *index;
        }
        let index = self.find(item, encode);
        self.last = Some((item.clone(), index));
        index
    }

    fn find(&mut self, item: &Arc<T>, encode: impl FnOnce(&T, &mut Vec<u8>)) -> u32 {
        if let Some(index) = self.by_pointer.get(&Arc::as_ptr(item)) {
            return *index;
        }
        let mut bytes = Vec::new();
        encode(item, &mut bytes);
        let index = *self.by_content.entry(xxh3_128(&bytes)).or_insert_with(|| {
            self.items.push(item.clone());
            self.encoded.push(bytes);
            self.items.len() as u32 - 1
        });
        self.by_pointer.insert(Arc::as_ptr(item), index);
        self.held.push(item.clone());
        index
    }
}

/// Series of a part or a shard, each once.
#[derive(Debug, Default)]
pub(crate) struct SeriesSet {
    pub(crate) items: Vec<(Arc<Series>, Owner)>,
    /// The first series of each id.
    by_id: HashMap<SeriesId, u32>,
    /// Further series of an id: those that differ in what the id leaves out.
    further: HashMap<SeriesId, Vec<u32>>,
    /// Series that are equal to an item without being it, and are kept alive here.
    equal: HashMap<*const Series, (Arc<Series>, u32)>,
}

impl SeriesSet {
    pub(crate) fn index(&mut self, series: &Arc<Series>, entities: &mut Entities) -> u32 {
        if let Some(first) = self.by_id.get(&series.id)
            && Arc::ptr_eq(&self.items[*first as usize].0, series)
        {
            return *first;
        }
        if let Some((_, index)) = self.equal.get(&Arc::as_ptr(series)) {
            return *index;
        }
        let owner = entities.owner_of_series(series);
        let next = self.items.len() as u32;
        let first = *self.by_id.entry(series.id).or_insert(next);
        if first == next {
            self.items.push((series.clone(), owner));
            return next;
        }
        let further = self.further.entry(series.id).or_default();
        let bytes = attributes_bytes(&series.attributes);
        let known = std::iter::once(first).chain(further.iter().copied()).find(|index| {
            let (other, other_owner) = &self.items[*index as usize];
            *other_owner == owner && attributes_bytes(&other.attributes) == bytes
        });
        let index = known.unwrap_or_else(|| {
            further.push(next);
            self.items.push((series.clone(), owner));
            next
        });
        self.equal.insert(Arc::as_ptr(series), (series.clone(), index));
        index
    }
}

/// Streams of a part or a shard, each once.
#[derive(Debug, Default)]
pub(crate) struct StreamSet {
    pub(crate) items: Vec<(Arc<Stream>, Owner)>,
    by_pointer: HashMap<*const Stream, u32>,
    by_content: HashMap<(StreamId, Owner), u32>,
    held: Vec<Arc<Stream>>,
    last: Option<(Arc<Stream>, u32)>,
}

impl StreamSet {
    pub(crate) fn index(&mut self, stream: &Arc<Stream>, entities: &mut Entities) -> u32 {
        if let Some((last, index)) = &self.last
            && Arc::ptr_eq(last, stream)
        {
            return *index;
        }
        let index = self.find(stream, entities);
        self.last = Some((stream.clone(), index));
        index
    }

    fn find(&mut self, stream: &Arc<Stream>, entities: &mut Entities) -> u32 {
        if let Some(index) = self.by_pointer.get(&Arc::as_ptr(stream)) {
            return *index;
        }
        let owner = entities.owner_of_stream(stream);
        let items = &mut self.items;
        let index = *self.by_content.entry((stream.id, owner)).or_insert_with(|| {
            items.push((stream.clone(), owner));
            items.len() as u32 - 1
        });
        self.by_pointer.insert(Arc::as_ptr(stream), index);
        self.held.push(stream.clone());
        index
    }
}
