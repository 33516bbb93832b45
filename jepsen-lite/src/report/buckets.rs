//! What happened per stretch of time. Stretches grow with the run, so that a day needs no more room than a minute.

use std::collections::BTreeMap;

/// Most stretches; a chart has about as many pixels.
pub(super) const BUCKETS_MAX: usize = 720;

/// Widths in milliseconds, each a multiple of the one before, so that stretches are joined whole. Above the last it
/// doubles.
const WIDTHS_MS: [u64; 9] = [100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 240_000];

/// Lengths of time, to an eighth of their size, and the longest exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    bins: BTreeMap<u32, u64>,
    count: u64,
    max_us: u64,
}

impl Spread {
    pub(super) fn add(&mut self, us: u64) {
        *self.bins.entry(bin(us)).or_default() += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    fn join(&mut self, other: &Spread) {
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The upper end of the bin that holds the quantile; none where nothing was added.
    pub(super) fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        self.bins.iter().find_map(|(bin, count)| {
            below += count;
            (below >= rank).then(|| last_of(*bin).min(self.max_us))
        })
    }

    pub(super) fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_us)
    }
}

/// Eight bins for each doubling.
fn bin(us: u64) -> u32 {
    match us {
        0..8 => us as u32,
        _ => {
            let exponent = us.ilog2();
            (exponent - 2) * 8 + ((us >> (exponent - 3)) & 7) as u32
        }
    }
}

fn last_of(bin: u32) -> u64 {
    match bin {
        0..8 => bin.into(),
        _ => {
            let (exponent, eighth) = (bin / 8 + 2, u64::from(bin % 8));
            ((8 + eighth + 1) << (exponent - 3)) - 1
        }
    }
}

/// One stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bucket {
    /// Items, by signal, at the time of their acknowledgement.
    pub(super) acknowledged: [u64; 3],
    /// Attempts without a clear answer.
    pub(super) ambiguous: u64,
    /// Writes that ended without one.
    pub(super) unknown: u64,
    /// Writes that were refused.
    pub(super) rejected: u64,
    /// Of acknowledged writes, retries included.
    pub(super) latency: Spread,
    /// From acknowledgement to the end of the first complete read that shows the write.
    pub(super) visible: Spread,
    pub(super) complete: u64,
    pub(super) partial: u64,
}

impl Bucket {
    fn join(&mut self, other: &Bucket) {
        for (mine, theirs) in self.acknowledged.iter_mut().zip(other.acknowledged) {
            *mine += theirs;
        }
        self.ambiguous += other.ambiguous;
        self.unknown += other.unknown;
        self.rejected += other.rejected;
        self.latency.join(&other.latency);
        self.visible.join(&other.visible);
        self.complete += other.complete;
        self.partial += other.partial;
    }
}

/// The stretches of a run, from its begin on.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    width_us: u64,
    buckets: Vec<Bucket>,
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets { width_us: WIDTHS_MS[0] * 1000, buckets: Vec::new() }
    }
}

impl Buckets {
    /// The stretch of a moment.
    pub(super) fn at(&mut self, us: u64) -> &mut Bucket {
        while us / self.width_us >= BUCKETS_MAX as u64 {
            self.widen();
        }
        let place = (us / self.width_us) as usize;
        if self.buckets.len() <= place {
            self.buckets.resize_with(place + 1, Bucket::default);
        }
        &mut self.buckets[place]
    }

    fn widen(&mut self) {
        let wider = |ms: &u64| ms * 1000 > self.width_us;
        let width_us = WIDTHS_MS.into_iter().find(wider).map_or(self.width_us * 2, |ms| ms * 1000);
        let joined = (width_us / self.width_us) as usize;
        self.buckets = self
            .buckets
            .chunks(joined)
            .map(|chunk| {
                let mut whole = Bucket::default();
                chunk.iter().for_each(|bucket| whole.join(bucket));
                whole
            })
            .collect();
        self.width_us = width_us;
    }

    pub(super) fn width_us(&self) -> u64 {
        self.width_us
    }

    pub(super) fn as_slice(&self) -> &[Bucket] {
        &self.buckets
    }

    /// All of the run in one.
    pub(super) fn whole(&self) -> Bucket {
        let mut whole = Bucket::default();
        self.buckets.iter().for_each(|bucket| whole.join(bucket));
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_its_sums_in_few_stretches() {
        let mut buckets = Buckets::default();
        for minute in 0..24 * 60 {
            buckets.at(minute * 60_000_000).acknowledged[1] += 10;
        }
        assert_eq!(buckets.width_us(), 120_000_000);
        assert!(buckets.as_slice().len() <= BUCKETS_MAX);
        assert!(buckets.as_slice().iter().all(|bucket| bucket.acknowledged[1] == 20));
        assert_eq!(buckets.whole().acknowledged, [0, 14_400, 0]);
        buckets.at(30 * 86_400_000_000).partial += 1;
        assert!(buckets.as_slice().len() <= BUCKETS_MAX);
        assert_eq!(buckets.whole().acknowledged, [0, 14_400, 0]);
    }

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut spread = Spread::default();
        (1..=1000).for_each(|ms| spread.add(ms * 1000));
        for (quantile, exact) in [(0.5, 500_000.0), (0.99, 990_000.0)] {
            let found = spread.quantile(quantile).unwrap() as f64;
            assert!((exact..=exact * 1.125).contains(&found), "{quantile}: {found}");
        }
        assert_eq!(spread.max(), Some(1_000_000));
        assert_eq!(Spread::default().quantile(0.5), None);
        (0..100_000_000).step_by(977).for_each(|us| assert!(last_of(bin(us)) >= us));
    }
}
