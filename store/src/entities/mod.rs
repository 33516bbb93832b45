//! What rows come from, in tables: resources, scopes, metrics, series and streams. A batch has a table of one for
//! each definition, a segment one table of each kind.

mod group;

use std::sync::Arc;

pub(crate) use group::{Entities, Owner, SeriesSet, StreamSet};

use crate::attributes;
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers};
use crate::model::identity::{kind_code, kind_from_code};
use crate::model::{Attributes, Metric, Resource, Scope, Series, SeriesId, Stream, StreamId};

/// Appends a table of resources: dropped counts (integers), schema URLs (bytes), attributes.
pub(crate) fn encode_resources(out: &mut Vec<u8>, effort: Effort, resources: &[&Resource]) {
    let dropped = resources.iter().map(|resource| i64::from(resource.dropped_attributes_count));
    integers::encode(out, effort, dropped);
    strings(out, effort, resources, |resource| &resource.schema_url);
    attributes::encode(out, effort, resources.iter().map(|resource| &resource.attributes));
}

/// Reads a table of `count` resources.
pub(crate) fn decode_resources(
    reader: &mut Reader<'_>,
    count: usize,
) -> Result<Vec<Arc<Resource>>, FormatError> {
    let mut dropped = integers::decode_as(reader, &Selection::all(count))?.into_iter();
    let mut schema_urls = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut attributes = attributes::decode(reader, &Selection::all(count))?.into_iter();
    collect(reader, count, || {
        Some(Arc::new(Resource {
            attributes: attributes.next()?,
            dropped_attributes_count: dropped.next()?,
            schema_url: schema_urls.next()?,
        }))
    })
}

/// Appends a table of scopes: names, versions (bytes), dropped counts (integers), schema URLs (bytes),
/// attributes.
pub(crate) fn encode_scopes(out: &mut Vec<u8>, effort: Effort, scopes: &[&Scope]) {
    strings(out, effort, scopes, |scope| &scope.name);
    strings(out, effort, scopes, |scope| &scope.version);
    integers::encode(out, effort, scopes.iter().map(|scope| i64::from(scope.dropped_attributes_count)));
    strings(out, effort, scopes, |scope| &scope.schema_url);
    attributes::encode(out, effort, scopes.iter().map(|scope| &scope.attributes));
}

