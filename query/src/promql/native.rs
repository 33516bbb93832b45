//! Native histograms: what Prometheus makes of OpenTelemetry's exponential histograms (Prometheus,
//! model/histogram/float_histogram.go and storage/remote/otlptranslator).
//!
//! Bucket `i` of a schema `s` holds the observations in `(2^((i-1)/2^s), 2^(i/2^s)]`, and of the negative buckets
//! those in the mirrored interval.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use oteld_store::model::{ExponentialBuckets, ExponentialHistogram};
use serde::{Deserialize, Serialize};

/// The highest resolution that Prometheus knows; finer histograms are merged to it.
const SCHEMA_MAX: i32 = 8;

/// The lowest schema that is taken: below, all numbers are in two buckets, and shifts would overflow.
const SCHEMA_MIN: i32 = -11;

/// Width of the zero bucket of a histogram that names none: Prometheus' default.
const ZERO_THRESHOLD: f64 = 1e-128;

pub(crate) type Buckets = BTreeMap<i32, f64>;

/// One sample of a native histogram. Counts are fractions after `rate` and the like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeHistogram {
    pub schema: i32,
    /// Observations with at most this absolute value are in the zero bucket.
    pub zero_threshold: f64,
    pub zero_count: f64,
    /// Of all observations.
    pub count: f64,
    pub sum: f64,
    /// Counts by bucket index; none is zero.
    pub positive: BTreeMap<i32, f64>,
    pub negative: BTreeMap<i32, f64>,
}

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NativeBucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

impl NativeHistogram {
    /// `None` for a scale that is out of all bounds.
    pub(crate) fn of(point: &ExponentialHistogram) -> Option<Self> {
        if point.scale < SCHEMA_MIN {
            return None;
        }
        let scale_down = u32::try_from(point.scale.saturating_sub(SCHEMA_MAX)).unwrap_or(0).min(31);
        let zero_threshold = if point.zero_threshold > 0.0 { point.zero_threshold } else { ZERO_THRESHOLD };
        Some(NativeHistogram {
            schema: point.scale.min(SCHEMA_MAX),
            zero_threshold,
            zero_count: point.zero_count as f64,
            count: point.count as f64,
            sum: point.sum.unwrap_or(0.0),
            positive: buckets_of(&point.positive, scale_down),
            negative: buckets_of(&point.negative, scale_down),
        })
    }

    /// One of the same shape without observations.
    pub(crate) fn emptied(&self) -> Self {
        NativeHistogram {
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive: Buckets::new(),
            negative: Buckets::new(),
            ..*self
        }
    }

