//! Log records.

use std::sync::Arc;

use super::value::{AnyValue, Attributes};

/// OTLP's `LogRecord`. Ids are zero where absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// When it happened; 0 where the sender does not know.
    pub time_unix_nano: u64,
    pub observed_time_unix_nano: u64,
    /// OTLP's `SeverityNumber`, 0 to 24.
    pub severity_number: u8,
    pub severity_text: Arc<str>,
    pub event_name: Arc<str>,
    pub body: AnyValue,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub flags: u32,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl LogRecord {
    /// The time that the record is stored and found under: its own, else when it was observed.
    pub fn effective_time_unix_nano(&self) -> u64 {
        if self.time_unix_nano != 0 { self.time_unix_nano } else { self.observed_time_unix_nano }
    }
}
