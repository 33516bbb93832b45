//! A segment's definitions: one table of resources, one of scopes, one of metrics, one of series or streams.
//!
//! The number of resources, scopes and metrics (varints), their tables, and then the series (the index of the
//! resource, scope and metric of each as integers, their ids and attributes) or the streams. How many series or
//! streams there are, the directory says.

use std::sync::Arc;

use crate::column::{Effort, FormatError, Reader, Selection, integers, put_varint};
use crate::entities::{self, Entities, Owner, collect};
use crate::model::{Series, Signal, Stream};
use crate::page::Named;

/// Series or streams of a segment, in the order of its rows' shards and tenants.
#[derive(Debug)]
pub(super) enum Names {
    Series(Vec<Arc<Series>>),
    Streams(Vec<Arc<Stream>>),
}

impl Names {
    pub(super) fn named(&self) -> Named<'_> {
        match self {
            Names::Series(series) => Named::Series(series),
            Names::Streams(streams) => Named::Streams(streams),
        }
    }
}

pub(super) fn encode(
    entities: &Entities,
    series: &[(Arc<Series>, Owner)],
    streams: &[(Arc<Stream>, Owner)],
) -> Vec<u8> {
    const SMALL: Effort = Effort::Small;
    let mut out = Vec::new();
    let (resources, scopes, metrics) = (&entities.resources, &entities.scopes, &entities.metrics);
    put_varint(&mut out, resources.items.len() as u64);
    put_varint(&mut out, scopes.items.len() as u64);
    put_varint(&mut out, metrics.items.len() as u64);
    entities::encode_resources(
        &mut out,
        SMALL,
        &resources.items.iter().map(|item| &**item).collect::<Vec<_>>(),
    );
    entities::encode_scopes(&mut out, SMALL, &scopes.items.iter().map(|item| &**item).collect::<Vec<_>>());
    entities::encode_metrics(&mut out, SMALL, &metrics.items.iter().map(|item| &**item).collect::<Vec<_>>());
    integers::encode(&mut out, SMALL, series.iter().map(|(_, owner)| i64::from(owner.resource)));
    integers::encode(&mut out, SMALL, series.iter().map(|(_, owner)| i64::from(owner.scope)));
    integers::encode(&mut out, SMALL, series.iter().map(|(_, owner)| i64::from(owner.metric)));
    let series: Vec<&Series> = series.iter().map(|(series, _)| &**series).collect();
    entities::encode_series(&mut out, SMALL, &series);
    let streams: Vec<(&Stream, Owner)> = streams.iter().map(|(stream, owner)| (&**stream, *owner)).collect();
    entities::encode_streams(&mut out, SMALL, &streams);
    out
}

pub(super) fn decode(bytes: &[u8], signal: Signal, names: usize) -> Result<Names, FormatError> {
    let mut reader = Reader::new(bytes, "definitions");
    let (resources, scopes, metrics) = (reader.count()?, reader.count()?, reader.count()?);
    let resources = entities::decode_resources(&mut reader, resources)?;
    let scopes = entities::decode_scopes(&mut reader, scopes)?;
    let metrics = entities::decode_metrics(&mut reader, metrics)?;
    let names = reader.check_count(names as u64)?;
    let names = if signal == Signal::Metrics {
        let mut of_resource =
            integers::decode_indices(&mut reader, &Selection::all(names), resources.len())?.into_iter();
        let mut of_scope =
            integers::decode_indices(&mut reader, &Selection::all(names), scopes.len())?.into_iter();
        let mut of_metric =
            integers::decode_indices(&mut reader, &Selection::all(names), metrics.len())?.into_iter();
        let mut series = entities::decode_series(&mut reader, names)?.into_iter();
        let series = collect(&reader, names, || {
            let (id, attributes) = series.next()?;
            Some(Arc::new(Series {
                id,
                resource: resources[of_resource.next()?].clone(),
                scope: scopes[of_scope.next()?].clone(),
                metric: metrics[of_metric.next()?].clone(),
                attributes,
            }))
        })?;
        Names::Series(series)
    } else {
        Names::Streams(entities::decode_streams(&mut reader, names, &resources, &scopes)?)
    };
    reader.finish()?;
    Ok(names)
}
