//! Identities, all of them stable across machines and versions: they decide placement and deduplication.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::metric::{Metric, MetricKind, Temporality};
use super::resource::{Resource, Scope};
use super::value::{AnyValue, Attributes};

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Metrics = 1,
    Logs = 2,
    Traces = 3,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// The number that formats store.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The signal of a stored number.
    pub fn from_code(code: u8) -> Option<Self> {
        Signal::ALL.into_iter().find(|signal| signal.code() == code)
    }

    /// The name in URLs, metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }
}

/// Whose telemetry it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(pub Arc<str>);

impl Tenant {
    pub fn new(name: &str) -> Self {
        Tenant(name.into())
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Tenant::new("default")
    }
}

/// One of the parts of the key space: the unit of placement and movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u32);

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u128);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

id128!(
    /// A write request: the client's idempotency key, else a hash of its bytes.
    RequestId
);
id128!(
    /// A metric series: hash of tenant, resource, scope, metric identity and point attributes.
    SeriesId
);
id128!(
    /// A log or span stream: hash of tenant, resource and scope.
    StreamId
);

/// An aligned stretch of event time within a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(pub u64);

impl Window {
    /// Length of a window: two hours, in nanoseconds.
    pub const NANOS: u64 = 2 * 3600 * 1_000_000_000;

    /// The window that holds an event time.
    pub fn of(time_unix_nano: u64) -> Self {
        Window(time_unix_nano / Window::NANOS)
    }

    /// First nanosecond.
    pub fn start_unix_nano(self) -> u64 {
        self.0 * Window::NANOS
    }

    /// First nanosecond of the next window.
    pub fn end_unix_nano(self) -> u64 {
        self.start_unix_nano().saturating_add(Window::NANOS)
    }
}

/// How many shards a resource's metrics, and a stream's logs, spread over. Part of split version 1: changing
/// it is a new split version, because a retry must be split as its original was.
const SPREAD: u64 = 4;

/// How rows are assigned to shards: a pure function of the rows, this value and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Which rules; only 1 exists.
    pub version: u32,
    /// How many shards; `f(2n) mod n = f(n)`, so that doubling splits each shard in two.
    pub shards: u32,
}

impl Split {
    /// Metrics of one resource stay together, spread a little by metric name.
    pub fn shard_of_series(self, tenant: &Tenant, resource: &Resource, metric_name: &str) -> Shard {
        let mut hash = CanonicalHash::new(b"shard/metrics");
        hash.string(&tenant.0);
        hash.resource(resource);
        hash.number(CanonicalHash::of_string(metric_name) % SPREAD);
        self.shard(hash)
    }

    /// Logs of one stream, spread a little by request so that a hot stream is not a hot shard.
    pub fn shard_of_log(self, stream: StreamId, request: RequestId) -> Shard {
        let mut hash = CanonicalHash::new(b"shard/logs");
        hash.raw(&stream.0.to_le_bytes());
        hash.number((request.0 as u64) % SPREAD);
        self.shard(hash)
    }

    /// A whole trace lives in one shard.
    pub fn shard_of_trace(self, tenant: &Tenant, trace_id: &[u8; 16]) -> Shard {
        let mut hash = CanonicalHash::new(b"shard/traces");
        hash.string(&tenant.0);
        hash.raw(trace_id);
        self.shard(hash)
    }

    fn shard(self, hash: CanonicalHash) -> Shard {
        Shard((hash.finish_64() % u64::from(self.shards)) as u32)
    }
}

/// The id of a request that brought no idempotency key: the same bytes are the same request.
pub fn request_id_of(tenant: &Tenant, signal: Signal, uncompressed: &[u8]) -> RequestId {
    let mut hash = CanonicalHash::new(b"request");
    hash.string(&tenant.0);
    hash.raw(&[signal.code()]);
    hash.raw(uncompressed);
    RequestId(hash.finish_128())
}

