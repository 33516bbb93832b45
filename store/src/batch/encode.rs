//! Rows to bytes: definitions once a batch, a page for each part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::layout::{Definition, Kind, Layout, Part, definition_hash};
use super::{Batch, Inner, PartRows};
use crate::column::{Effort, put_varint};
use crate::entities::{self, Entities, Owner, SeriesSet, StreamSet};
use crate::model::{MetricRow, Rows, Series, Signal, Stream};
use crate::page;

pub(super) fn encode(signal: Signal, mut parts: Vec<PartRows>) -> Batch {
    parts.sort_by_key(|part| (part.shard, part.request));
    let mut encoder = Encoder::default();
    let mut layout = Layout { signal, definitions: Vec::new(), parts: Vec::with_capacity(parts.len()) };
    let mut pages = Vec::with_capacity(parts.len());
    for part in &parts {
        assert_eq!(part.rows.signal(), signal, "all parts of a batch are of its signal");
        let mut page = Vec::new();
        let definitions = match &part.rows {
            Rows::Metrics(rows) => encoder.metrics(rows, &part.rows, &mut page),
            Rows::Logs(rows) => encoder.streams(rows.iter().map(|row| &row.stream), &part.rows, &mut page),
            Rows::Traces(rows) => encoder.streams(rows.iter().map(|row| &row.stream), &part.rows, &mut page),
        };
        let times = (0..part.rows.len()).map(|row| part.rows.event_time_unix_nano(row));
        layout.parts.push(Part {
            request: part.request,
            digest: part.digest,
            tenant: part.tenant.clone(),
            shard: part.shard,
            epoch: part.epoch,
            rows: u32::try_from(part.rows.len()).expect("a batch is below 4 GiB"),
            min_time_unix_nano: times.clone().min().unwrap_or_default(),
            max_time_unix_nano: times.max().unwrap_or_default(),
            definitions,
            page_len: page.len(),
            page_checksum: xxh3_64(&page),
        });
        pages.push(page);
    }
    layout.definitions = encoder.definitions;
    Batch::build(layout, encoder.bytes.iter().chain(&pages).map(Vec::as_slice))
}

/// The parts' bytes as they are, with the definitions that they name.
pub(super) fn select(from: &Inner, parts: &[usize]) -> Batch {
    let parts: BTreeSet<usize> = parts.iter().copied().collect();
    let needed: BTreeSet<u32> =
        parts.iter().flat_map(|part| from.layout.parts[*part].definitions.iter().copied()).collect();
    let renumbered: BTreeMap<u32, u32> = needed.iter().copied().zip(0..).collect();
    let selected = parts.iter().map(|part| {
        let mut part = from.layout.parts[*part].clone();
        part.definitions.iter_mut().for_each(|index| *index = renumbered[index]);
        part
    });
    let layout = Layout {
        signal: from.layout.signal,
        definitions: needed.iter().map(|index| from.layout.definitions[*index as usize]).collect(),
        parts: selected.collect(),
    };
    let definitions = needed.iter().map(|index| &from.definitions[*index as usize]);
    let ranges = definitions.chain(parts.iter().map(|part| &from.pages[*part]));
    Batch::build(layout, ranges.map(|range| &from.bytes[range.clone()]))
}

/// Definitions so far.
#[derive(Default)]
struct Encoder {
    entities: Entities,
    definitions: Vec<Definition>,
    bytes: Vec<Vec<u8>>,
    by_hash: HashMap<u128, u32>,
    /// The definition of each resource and scope of `entities`, as far as there is one.
    resources: HashMap<u32, u32>,
    scopes: HashMap<u32, u32>,
}

impl Encoder {
    /// The index of a definition.
    fn define(&mut self, kind: Kind, bytes: Vec<u8>) -> u32 {
        let hash = definition_hash(kind, &bytes);
        *self.by_hash.entry(hash).or_insert_with(|| {
            self.definitions.push(Definition { kind, hash, len: bytes.len() });
            self.bytes.push(bytes);
            self.bytes.len() as u32 - 1
        })
    }

