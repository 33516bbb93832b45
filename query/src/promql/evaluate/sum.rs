//! Sums, means, variances and quantiles with the precision that Prometheus has.

/// A compensated sum (Kahan and Neumaier).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        if sum.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.compensation += (self.sum - sum) + value;
        } else {
            self.compensation += (value - sum) + self.sum;
        }
        self.sum = sum;
    }

    /// The mean of `count` values, of this mean of all but `value`.
    fn mean_with(self, value: f64, count: f64) -> Sum {
        let kept = (count - 1.0) / count;
        let mut mean = Sum { sum: kept * self.sum, compensation: kept * self.compensation };
        mean.add(value / count);
        mean
    }

    pub(super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.compensation }
    }
}

pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    values.for_each(|value| sum.add(value));
    sum.total()
}

/// The mean, by the sum for as long as it does not overflow, then by running means (Prometheus, promql/functions.go,
/// funcAvgOverTime).
pub(super) fn mean(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    for (before, value) in values.iter().enumerate() {
        let mut next = sum;
        next.add(*value);
        if before > 0 && next.sum.is_infinite() {
            let count = before as f64;
            let mean = Sum { sum: sum.sum / count, compensation: sum.compensation / count };
            let rest = values.iter().enumerate().skip(before);
            let mean = rest.fold(mean, |mean, (before, value)| mean.mean_with(*value, before as f64 + 1.0));
            return mean.sum + mean.compensation;
        }
        sum = next;
    }
    let count = values.len() as f64;
    sum.sum / count + sum.compensation / count
}

/// The population variance (Welford).
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Sum::default(), Sum::default());
    for (count, value) in values.iter().enumerate() {
        let delta = value - mean.total();
        mean.add(delta / (count as f64 + 1.0));
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / values.len() as f64
}

/// The quantile with linear interpolation between neighbours. NaN sorts first.
pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then_with(|| a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// The lesser of two, where anything is less than NaN.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if b < a || a.is_nan() { b } else { a }
}

/// The greater of two, where anything is greater than NaN.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if b > a || a.is_nan() { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_survives_the_overflow_of_its_sum() {
        let big = 1.7e308;
        assert_eq!(mean(&[big, big]), big);
        assert!(mean(&[big, big, big, -big, -big, -big]).abs() < big * 1e-16);
        assert_eq!(mean(&[1.0, f64::INFINITY, 2.0]), f64::INFINITY);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }
}