/// The id of a request that brought an idempotency key.
pub fn request_id_of_key(tenant: &Tenant, signal: Signal, idempotency_key: &str) -> RequestId {
    let mut hash = CanonicalHash::new(b"request-key");
    hash.string(&tenant.0);
    hash.raw(&[signal.code()]);
    hash.string(idempotency_key);
    RequestId(hash.finish_128())
}

/// The id of a series. Unit, kind, temporality and monotonicity identify a metric stream (OpenTelemetry metrics
/// data model, "Timeseries model"); description and metadata do not.
pub fn series_id(
    tenant: &Tenant,
    resource: &Resource,
    scope: &Scope,
    metric: &Metric,
    attributes: &Attributes,
) -> SeriesId {
    ResourceIds::new(tenant, resource).scope(scope).metric(metric).id(attributes)
}

/// The id of a log or span stream.
pub fn stream_id(tenant: &Tenant, resource: &Resource, scope: &Scope) -> StreamId {
    ResourceIds::new(tenant, resource).scope(scope).stream()
}

/// [`stream_id`] and [`series_id`] for everything of one resource: what is shared is hashed once, so that a large
/// resource with many scopes and metrics costs no more than its bytes.
pub struct ResourceIds {
    stream: CanonicalHash,
    series: CanonicalHash,
}

impl ResourceIds {
    pub fn new(tenant: &Tenant, resource: &Resource) -> Self {
        let start = |domain: &[u8]| {
            let mut hash = CanonicalHash::new(domain);
            hash.string(&tenant.0);
            hash.resource(resource);
            hash
        };
        ResourceIds { stream: start(b"stream"), series: start(b"series") }
    }

    /// The ids of a scope of the resource.
    pub fn scope(&self, scope: &Scope) -> ScopeIds {
        let (mut stream, mut series) = (self.stream.clone(), self.series.clone());
        stream.scope(scope);
        series.scope(scope);
        ScopeIds { stream: StreamId(stream.finish_128()), series }
    }
}

/// The ids of everything of one resource and scope.
pub struct ScopeIds {
    stream: StreamId,
    series: CanonicalHash,
}

impl ScopeIds {
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The ids of the series of a metric.
    pub fn metric(&self, metric: &Metric) -> SeriesIds {
        let mut hash = self.series.clone();
        hash.string(&metric.name);
        hash.string(&metric.unit);
        hash.raw(&kind_code(metric.kind));
        SeriesIds(hash)
    }
}

/// The ids of the series of one metric.
pub struct SeriesIds(CanonicalHash);

impl SeriesIds {
    /// The id of the series with these point attributes.
    pub fn id(&self, attributes: &Attributes) -> SeriesId {
        let mut hash = self.0.clone();
        hash.attributes(attributes);
        SeriesId(hash.finish_128())
    }
}

