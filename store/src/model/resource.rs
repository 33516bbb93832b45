//! What telemetry comes from: resources and instrumentation scopes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::identity::StreamId;
use super::value::Attributes;

/// OTLP's `Resource`, with the schema URL of the group that it came in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub schema_url: Arc<str>,
}

/// OTLP's `InstrumentationScope`, with the schema URL of the group that it came in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub schema_url: Arc<str>,
}

/// A resource and a scope: what logs and spans are grouped by.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    pub id: StreamId,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
}