    /// Writes a part of metrics and says which definitions it needs. A row names its series by its place in the
    /// part's series lists, one after the other.
    fn metrics(&mut self, rows: &[MetricRow], all: &Rows, page: &mut Vec<u8>) -> Vec<u32> {
        let mut series = SeriesSet::default();
        let mut names: Vec<u32> =
            rows.iter().map(|row| series.index(&row.series, &mut self.entities)).collect();
        let mut list_of: BTreeMap<Owner, usize> = BTreeMap::new();
        let mut lists: Vec<(Owner, Vec<u32>)> = Vec::new();
        for (index, (_, owner)) in series.items.iter().enumerate() {
            let list = *list_of.entry(*owner).or_insert_with(|| {
                lists.push((*owner, Vec::new()));
                lists.len() - 1
            });
            lists[list].1.push(index as u32);
        }
        let mut place = vec![0; series.items.len()];
        for (number, index) in lists.iter().flat_map(|(_, list)| list).enumerate() {
            place[*index as usize] = number as u32;
        }
        names.iter_mut().for_each(|name| *name = place[*name as usize]);
        page::encode(page, Effort::Fast, all, &names);

        let (mut needed, mut seen) = (Vec::new(), BTreeSet::new());
        for (owner, list) in lists {
            let (resource, scope) = self.define_owner(owner);
            let items: Vec<&Series> = list.iter().map(|index| &*series.items[*index as usize].0).collect();
            let mut bytes = Vec::new();
            bytes.extend(self.definitions[resource as usize].hash.to_le_bytes());
            bytes.extend(self.definitions[scope as usize].hash.to_le_bytes());
            bytes.extend_from_slice(&self.entities.metrics.encoded[owner.metric as usize]);
            put_varint(&mut bytes, items.len() as u64);
            entities::encode_series(&mut bytes, Effort::Fast, &items);
            let list = self.define(Kind::SeriesList, bytes);
            needed.extend([resource, scope, list].into_iter().filter(|index| seen.insert(*index)));
        }
        needed
    }

    /// Writes a part of logs or spans: its streams, then its rows. Streams name resources and scopes by their
    /// place among the definitions of that kind that the part needs.
    fn streams<'a>(
        &mut self,
        of_rows: impl Iterator<Item = &'a Arc<Stream>>,
        all: &Rows,
        page: &mut Vec<u8>,
    ) -> Vec<u32> {
        let mut streams = StreamSet::default();
        let names: Vec<u32> = of_rows.map(|stream| streams.index(stream, &mut self.entities)).collect();
        let (mut resources, mut scopes) = (Places::default(), Places::default());
        let mut table = Vec::with_capacity(streams.items.len());
        for (stream, owner) in &streams.items {
            let (resource, scope) = self.define_owner(*owner);
            let owner = Owner { resource: resources.of(resource), scope: scopes.of(scope), metric: 0 };
            table.push((&**stream, owner));
        }
        put_varint(page, table.len() as u64);
        entities::encode_streams(page, Effort::Fast, &table);
        page::encode(page, Effort::Fast, all, &names);
        [resources.order, scopes.order].concat()
    }

    /// The definitions of the resource and the scope.
    fn define_owner(&mut self, owner: Owner) -> (u32, u32) {
        let resource = match self.resources.get(&owner.resource) {
            Some(known) => *known,
            None => {
                let bytes = self.entities.resources.encoded[owner.resource as usize].clone();
                let index = self.define(Kind::Resource, bytes);
                self.resources.insert(owner.resource, index);
                index
            }
        };
        let scope = match self.scopes.get(&owner.scope) {
            Some(known) => *known,
            None => {
                let bytes = self.entities.scopes.encoded[owner.scope as usize].clone();
                let index = self.define(Kind::Scope, bytes);
                self.scopes.insert(owner.scope, index);
                index
            }
        };
        (resource, scope)
    }
}

/// Definitions of one kind that a part needs, in the order in which it named them.
#[derive(Default)]
struct Places {
    order: Vec<u32>,
    place: HashMap<u32, u32>,
}

impl Places {
    fn of(&mut self, definition: u32) -> u32 {
        let order = &mut self.order;
        *self.place.entry(definition).or_insert_with(|| {
            order.push(definition);
            order.len() as u32 - 1
        })
    }
}
