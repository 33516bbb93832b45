//! Spans.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::value::Attributes;

/// OTLP's `Span`. `parent_span_id` is zero in a root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_span_id: [u8; 8],
    pub trace_state: Arc<str>,
    pub flags: u32,
    pub name: Arc<str>,
    /// OTLP's `SpanKind`, 0 to 5.
    pub kind: u8,
    pub start_time_unix_nano: u64,
    pub end_time_unix_nano: u64,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub events: Vec<SpanEvent>,
    pub dropped_events_count: u32,
    pub links: Vec<SpanLink>,
    pub dropped_links_count: u32,
    pub status_message: Arc<str>,
    /// OTLP's `StatusCode`: 0 unset, 1 ok, 2 error.
    pub status_code: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    pub time_unix_nano: u64,
    pub name: Arc<str>,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub trace_state: Arc<str>,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub flags: u32,
}
