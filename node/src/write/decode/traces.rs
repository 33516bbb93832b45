//! Spans (opentelemetry/proto/trace/v1).

use oteld_store::model::{Span, SpanEvent, SpanLink, SpanRow};

use super::attributes::id;
use super::rejects::Reason;
use super::wire::Reader;
use super::{DecodeError, Decoder};

/// Reads an `ExportTraceServiceRequest`.
pub(super) fn decode(decoder: &mut Decoder<'_>, mut reader: Reader<'_>) -> Result<Vec<SpanRow>, DecodeError> {
    let mut rows = Vec::new();
    while let Some(key) = reader.key()? {
        if key.number != 1 {
            reader.skip(key)?;
            continue;
        }
        decoder.resource_group(reader.message(key)?, |decoder, origin, items| {
            let stream = origin.stream();
            for item in items {
                let (span, reject) = decoder.span(item)?;
                match reject {
                    Some(reason) => decoder.rejects.add(reason, 1, &span.name),
                    None => decoder.push(&mut rows, SpanRow { stream: stream.clone(), span })?,
                }
            }
            Ok(())
        })?;
    }
    if rows.len() > 1 && oteld_env::mutant("spans-half-dropped") {
        rows.truncate(rows.len() / 2);
    }
    Ok(rows)
}

impl Decoder<'_> {
    fn span(&mut self, mut reader: Reader<'_>) -> Result<(Span, Option<Reason>), DecodeError> {
        let empty = self.strings.empty.clone();
        let mut span = Span {
            trace_state: empty.clone(),
            name: empty.clone(),
            status_message: empty,
            ..Span::default()
        };
        let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut invalid_links = 0_u32;
        while let Some(key) = reader.key()? {
            match key.number {
                1 => trace_id = reader.bytes(key)?,
                2 => span_id = reader.bytes(key)?,
                3 => span.trace_state = self.string(reader.string(key)?)?,
                4 => parent_span_id = reader.bytes(key)?,
                5 => span.name = self.string(reader.string(key)?)?,
                6 => span.kind = number_up_to(reader.int32(key)?, 5),
                7 => span.start_time_unix_nano = reader.fixed64(key)?,
                8 => span.end_time_unix_nano = reader.fixed64(key)?,
                9 => self.key_value(&mut span.attributes, reader.message(key)?)?,
                10 => span.dropped_attributes_count = reader.uint32(key)?,
                11 => {
                    let event = self.event(reader.message(key)?)?;
                    self.push(&mut span.events, event)?;
                }
                12 => span.dropped_events_count = reader.uint32(key)?,
                13 => match self.link(reader.message(key)?)? {
                    Some(link) => self.push(&mut span.links, link)?,
                    None => invalid_links = invalid_links.saturating_add(1),
                },
                14 => span.dropped_links_count = reader.uint32(key)?,
                15 => self.status(&mut span, reader.message(key)?)?,
                16 => span.flags = reader.fixed32(key)?,
                _ => reader.skip(key)?,
            }
        }
        span.dropped_links_count = span.dropped_links_count.saturating_add(invalid_links);
        let reject = set_ids(&mut span, trace_id, span_id, parent_span_id);
        Ok((span, reject))
    }

    fn event(&mut self, mut reader: Reader<'_>) -> Result<SpanEvent, DecodeError> {
        let mut event = SpanEvent { name: self.strings.empty.clone(), ..SpanEvent::default() };
        while let Some(key) = reader.key()? {
            match key.number {
                1 => event.time_unix_nano = reader.fixed64(key)?,
                2 => event.name = self.string(reader.string(key)?)?,
                3 => self.key_value(&mut event.attributes, reader.message(key)?)?,
                4 => event.dropped_attributes_count = reader.uint32(key)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(event)
    }

    /// A link; `None` when an id has a wrong length, which its span counts as a dropped link.
    fn link(&mut self, mut reader: Reader<'_>) -> Result<Option<SpanLink>, DecodeError> {
        let mut link = SpanLink { trace_state: self.strings.empty.clone(), ..SpanLink::default() };
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        while let Some(key) = reader.key()? {
            match key.number {
                1 => trace_id = reader.bytes(key)?,
                2 => span_id = reader.bytes(key)?,
                3 => link.trace_state = self.string(reader.string(key)?)?,
                4 => self.key_value(&mut link.attributes, reader.message(key)?)?,
                5 => link.dropped_attributes_count = reader.uint32(key)?,
                6 => link.flags = reader.fixed32(key)?,
                _ => reader.skip(key)?,
            }
        }
        let (Some(trace_id), Some(span_id)) = (id(trace_id), id(span_id)) else { return Ok(None) };
        Ok(Some(SpanLink { trace_id, span_id, ..link }))
    }

    fn status(&mut self, span: &mut Span, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                2 => span.status_message = self.string(reader.string(key)?)?,
                3 => span.status_code = number_up_to(reader.int32(key)?, 2),
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }
}

/// Sets the ids, or says why the span cannot be kept.
fn set_ids(span: &mut Span, trace_id: &[u8], span_id: &[u8], parent_span_id: &[u8]) -> Option<Reason> {
    let Some(trace_id) = id(trace_id).filter(|id| *id != [0; 16]) else { return Some(Reason::TraceId) };
    let Some(span_id) = id(span_id).filter(|id| *id != [0; 8]) else { return Some(Reason::SpanId) };
    let Some(parent_span_id) = id(parent_span_id) else { return Some(Reason::ParentSpanId) };
    (span.trace_id, span.span_id, span.parent_span_id) = (trace_id, span_id, parent_span_id);
    (span.start_time_unix_nano == 0).then_some(Reason::SpanTime)
}

fn number_up_to(number: i32, max: u8) -> u8 {
    u8::try_from(number).ok().filter(|number| *number <= max).unwrap_or(0)
}
