//! Columns of spans: trace, span and parent ids, trace state (bytes), flags (integers), name (bytes), kind, start,
//! duration (integers: end minus start, wrapping), attributes, dropped count (integers), status message (bytes),
//! status code, number of events, dropped events, number of links, dropped links (integers), events, links.

use std::sync::Arc;

use super::{lists, put_ids, put_numbers, put_strings, put_times};
use crate::attributes;
use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers};
use crate::entities::collect;
use crate::model::{Span, SpanEvent, SpanLink, SpanRow, Stream};

pub(super) fn encode(out: &mut Vec<u8>, effort: Effort, rows: &[SpanRow]) {
    put_ids(out, effort, rows, |row| &row.span.trace_id);
    put_ids(out, effort, rows, |row| &row.span.span_id);
    put_ids(out, effort, rows, |row| &row.span.parent_span_id);
    put_strings(out, effort, rows, |row| &row.span.trace_state);
    put_numbers(out, effort, rows, |row| row.span.flags);
    put_strings(out, effort, rows, |row| &row.span.name);
    put_numbers(out, effort, rows, |row| row.span.kind);
    put_times(out, effort, rows, |row| row.span.start_time_unix_nano);
    put_times(out, effort, rows, |row| {
        row.span.end_time_unix_nano.wrapping_sub(row.span.start_time_unix_nano)
    });
    attributes::encode(out, effort, rows.iter().map(|row| &row.span.attributes));
    put_numbers(out, effort, rows, |row| row.span.dropped_attributes_count);
    put_strings(out, effort, rows, |row| &row.span.status_message);
    put_numbers(out, effort, rows, |row| row.span.status_code);
    put_numbers(out, effort, rows, |row| row.span.events.len() as i64);
    put_numbers(out, effort, rows, |row| row.span.dropped_events_count);
    put_numbers(out, effort, rows, |row| row.span.links.len() as i64);
    put_numbers(out, effort, rows, |row| row.span.dropped_links_count);
    let events: Vec<&SpanEvent> = rows.iter().flat_map(|row| &row.span.events).collect();
    encode_events(out, effort, &events);
    let links: Vec<&SpanLink> = rows.iter().flat_map(|row| &row.span.links).collect();
    encode_links(out, effort, &links);
}

pub(super) fn decode(
    reader: &mut Reader<'_>,
    selection: &Selection,
    names: Vec<usize>,
    streams: &[Arc<Stream>],
) -> Result<Vec<SpanRow>, FormatError> {
    let mut trace_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut span_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut parents = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut trace_states = bytes::decode_strings(reader, selection)?.into_iter();
    let mut flags = integers::decode_as(reader, selection)?.into_iter();
    let mut span_names = bytes::decode_strings(reader, selection)?.into_iter();
    let mut kinds = integers::decode_as(reader, selection)?.into_iter();
    let mut starts = integers::decode_u64(reader, selection)?.into_iter();
    let mut durations = integers::decode_u64(reader, selection)?.into_iter();
    let mut attributes = attributes::decode(reader, selection)?.into_iter();
    let mut dropped = integers::decode_as(reader, selection)?.into_iter();
    let mut status_messages = bytes::decode_strings(reader, selection)?.into_iter();
    let mut status_codes = integers::decode_as(reader, selection)?.into_iter();
    let (event_counts, events) = integers::decode_counts(reader, selection)?;
    let mut dropped_events = integers::decode_as(reader, selection)?.into_iter();
    let (link_counts, links) = integers::decode_counts(reader, selection)?;
    let mut dropped_links = integers::decode_as(reader, selection)?.into_iter();
    let events = decode_events(reader, &events)?;
    let mut events = lists(reader, event_counts, events)?;
    let links = decode_links(reader, &links)?;
    let mut links = lists(reader, link_counts, links)?;
    let mut names = names.into_iter();
    collect(reader, selection.len(), || {
        let stream = streams[names.next()?].clone();
        let start_time_unix_nano: u64 = starts.next()?;
        let span = Span {
            trace_id: trace_ids.next()?,
            span_id: span_ids.next()?,
            parent_span_id: parents.next()?,
            trace_state: trace_states.next()?,
            flags: flags.next()?,
            name: span_names.next()?,
            kind: kinds.next()?,
            start_time_unix_nano,
            end_time_unix_nano: start_time_unix_nano.wrapping_add(durations.next()?),
            attributes: attributes.next()?,
            dropped_attributes_count: dropped.next()?,
            events: events.next()?,
            dropped_events_count: dropped_events.next()?,
            links: links.next()?,
            dropped_links_count: dropped_links.next()?,
            status_message: status_messages.next()?,
            status_code: status_codes.next()?,
        };
        Some(SpanRow { stream, span })
    })
}

/// Time (integers), name (bytes), attributes, dropped count (integers).
fn encode_events(out: &mut Vec<u8>, effort: Effort, events: &[&SpanEvent]) {
    put_times(out, effort, events, |event| event.time_unix_nano);
    put_strings(out, effort, events, |event| &event.name);
    attributes::encode(out, effort, events.iter().map(|event| &event.attributes));
    put_numbers(out, effort, events, |event| event.dropped_attributes_count);
}

fn decode_events(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<SpanEvent>, FormatError> {
    let mut times = integers::decode_u64(reader, selection)?.into_iter();
    let mut names = bytes::decode_strings(reader, selection)?.into_iter();
    let mut attributes = attributes::decode(reader, selection)?.into_iter();
    let mut dropped = integers::decode_as(reader, selection)?.into_iter();
    collect(reader, selection.len(), || {
        Some(SpanEvent {
            time_unix_nano: times.next()?,
            name: names.next()?,
            attributes: attributes.next()?,
            dropped_attributes_count: dropped.next()?,
        })
    })
}

/// Trace and span ids, trace state (bytes), attributes, dropped count, flags (integers).
fn encode_links(out: &mut Vec<u8>, effort: Effort, links: &[&SpanLink]) {
    put_ids(out, effort, links, |link| &link.trace_id);
    put_ids(out, effort, links, |link| &link.span_id);
    put_strings(out, effort, links, |link| &link.trace_state);
    attributes::encode(out, effort, links.iter().map(|link| &link.attributes));
    put_numbers(out, effort, links, |link| link.dropped_attributes_count);
    put_numbers(out, effort, links, |link| link.flags);
}

fn decode_links(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<SpanLink>, FormatError> {
    let mut trace_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut span_ids = bytes::decode_arrays(reader, selection)?.into_iter();
    let mut trace_states = bytes::decode_strings(reader, selection)?.into_iter();
    let mut attributes = attributes::decode(reader, selection)?.into_iter();
    let mut dropped = integers::decode_as(reader, selection)?.into_iter();
    let mut flags = integers::decode_as(reader, selection)?.into_iter();
    collect(reader, selection.len(), || {
        Some(SpanLink {
            trace_id: trace_ids.next()?,
            span_id: span_ids.next()?,
            trace_state: trace_states.next()?,
            attributes: attributes.next()?,
            dropped_attributes_count: dropped.next()?,
            flags: flags.next()?,
        })
    })
}