/// Kind, monotonicity and temporality in three bytes, for identities and formats.
pub fn kind_code(kind: MetricKind) -> [u8; 3] {
    let temporality = |t: Temporality| match t {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    match kind {
        MetricKind::Gauge => [1, 0, 0],
        MetricKind::Sum { monotonic, temporality: t } => [2, u8::from(monotonic), temporality(t)],
        MetricKind::Histogram { temporality: t } => [3, 0, temporality(t)],
        MetricKind::ExponentialHistogram { temporality: t } => [4, 0, temporality(t)],
        MetricKind::Summary => [5, 0, 0],
    }
}

/// The kind of a stored code.
pub fn kind_from_code(code: [u8; 3]) -> Option<MetricKind> {
    let temporality = match code[2] {
        0 => Temporality::Unspecified,
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ => return None,
    };
    match (code[0], code[1]) {
        (1, 0) => Some(MetricKind::Gauge),
        (2, 0 | 1) => Some(MetricKind::Sum { monotonic: code[1] == 1, temporality }),
        (3, 0) => Some(MetricKind::Histogram { temporality }),
        (4, 0) => Some(MetricKind::ExponentialHistogram { temporality }),
        (5, 0) => Some(MetricKind::Summary),
        _ => None,
    }
}

/// xxh3 over a framed canonical form: lengths before bytes, a type byte before each value, attributes sorted by
/// key. The framing is what makes two different inputs differ, so it may never change.
#[derive(Clone)]
struct CanonicalHash(Xxh3);

impl CanonicalHash {
    fn new(domain: &[u8]) -> Self {
        let mut hash = CanonicalHash(Xxh3::new());
        hash.framed(domain);
        hash
    }

    fn of_string(text: &str) -> u64 {
        let mut hash = CanonicalHash::new(b"string");
        hash.string(text);
        hash.finish_64()
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn string(&mut self, text: &str) {
        self.framed(text.as_bytes());
    }

    fn resource(&mut self, resource: &Resource) {
        self.attributes(&resource.attributes);
    }

    fn scope(&mut self, scope: &Scope) {
        self.string(&scope.name);
        self.string(&scope.version);
        self.attributes(&scope.attributes);
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let mut sorted: Vec<_> = attributes.0.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        self.number(sorted.len() as u64);
        for (key, value) in sorted {
            self.string(key);
            self.value(value);
        }
    }

    fn value(&mut self, value: &AnyValue) {
        match value {
            AnyValue::Empty => self.raw(&[0]),
            AnyValue::String(text) => {
                self.raw(&[1]);
                self.string(text);
            }
            AnyValue::Bool(value) => self.raw(&[2, u8::from(*value)]),
            AnyValue::Int(value) => {
                self.raw(&[3]);
                self.raw(&value.to_le_bytes());
            }
            AnyValue::Double(value) => {
                self.raw(&[4]);
                self.raw(&value.to_bits().to_le_bytes());
            }
            AnyValue::Bytes(bytes) => {
                self.raw(&[5]);
                self.framed(bytes);
            }
            AnyValue::Array(values) => {
                self.raw(&[6]);
                self.number(values.len() as u64);
                values.iter().for_each(|value| self.value(value));
            }
            AnyValue::KeyValues(attributes) => {
                self.raw(&[7]);
                self.attributes(attributes);
            }
        }
    }

    fn finish_64(self) -> u64 {
        self.0.digest()
    }

    fn finish_128(self) -> u128 {
        self.0.digest128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_pinned() {
        let tenant = Tenant::default();
        let resource =
            Resource { attributes: [("service.name", "cart")].into_iter().collect(), ..Resource::default() };
        let stream = stream_id(&tenant, &resource, &Scope::default());
        let request = request_id_of(&tenant, Signal::Logs, b"bytes");
        let split = Split { version: 1, shards: 64 };
        assert_eq!(
            (
                stream.to_string(),
                request.to_string(),
                split.shard_of_log(stream, request),
                split.shard_of_series(&tenant, &resource, "requests"),
                split.shard_of_trace(&tenant, &[7; 16]),
            ),
            (
                "a3a59b8e6e6ededdd4288ed52ec8f7d3".to_owned(),
                "988ad9457f7d407361dff84989fc245d".to_owned(),
                Shard(14),
                Shard(54),
                Shard(62)
            )
        );
    }

    #[test]
    fn doubling_the_shards_splits_each_in_two() {
        let (few, many) = (Split { version: 1, shards: 64 }, Split { version: 1, shards: 128 });
        for n in 0..1000_u128 {
            let trace_id = n.to_le_bytes();
            let tenant = Tenant::default();
            assert_eq!(
                many.shard_of_trace(&tenant, &trace_id).0 % 64,
                few.shard_of_trace(&tenant, &trace_id).0
            );
        }
    }

    #[test]
    fn attribute_order_does_not_change_a_series() {
        let metric = Metric {
            name: "m".into(),
            unit: "".into(),
            description: "".into(),
            kind: MetricKind::Gauge,
            metadata: Attributes::default(),
        };
        let id = |attributes: Attributes| {
            series_id(&Tenant::default(), &Resource::default(), &Scope::default(), &metric, &attributes)
        };
        let one = id([("a", "1"), ("b", "2")].into_iter().collect());
        let other = id([("b", "2"), ("a", "1")].into_iter().collect());
        assert_eq!(one, other);
        assert_ne!(one, id([("a", "2"), ("b", "1")].into_iter().collect()));
    }
}
