//! Metric series and their points.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::identity::SeriesId;
use super::resource::{Resource, Scope};
use super::value::Attributes;

/// Whether points report since the last one or since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Temporality {
    #[default]
    Unspecified,
    Delta,
    Cumulative,
}

/// What a metric's points are, with the properties that the OpenTelemetry data model counts as its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MetricKind {
    Gauge,
    Sum { monotonic: bool, temporality: Temporality },
    Histogram { temporality: Temporality },
    ExponentialHistogram { temporality: Temporality },
    Summary,
}

/// A metric's descriptor. `description` and `metadata` are not part of its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: Arc<str>,
    pub unit: Arc<str>,
    pub description: Arc<str>,
    pub kind: MetricKind,
    pub metadata: Attributes,
}

/// One series: a metric of a resource and scope with one set of point attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub id: SeriesId,
    pub resource: Arc<Resource>,
    pub scope: Arc<Scope>,
    pub metric: Arc<Metric>,
    pub attributes: Attributes,
}

/// `DataPointFlags` bit 0: the point says that there is no value (staleness).
pub const FLAG_NO_RECORDED_VALUE: u32 = 1;

/// One data point of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub time_unix_nano: u64,
    /// 0 where the sender gave none.
    pub start_time_unix_nano: u64,
    pub flags: u32,
    pub value: PointValue,
    pub exemplars: Vec<Exemplar>,
}

/// The value of a point, by the kind of its metric.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// A number point that was sent without a value (as with [`FLAG_NO_RECORDED_VALUE`]).
    None,
    Int(i64),
    Double(f64),
    Histogram(Box<Histogram>),
    ExponentialHistogram(Box<ExponentialHistogram>),
    Summary(Box<Summary>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// One more than `explicit_bounds`, or none of both.
    pub bucket_counts: Vec<u64>,
    pub explicit_bounds: Vec<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExponentialHistogram {
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: ExponentialBuckets,
    pub negative: ExponentialBuckets,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExponentialBuckets {
    pub offset: i32,
    pub bucket_counts: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub count: u64,
    pub sum: f64,
    pub quantiles: Vec<Quantile>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    pub quantile: f64,
    pub value: f64,
}

/// A sampled measurement that links a point to a trace. Ids are zero where absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub time_unix_nano: u64,
    /// `None`, `Int` or `Double`.
    pub value: PointValue,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub filtered_attributes: Attributes,
}