/// Reads a table of `count` scopes.
pub(crate) fn decode_scopes(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Arc<Scope>>, FormatError> {
    let mut names = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut versions = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut dropped = integers::decode_as(reader, &Selection::all(count))?.into_iter();
    let mut schema_urls = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut attributes = attributes::decode(reader, &Selection::all(count))?.into_iter();
    collect(reader, count, || {
        Some(Arc::new(Scope {
            name: names.next()?,
            version: versions.next()?,
            attributes: attributes.next()?,
            dropped_attributes_count: dropped.next()?,
            schema_url: schema_urls.next()?,
        }))
    })
}

/// Appends a table of metrics: names, units, descriptions (bytes), kinds (integers of the three bytes of
/// [`kind_code`], the first the highest), metadata (attributes).
pub(crate) fn encode_metrics(out: &mut Vec<u8>, effort: Effort, metrics: &[&Metric]) {
    strings(out, effort, metrics, |metric| &metric.name);
    strings(out, effort, metrics, |metric| &metric.unit);
    strings(out, effort, metrics, |metric| &metric.description);
    let kind = |metric: &&Metric| {
        let [kind, monotonic, temporality] = kind_code(metric.kind);
        i64::from(u32::from_be_bytes([0, kind, monotonic, temporality]))
    };
    integers::encode(out, effort, metrics.iter().map(kind));
    attributes::encode(out, effort, metrics.iter().map(|metric| &metric.metadata));
}

/// Reads a table of `count` metrics.
pub(crate) fn decode_metrics(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Arc<Metric>>, FormatError> {
    let mut names = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut units = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut descriptions = bytes::decode_strings(reader, &Selection::all(count))?.into_iter();
    let mut kinds = integers::decode_as::<u32>(reader, &Selection::all(count))?.into_iter();
    let mut metadata = attributes::decode(reader, &Selection::all(count))?.into_iter();
    collect(reader, count, || {
        let [high, kind, monotonic, temporality] = kinds.next()?.to_be_bytes();
        let kind = kind_from_code([kind, monotonic, temporality]).filter(|_| high == 0)?;
        Some(Arc::new(Metric {
            name: names.next()?,
            unit: units.next()?,
            description: descriptions.next()?,
            kind,
            metadata: metadata.next()?,
        }))
    })
}

/// Appends the ids (16 bytes each, big-endian) and attributes of series. Which resource, scope and metric they
/// belong to stands elsewhere.
pub(crate) fn encode_series(out: &mut Vec<u8>, effort: Effort, series: &[&Series]) {
    ids(out, effort, series.iter().map(|series| series.id.0));
    attributes::encode(out, effort, series.iter().map(|series| &series.attributes));
}

/// Reads the ids and attributes of `count` series.
pub(crate) fn decode_series(
    reader: &mut Reader<'_>,
    count: usize,
) -> Result<Vec<(SeriesId, Attributes)>, FormatError> {
    let ids = bytes::decode_arrays(reader, &Selection::all(count))?
        .into_iter()
        .map(|id| SeriesId(u128::from_be_bytes(id)));
    Ok(ids.zip(attributes::decode(reader, &Selection::all(count))?).collect())
}

/// Appends streams: ids (16 bytes each, big-endian), then the index of the resource and of the scope of each
/// (integers).
pub(crate) fn encode_streams(out: &mut Vec<u8>, effort: Effort, streams: &[(&Stream, Owner)]) {
    ids(out, effort, streams.iter().map(|(stream, _)| stream.id.0));
    integers::encode(out, effort, streams.iter().map(|(_, owner)| i64::from(owner.resource)));
    integers::encode(out, effort, streams.iter().map(|(_, owner)| i64::from(owner.scope)));
}

/// Reads `count` streams of these resources and scopes.
pub(crate) fn decode_streams(
    reader: &mut Reader<'_>,
    count: usize,
    resources: &[Arc<Resource>],
    scopes: &[Arc<Scope>],
) -> Result<Vec<Arc<Stream>>, FormatError> {
    let mut ids = bytes::decode_arrays(reader, &Selection::all(count))?.into_iter();
    let mut of_resource =
        integers::decode_indices(reader, &Selection::all(count), resources.len())?.into_iter();
    let mut of_scope = integers::decode_indices(reader, &Selection::all(count), scopes.len())?.into_iter();
    collect(reader, count, || {
        Some(Arc::new(Stream {
            id: StreamId(u128::from_be_bytes(ids.next()?)),
            resource: resources[of_resource.next()?].clone(),
            scope: scopes[of_scope.next()?].clone(),
        }))
    })
}

fn ids(out: &mut Vec<u8>, effort: Effort, ids: impl Iterator<Item = u128>) {
    let ids: Vec<[u8; 16]> = ids.map(u128::to_be_bytes).collect();
    let slices: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
    bytes::encode(out, effort, &slices);
}

fn strings<T>(out: &mut Vec<u8>, effort: Effort, items: &[&T], text: impl Fn(&T) -> &str) {
    let slices: Vec<&[u8]> = items.iter().map(|item| text(item).as_bytes()).collect();
    bytes::encode(out, effort, &slices);
}

/// `count` items, each from the next values of its columns.
pub(crate) fn collect<T>(
    reader: &Reader<'_>,
    count: usize,
    mut item: impl FnMut() -> Option<T>,
) -> Result<Vec<T>, FormatError> {
    (0..count).map(|_| item().ok_or_else(|| reader.invalid())).collect()
}
