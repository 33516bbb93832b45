//! A latency histogram of fixed size: 32 buckets for each power of two of microseconds, so within 3.2 %.

use std::time::Duration;

const SUB_BUCKETS_LOG2: u32 = 5;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;
/// Enough for 2^40 µs, which is 12 days.
const BUCKETS: usize = (40 * SUB_BUCKETS) as usize;

#[derive(Clone)]
pub struct Latency {
    counts: Vec<u64>,
    total: u64,
    micros_max: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { counts: vec![0; BUCKETS], total: 0, micros_max: 0 }
    }
}

impl Latency {
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket_of(micros)] += 1;
        self.total += 1;
        self.micros_max = self.micros_max.max(micros);
    }

    pub fn merge(&mut self, other: &Latency) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.micros_max = self.micros_max.max(other.micros_max);
    }

    /// Milliseconds that `share` (0 to 1) of the recorded latencies do not exceed; 0 where none was recorded.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(bucket).min(self.micros_max) as f64 / 1e3;
            }
        }
        0.0
    }

    pub fn max_ms(&self) -> f64 {
        self.micros_max as f64 / 1e3
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return micros as usize;
    }
    let shift = micros.ilog2() - SUB_BUCKETS_LOG2;
    let bucket = (u64::from(shift) + 1) * SUB_BUCKETS + ((micros >> shift) - SUB_BUCKETS);
    (bucket as usize).min(BUCKETS - 1)
}

/// Greatest number of microseconds that falls in `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let base = bucket % SUB_BUCKETS + SUB_BUCKETS;
    ((base + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_latency_lies_in_its_bucket_within_one_part_in_32(micros in 0u64..(1 << 39)) {
            let upper = upper_bound(bucket_of(micros));
            prop_assert!(upper >= micros);
            prop_assert!(upper - micros <= micros / 32);
        }
    }

    #[test]
    fn quantiles_of_one_to_a_thousand_milliseconds() {
        let mut latency = Latency::default();
        for ms in 1..=1000 {
            latency.record(Duration::from_millis(ms));
        }
        assert!((latency.quantile_ms(0.5) - 500.0).abs() < 17.0);
        assert!((latency.quantile_ms(0.99) - 990.0).abs() < 33.0);
        assert_eq!(latency.max_ms(), 1000.0);
    }

    #[test]
    fn merged_halves_equal_the_whole() {
        let (mut whole, mut left, mut right) = (Latency::default(), Latency::default(), Latency::default());
        for micros in 0..10_000 {
            let latency = Duration::from_micros(micros * 7);
            whole.record(latency);
            if micros % 2 == 0 { left.record(latency) } else { right.record(latency) }
        }
        left.merge(&right);
        assert_eq!(left.counts, whole.counts);
        assert_eq!(left.quantile_ms(0.99), whole.quantile_ms(0.99));
    }
}