    /// Populated buckets in order of their bounds.
    pub fn buckets(&self) -> Vec<NativeBucket> {
        let mut buckets = Vec::with_capacity(self.positive.len() + self.negative.len() + 1);
        for (index, count) in self.negative.iter().rev() {
            let (near, far) = bounds(*index, self.schema);
            buckets.push(NativeBucket {
                lower: -far,
                upper: -near.max(self.zero_threshold),
                lower_inclusive: true,
                upper_inclusive: false,
                count: *count,
            });
        }
        // Prometheus does not show one that became negative.
        if self.zero_count > 0.0 {
            buckets.push(NativeBucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                lower_inclusive: true,
                upper_inclusive: true,
                count: self.zero_count,
            });
        }
        for (index, count) in &self.positive {
            let (lower, upper) = bounds(*index, self.schema);
            buckets.push(NativeBucket {
                lower: lower.max(self.zero_threshold),
                upper,
                lower_inclusive: false,
                upper_inclusive: true,
                count: *count,
            });
        }
        buckets
    }

    /// All counts and the sum times `factor`.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.each(|value| *value *= factor);
    }

    /// All counts and the sum divided; by zero, nothing but they is left.
    pub(crate) fn divide(&mut self, by: f64) {
        self.each(|value| *value /= by);
        if by == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
    }

    fn each(&mut self, f: impl Fn(&mut f64)) {
        for value in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            f(value);
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.values_mut().for_each(&f);
            buckets.retain(|_, count| *count != 0.0);
        }
    }

    /// Adds `sign` times `other`: at the lower of the two resolutions, with a zero bucket that holds both.
    pub(crate) fn add(&mut self, other: &NativeHistogram, sign: f64) {
        let mut other = other.clone();
        let schema = self.schema.min(other.schema);
        while self.zero_threshold != other.zero_threshold {
            let threshold = self.zero_threshold.max(other.zero_threshold);
            self.widen_zero(threshold);
            other.widen_zero(threshold);
        }
        self.reduce(schema);
        other.reduce(schema);
        self.zero_count += sign * other.zero_count;
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        for (into, from) in [(&mut self.positive, other.positive), (&mut self.negative, other.negative)] {
            for (index, count) in from {
                *into.entry(index).or_default() += sign * count;
            }
            into.retain(|_, count| *count != 0.0);
        }
    }

    /// Merges buckets until the schema is `schema`, which is not greater than it was.
    pub(crate) fn reduce(&mut self, schema: i32) {
        let shift = self.schema - schema;
        if shift <= 0 {
            return;
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            let mut reduced = Buckets::new();
            for (index, count) in std::mem::take(buckets) {
                *reduced.entry(((index - 1) >> shift) + 1).or_default() += count;
            }
            *buckets = reduced;
        }
        self.schema = schema;
    }

    /// Makes the zero bucket at least `threshold` wide: it ends at a bound of the buckets that it does not hold.
    fn widen_zero(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold {
            return;
        }
        let mut threshold = threshold;
        let schema = self.schema;
        // A populated bucket that the threshold would cut goes in as a whole.
        while let Some(upper) = [&self.positive, &self.negative]
            .into_iter()
            .flat_map(|buckets| buckets.keys().map(|index| bounds(*index, schema)))
            .find(|(lower, upper)| *lower < threshold && *upper > threshold)
            .map(|(_, upper)| upper)
        {
            threshold = upper;
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            let zero_count = &mut self.zero_count;
            buckets.retain(|index, count| {
                let within = bounds(*index, schema).0 < threshold;
                if within {
                    *zero_count += *count;
                }
                !within
            });
        }
        self.zero_threshold = threshold;
    }

    /// Whether a counter was reset between `previous` and this: something that only grows is less.
    pub(crate) fn is_reset_after(&self, previous: &NativeHistogram) -> bool {
        if self.count < previous.count
            || self.schema > previous.schema
            || self.zero_threshold < previous.zero_threshold
        {
            return true;
        }
        let mut previous = previous.clone();
        previous.widen_zero(self.zero_threshold);
        if previous.zero_threshold != self.zero_threshold || self.zero_count < previous.zero_count {
            return true;
        }
        previous.reduce(self.schema);
        let less = |now: &Buckets, before: &Buckets| {
            before.iter().any(|(index, count)| now.get(index).copied().unwrap_or(0.0) < *count)
        };
        less(&self.positive, &previous.positive) || less(&self.negative, &previous.negative)
    }

    /// An order of all histograms, by their counts first: of several at one time the greatest stays.
    pub(crate) fn total_cmp(&self, other: &NativeHistogram) -> Ordering {
        let buckets = |a: &Buckets, b: &Buckets| {
            a.iter()
                .zip(b)
                .map(|(a, b)| a.0.cmp(b.0).then(a.1.total_cmp(b.1)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len()))
        };
        self.count
            .total_cmp(&other.count)
            .then_with(|| self.sum.total_cmp(&other.sum))
            .then_with(|| self.schema.cmp(&other.schema))
            .then_with(|| self.zero_count.total_cmp(&other.zero_count))
            .then_with(|| self.zero_threshold.total_cmp(&other.zero_threshold))
            .then_with(|| buckets(&self.positive, &other.positive))
            .then_with(|| buckets(&self.negative, &other.negative))
    }
}

/// OpenTelemetry's bucket `i` is Prometheus' `i + 1`.
fn buckets_of(dense: &ExponentialBuckets, scale_down: u32) -> Buckets {
    let mut buckets = Buckets::new();
    for (place, count) in dense.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = i64::from(dense.offset) + place as i64;
        // Bounds of such buckets are zero or infinite anyway.
        let index = (index >> scale_down).clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2));
        *buckets.entry(index as i32 + 1).or_default() += *count as f64;
    }
    buckets
}

/// The absolute bounds of a bucket, the lower one exclusive.
fn bounds(index: i32, schema: i32) -> (f64, f64) {
    (bound(index - 1, schema), bound(index, schema))
}

fn bound(index: i32, schema: i32) -> f64 {
    let exponent = f64::from(index) * f64::from(-schema).exp2();
    // 2^1024 is no number: the last bucket ends at the greatest one, and the next holds the infinities.
    if exponent == 1024.0 { f64::MAX } else { exponent.exp2() }
}
