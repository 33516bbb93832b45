//! Bytes to rows.

use std::collections::HashMap;
use std::sync::Arc;

use super::Inner;
use super::layout::Kind;
use crate::column::{FormatError, Reader};
use crate::entities::{self, collect};
use crate::model::{Resource, Rows, Scope, Series, Signal};
use crate::page::{self, Named};

/// A definition's content.
#[derive(Clone)]
pub(super) enum Decoded {
    Resource(Arc<Resource>),
    Scope(Arc<Scope>),
    SeriesList(Arc<[Arc<Series>]>),
}

/// A part's definitions by kind, each in the part's order.
#[derive(Default)]
struct Needed {
    resources: Vec<Arc<Resource>>,
    scopes: Vec<Arc<Scope>>,
    resource_of: HashMap<u128, Arc<Resource>>,
    scope_of: HashMap<u128, Arc<Scope>>,
    series: Vec<Arc<Series>>,
}

pub(super) fn decode(batch: &Inner, part: usize) -> Result<Rows, FormatError> {
    let header = &batch.layout.parts[part];
    let signal = batch.layout.signal;
    let needed = needed(batch, part)?;
    let mut reader = Reader::new(&batch.bytes[batch.pages[part].clone()], "part");
    let count = reader.check_count(u64::from(header.rows))?;
    let rows = match signal {
        Signal::Metrics => page::decode(&mut reader, signal, count, Named::Series(&needed.series))?,
        Signal::Logs | Signal::Traces => {
            let streams = reader.count()?;
            let streams = entities::decode_streams(&mut reader, streams, &needed.resources, &needed.scopes)?;
            page::decode(&mut reader, signal, count, Named::Streams(&streams))?
        }
    };
    reader.finish()?;
    Ok(rows)
}

fn needed(batch: &Inner, part: usize) -> Result<Needed, FormatError> {
    let mut needed = Needed::default();
    for index in &batch.layout.parts[part].definitions {
        let index = *index as usize;
        let hash = batch.layout.definitions[index].hash;
        let decoded = match batch.decoded[index].get() {
            Some(decoded) => decoded.clone(),
            None => {
                let decoded = definition(batch, index, &needed)?;
                batch.decoded[index].get_or_init(|| decoded).clone()
            }
        };
        match decoded {
            Decoded::Resource(resource) => {
                needed.resource_of.insert(hash, resource.clone());
                needed.resources.push(resource);
            }
            Decoded::Scope(scope) => {
                needed.scope_of.insert(hash, scope.clone());
                needed.scopes.push(scope);
            }
            Decoded::SeriesList(series) => needed.series.extend(series.iter().cloned()),
        }
    }
    Ok(needed)
}

/// Decodes a definition; those that it names by hash come before it in every part that names it.
fn definition(batch: &Inner, index: usize, before: &Needed) -> Result<Decoded, FormatError> {
    let mut reader = Reader::new(&batch.bytes[batch.definitions[index].clone()], "definition");
    let one = FormatError::Invalid { what: "definition" };
    let decoded = match batch.layout.definitions[index].kind {
        Kind::Resource => Decoded::Resource(entities::decode_resources(&mut reader, 1)?.pop().ok_or(one)?),
        Kind::Scope => Decoded::Scope(entities::decode_scopes(&mut reader, 1)?.pop().ok_or(one)?),
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
            Decoded::SeriesList(series.into())
        }
    };
    reader.finish()?;
    Ok(decoded)
}

fn find<T>(definitions: &HashMap<u128, Arc<T>>, hash: u128) -> Result<Arc<T>, FormatError> {
    definitions.get(&hash).cloned().ok_or(FormatError::Invalid { what: "reference to a definition" })
}
