//! Columns of points: time, start, flags (integers), values, number of exemplars (integers), exemplars.

use std::sync::Arc;

use super::{lists, points, put_ids, put_numbers, put_times};
use crate::attributes;
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers};
use crate::entities::collect;
use crate::model::{Exemplar, MetricRow, Point, Series};

pub(super) fn encode(out: &mut Vec<u8>, effort: Effort, rows: &[MetricRow]) {
    put_times(out, effort, rows, |row| row.point.time_unix_nano);
    put_times(out, effort, rows, |row| row.point.start_time_unix_nano);
    put_numbers(out, effort, rows, |row| row.point.flags);
    points::encode(out, effort, rows.iter().map(|row| &row.point.value));
    put_numbers(out, effort, rows, |row| row.point.exemplars.len() as i64);
    let exemplars: Vec<&Exemplar> = rows.iter().flat_map(|row| &row.point.exemplars).collect();
    encode_exemplars(out, effort, &exemplars);
}

pub(super) fn decode(
    reader: &mut Reader<'_>,
    selection: &Selection,
    names: Vec<usize>,
    series: &[Arc<Series>],
) -> Result<Vec<MetricRow>, FormatError> {
    let mut times = integers::decode_u64(reader, selection)?.into_iter();
    let mut starts = integers::decode_u64(reader, selection)?.into_iter();
    let mut flags = integers::decode_as(reader, selection)?.into_iter();
    let mut values = points::decode(reader, selection)?.into_iter();
    let (exemplar_counts, exemplars) = integers::decode_counts(reader, selection)?;
    let exemplars = decode_exemplars(reader, &exemplars)?;
    let mut exemplars = lists(reader, exemplar_counts, exemplars)?;
    let mut names = names.into_iter();
    collect(reader, selection.len(), || {
        Some(MetricRow {
            series: series[names.next()?].clone(),
            point: Point {
                time_unix_nano: times.next()?,
                start_time_unix_nano: starts.next()?,
                flags: flags.next()?,
                value: values.next()?,
                exemplars: exemplars.next()?,
            },
        })
    })
}

/// Time (integers), values, trace and span ids (bytes), filtered attributes.
fn encode_exemplars(out: &mut Vec<u8>, effort: Effort, exemplars: &[&Exemplar]) {
    put_times(out, effort, exemplars, |exemplar| exemplar.time_unix_nano);
    points::encode(out, effort, exemplars.iter().map(|exemplar| &exemplar.value));
    put_ids(out, effort, exemplars, |exemplar| &exemplar.trace_id);
    put_ids(out, effort, exemplars, |exemplar| &exemplar.span_id);
    attributes::encode(out, effort, exemplars.iter().map(|exemplar| &exemplar.filtered_attributes));
}

fn decode_exemplars(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<Exemplar>, FormatError> {
    let mut times = integers::decode_u64(reader, selection)?.into_iter();
    let mut values = points::decode(reader, selection)?.into_iter();
    let mut trace_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut span_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut attributes = attributes::decode(reader, selection)?.into_iter();
    collect(reader, selection.len(), || {
        Some(Exemplar {
            time_unix_nano: times.next()?,
            value: values.next()?,
            trace_id: trace_ids.next()?,
            span_id: span_ids.next()?,
            filtered_attributes: attributes.next()?,
        })
    })
}
