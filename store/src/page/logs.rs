//! Columns of log records: request (bytes, 16 big-endian), ordinal, time, observed time, severity (integers),
//! severity text, event name (bytes), body (mixed values), attributes, dropped count, flags (integers), trace and
//! span ids (bytes).

use std::sync::Arc;

use super::{put_ids, put_numbers, put_strings, put_times};
use crate::attributes;
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers, values};
use crate::entities::collect;
use crate::model::{AnyValue, LogRecord, LogRow, RequestId, Stream};

pub(super) fn encode(out: &mut Vec<u8>, effort: Effort, rows: &[LogRow]) {
    let requests: Vec<[u8; 16]> = rows.iter().map(|row| row.request.0.to_be_bytes()).collect();
    put_ids(out, effort, &requests, |request| request);
    put_numbers(out, effort, rows, |row| row.ordinal);
    put_times(out, effort, rows, |row| row.record.time_unix_nano);
    put_times(out, effort, rows, |row| row.record.observed_time_unix_nano);
    put_numbers(out, effort, rows, |row| row.record.severity_number);
    put_strings(out, effort, rows, |row| &row.record.severity_text);
    put_strings(out, effort, rows, |row| &row.record.event_name);
    let bodies: Vec<&AnyValue> = rows.iter().map(|row| &row.record.body).collect();
    values::encode_mixed(out, effort, &bodies);
    attributes::encode(out, effort, rows.iter().map(|row| &row.record.attributes));
    put_numbers(out, effort, rows, |row| row.record.dropped_attributes_count);
    put_numbers(out, effort, rows, |row| row.record.flags);
    put_ids(out, effort, rows, |row| &row.record.trace_id);
    put_ids(out, effort, rows, |row| &row.record.span_id);
}

pub(super) fn decode(
    reader: &mut Reader<'_>,
    selection: &Selection,
    names: Vec<usize>,
    streams: &[Arc<Stream>],
) -> Result<Vec<LogRow>, FormatError> {
    let mut requests = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut ordinals = integers::decode_as(reader, selection)?.into_iter();
    let mut times = integers::decode_u64(reader, selection)?.into_iter();
    let mut observed = integers::decode_u64(reader, selection)?.into_iter();
    let mut severities = integers::decode_as(reader, selection)?.into_iter();
    let mut severity_texts = bytes::decode_strings(reader, selection)?.into_iter();
    let mut event_names = bytes::decode_strings(reader, selection)?.into_iter();
    let mut bodies = values::decode_mixed(reader, selection)?.into_iter();
    let mut attributes = attributes::decode(reader, selection)?.into_iter();
    let mut dropped = integers::decode_as(reader, selection)?.into_iter();
    let mut flags = integers::decode_as(reader, selection)?.into_iter();
    let mut trace_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut span_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut names = names.into_iter();
    collect(reader, selection.len(), || {
        Some(LogRow {
            stream: streams[names.next()?].clone(),
            request: RequestId(u128::from_be_bytes(requests.next()?)),
            ordinal: ordinals.next()?,
            record: LogRecord {
                time_unix_nano: times.next()?,
                observed_time_unix_nano: observed.next()?,
                severity_number: severities.next()?,
                severity_text: severity_texts.next()?,
                event_name: event_names.next()?,
                body: bodies.next()?,
                attributes: attributes.next()?,
                dropped_attributes_count: dropped.next()?,
                flags: flags.next()?,
                trace_id: trace_ids.next()?,
                span_id: span_ids.next()?,
            },
        })
    })
}
