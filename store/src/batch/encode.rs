//! Rows to bytes: definitions once a batch, then columns over the rows of all parts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::definition::{Definition, Kind};
use super::layout::{Layout, Part, Reference, Request};
use super::{Batch, PartRows};
use crate::column::{Effort, put_varint};
use crate::entities::{self, Entities, Owner, SeriesSet, StreamSet};
use crate::model::{MetricRow, RequestId, Rows, Series, Signal, Stream};
use crate::page;

pub(super) fn encode(signal: Signal, mut parts: Vec<PartRows>) -> Batch {
    parts.sort_by_key(|part| (part.shard, part.request));
    let mut encoder = Encoder::default();
    let mut requests = Requests::default();
    let mut headers = Vec::with_capacity(parts.len());
    let mut names = Vec::new();
    let mut all = Rows::new(signal);
    for part in parts {
        assert_eq!(part.rows.signal(), signal, "all parts of a batch are of its signal");
        let times = (0..part.rows.len()).map(|row| part.rows.event_time_unix_nano(row));
        headers.push(Part {
            request: requests.index(&part),
            shard: part.shard,
            epoch: part.epoch,
            rows: u32::try_from(part.rows.len()).expect("a batch is below 4 GiB"),
            min_time_unix_nano: times.clone().min().unwrap_or_default(),
            max_time_unix_nano: times.max().unwrap_or_default(),
        });
        match &part.rows {
            Rows::Metrics(rows) => encoder.name_series(rows, &mut names),
            Rows::Logs(rows) => names.extend(rows.iter().map(|row| encoder.name_stream(&row.stream))),
            Rows::Traces(rows) => names.extend(rows.iter().map(|row| encoder.name_stream(&row.stream))),
        }
        all.append(part.rows);
    }
    let mut body = Vec::new();
    if signal != Signal::Metrics {
        encoder.put_streams(&mut body);
    }
    page::encode(&mut body, Effort::Fast, &all, &names);
    let reference = |definition: &Arc<Definition>| Reference {
        kind: definition.kind,
        hash: definition.hash,
        len: Some(definition.bytes.len()),
    };
    let layout = Layout {
        signal,
        definitions: encoder.definitions.iter().map(reference).collect(),
        requests: requests.items,
        parts: headers,
        body_len: body.len(),
        body_checksum: xxh3_64(&body),
    };
    Batch::build(layout, encoder.definitions.into_iter().map(Some).collect(), &body)
}

/// Requests so far.
#[derive(Default)]
struct Requests {
    items: Vec<Request>,
    known: HashMap<(RequestId, u64), u32>,
}

impl Requests {
    fn index(&mut self, part: &PartRows) -> u32 {
        let items = &mut self.items;
        *self.known.entry((part.request, part.digest)).or_insert_with(|| {
            items.push(Request { id: part.request, digest: part.digest, tenant: part.tenant.clone() });
            items.len() as u32 - 1
        })
    }
}

/// Definitions and streams so far.
#[derive(Default)]
struct Encoder {
    entities: Entities,
    definitions: Vec<Arc<Definition>>,
    by_hash: HashMap<u128, u32>,
    /// The definition of each resource and scope of `entities`, as far as there is one.
    resources: HashMap<u32, u32>,
    scopes: HashMap<u32, u32>,
    /// Series of all lists, and where those of each list begin.
    series: u32,
    list_starts: HashMap<u32, u32>,
    streams: StreamSet,
}

impl Encoder {
    /// The index of a definition.
    fn define(&mut self, kind: Kind, bytes: Vec<u8>) -> u32 {
        let definition = Definition::new(kind, bytes.into());
        *self.by_hash.entry(definition.hash).or_insert_with(|| {
            self.definitions.push(Arc::new(definition));
            self.definitions.len() as u32 - 1
        })
    }

    /// Names the series of a part's rows by their place in the series lists, one after the other. A list has the
    /// part's series of one metric by id, so that an instrument that reports the same series again, in whatever
    /// order, names a list that the replicas know.
    fn name_series(&mut self, rows: &[MetricRow], names: &mut Vec<u32>) {
        let mut series = SeriesSet::default();
        let of_rows: Vec<u32> =
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
        for (owner, mut list) in lists {
            list.sort_by_key(|index| series.items[*index as usize].0.id);
            let items: Vec<&Series> = list.iter().map(|index| &*series.items[*index as usize].0).collect();
            let start = self.define_list(owner, &items);
            for (index, name) in list.into_iter().zip(start..) {
                place[index as usize] = name;
            }
        }
        names.extend(of_rows.into_iter().map(|index| place[index as usize]));
    }

    /// Where the series of a list begin.
    fn define_list(&mut self, owner: Owner, items: &[&Series]) -> u32 {
        let (resource, scope) = self.define_owner(owner);
        let mut bytes = Vec::new();
        bytes.extend(self.definitions[resource as usize].hash.to_le_bytes());
        bytes.extend(self.definitions[scope as usize].hash.to_le_bytes());
        bytes.extend_from_slice(&self.entities.metrics.encoded[owner.metric as usize]);
        put_varint(&mut bytes, items.len() as u64);
        entities::encode_series(&mut bytes, Effort::Fast, items);
        let list = self.define(Kind::SeriesList, bytes);
        *self.list_starts.entry(list).or_insert_with(|| {
            self.series += items.len() as u32;
            self.series - items.len() as u32
        })
    }

    fn name_stream(&mut self, stream: &Arc<Stream>) -> u32 {
        self.streams.index(stream, &mut self.entities)
    }

    /// Writes the streams that rows were named by. They name resources and scopes by their place among the
    /// definitions of that kind.
    fn put_streams(&mut self, body: &mut Vec<u8>) {
        let streams = std::mem::take(&mut self.streams.items);
        for (_, owner) in &streams {
            self.define_owner(*owner);
        }
        let mut place = vec![0; self.definitions.len()];
        for kind in [Kind::Resource, Kind::Scope] {
            let of_kind = self.definitions.iter().enumerate().filter(|(_, of)| of.kind == kind);
            for (number, (index, _)) in of_kind.enumerate() {
                place[index] = number as u32;
            }
        }
        let owner = |owner: &Owner| Owner {
            resource: place[self.resources[&owner.resource] as usize],
            scope: place[self.scopes[&owner.scope] as usize],
            metric: 0,
        };
        let table: Vec<(&Stream, Owner)> =
            streams.iter().map(|(stream, of)| (&**stream, owner(of))).collect();
        put_varint(body, table.len() as u64);
        entities::encode_streams(body, Effort::Fast, &table);
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
