//! PromQL over OpenTelemetry metrics.
//!
//! The way of a query: [`Plan`] parses and checks it on the front and says which samples it needs; [`leaf`] selects,
//! translates ([`translate`]) and extracts them on every node; [`evaluate`] merges the replies and computes, for all
//! steps at once, series by series.
//!
//! What differs from a Prometheus that was sent the same metrics: delta sums and histograms are queryable ([`merge`]
//! says how), and exponential histograms, which are native histograms here as there, also have series `_count` and
//! `_sum`. A query for their classic buckets, which do not exist, carries a warning.

mod ast;
pub mod calendar;
mod evaluate;
mod exemplars;
pub mod labels;
mod leaf;
mod merge;
mod metadata;
mod native;
pub mod number;
mod parse;
mod plan;
mod samples;
pub mod translate;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use evaluate::{Answer, Data, MatrixSeries, Sample, evaluate};
pub use exemplars::{ExemplarSeries, PromExemplar, merge_exemplars};
pub use labels::{Labels, MatchOp, Matcher};
pub use leaf::leaf;
pub use metadata::{Catalog, MetadataEntry, merge_catalogs};
pub use native::{NativeBucket, NativeHistogram};
pub use parse::{format_query, parse_selector};
pub use plan::{LOOKBACK_MS, Plan, Timeline};

/// Which samples of a series are of use: those in one of the windows `(t - range, t]`, for `t` from the first to the
/// last in steps. Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    pub first_ms: i64,
    pub last_ms: i64,
    pub step_ms: i64,
    pub range_ms: i64,
}

impl Windows {
    /// Everything after `start_ms` up to and with `end_ms`.
    pub fn whole(start_ms: i64, end_ms: i64) -> Self {
        Windows { first_ms: end_ms, last_ms: end_ms, step_ms: 1, range_ms: end_ms.saturating_sub(start_ms) }
    }

    /// All windows lie after this time.
    pub fn start_ms(&self) -> i64 {
        self.first_ms.saturating_sub(self.range_ms)
    }

    /// Whether a sample at `time_ms` is in a window.
    pub fn take(&self, time_ms: i64) -> bool {
        if time_ms <= self.start_ms() || time_ms > self.last_ms {
            return false;
        }
        if time_ms <= self.first_ms || self.range_ms >= self.step_ms {
            return true;
        }
        let next = self.first_ms + (time_ms - self.first_ms + self.step_ms - 1) / self.step_ms * self.step_ms;
        time_ms > next - self.range_ms && next <= self.last_ms
    }
}

/// Series and their samples that a query needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
    pub windows: Windows,
}

/// What a leaf is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafRequest {
    /// Samples for a query.
    Samples(Vec<Selector>),
    /// What is known of series that any of `selectors` takes (all series when there are none) and that have a point
    /// after `start_ms`, up to and with `end_ms`.
    Catalog { selectors: Vec<Vec<Matcher>>, start_ms: i64, end_ms: i64, what: CatalogWhat },
    /// Exemplars of the series that any of the selectors takes, in the same span of time.
    Exemplars { selectors: Vec<Vec<Matcher>>, start_ms: i64, end_ms: i64 },
}

/// What a catalog request is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogWhat {
    LabelNames,
    LabelValues(String),
    Series,
    /// Type, help and unit; of one metric family, when named.
    Metadata(Option<String>),
}

/// What a leaf found; of the same variant as its request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeafReply {
    Samples {
        /// One list for each selector of the request, in its order.
        selected: Vec<Vec<LeafSeries>>,
        warnings: BTreeSet<String>,
    },
    Catalog(Catalog),
    Exemplars(Vec<ExemplarSeries>),
}

/// One Prometheus series of one OpenTelemetry series, with samples in order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeafSeries {
    pub labels: Labels,
    /// The values are increments.
    pub delta: bool,
    /// Milliseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// As many as `times`; [`STALE`]'s bits mark the end of a series. Where there is a histogram, its count.
    pub values: Vec<f64>,
    /// As many as `times`, or none at all where all values are floats.
    pub histograms: Histograms,
}

/// Native histograms at times or steps.
pub type Histograms = Vec<Option<Arc<NativeHistogram>>>;

/// The bits of Prometheus' stale marker, a NaN of its own.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the stale marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}
