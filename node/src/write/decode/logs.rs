//! Log records (opentelemetry/proto/logs/v1).

use oteld_store::model::{LogRecord, LogRow};

use super::attributes::id;
use super::rejects::Reason;
use super::wire::Reader;
use super::{DecodeError, Decoder};

/// Reads an `ExportLogsServiceRequest`. A row's ordinal counts every record of the request, rejected ones too.
pub(super) fn decode(decoder: &mut Decoder<'_>, mut reader: Reader<'_>) -> Result<Vec<LogRow>, DecodeError> {
    let mut rows = Vec::new();
    let mut ordinal = 0;
    while let Some(key) = reader.key()? {
        if key.number != 1 {
            reader.skip(key)?;
            continue;
        }
        decoder.resource_group(reader.message(key)?, |decoder, origin, items| {
            let stream = origin.stream();
            if ordinal > 0 && oteld_env::mutant("ordinal-restarts-with-each-resource") {
                ordinal = 0;
            }
            for item in items {
                let record = decoder.log_record(item)?;
                if record.effective_time_unix_nano() == 0 {
                    decoder.rejects.add(Reason::LogTime, 1, &record.event_name);
                } else {
                    let row = LogRow { stream: stream.clone(), request: decoder.request, ordinal, record };
                    decoder.push(&mut rows, row)?;
                }
                ordinal += 1;
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

impl Decoder<'_> {
    fn log_record(&mut self, mut reader: Reader<'_>) -> Result<LogRecord, DecodeError> {
        let empty = self.strings.empty.clone();
        let mut record =
            LogRecord { severity_text: empty.clone(), event_name: empty, ..LogRecord::default() };
        let (mut severity, mut trace_id, mut span_id) = (0, Some([0; 16]), Some([0; 8]));
        while let Some(key) = reader.key()? {
            match key.number {
                1 => record.time_unix_nano = reader.fixed64(key)?,
                2 => severity = reader.int32(key)?,
                3 => record.severity_text = self.string(reader.string(key)?)?,
                5 => self.any_value(&mut record.body, reader.message(key)?)?,
                6 => self.key_value(&mut record.attributes, reader.message(key)?)?,
                7 => record.dropped_attributes_count = reader.uint32(key)?,
                8 => record.flags = reader.fixed32(key)?,
                9 => trace_id = id(reader.bytes(key)?),
                10 => span_id = id(reader.bytes(key)?),
                11 => record.observed_time_unix_nano = reader.fixed64(key)?,
                12 => record.event_name = self.string(reader.string(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        let is_known = (0..=24).contains(&severity);
        record.severity_number = if is_known { severity as u8 } else { 0 };
        // The proto's comments: an id that is not valid means that the record belongs to no trace.
        record.trace_id = trace_id.unwrap_or_default();
        record.span_id = span_id.unwrap_or_default();
        for (reason, is_wrong) in [
            (Reason::Severity, !is_known),
            (Reason::ItemTraceId, trace_id.is_none()),
            (Reason::ItemSpanId, span_id.is_none()),
        ] {
            if is_wrong {
                self.rejects.add(reason, 0, &record.event_name);
            }
        }
        Ok(record)
    }
}
