//! The telemetry data model as the store sees it: OpenTelemetry's, independent of OTLP's wire format.
//!
//! Names and meanings follow the OpenTelemetry protocol definitions (opentelemetry-proto 1.x). Times are
//! nanoseconds since the Unix epoch.

pub mod identity;
pub mod log;
pub mod metric;
pub mod resource;
pub mod rows;
pub mod sample;
pub mod span;
pub mod value;

pub use identity::{RequestId, SeriesId, Shard, Signal, Split, StreamId, Tenant, Window};
pub use log::LogRecord;
pub use metric::{
    Exemplar, ExponentialBuckets, ExponentialHistogram, Histogram, Metric, MetricKind, Point, PointValue,
    Quantile, Series, Summary, Temporality,
};
pub use resource::{Resource, Scope, Stream};
pub use rows::{LogRow, MetricRow, Rows, SpanRow};
pub use span::{Span, SpanEvent, SpanLink};
pub use value::{AnyValue, Attributes};
