//! Data points of the five kinds and their exemplars (opentelemetry/proto/metrics/v1).

use oteld_store::model::{
    Attributes, Exemplar, ExponentialBuckets, ExponentialHistogram, Histogram, Point, PointValue, Quantile,
    Summary,
};

use super::attributes::id;
use super::rejects::Reason;
use super::wire::Reader;
use super::{DecodeError, Decoder};

/// Which message a data point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointType {
    Number,
    Histogram,
    ExponentialHistogram,
    Summary,
}

/// A data point before it is known which series it belongs to.
pub(super) struct DecodedPoint {
    pub(super) attributes: Attributes,
    pub(super) point: Point,
    /// Why it cannot be kept.
    pub(super) reject: Option<Reason>,
}

impl DecodedPoint {
    fn new() -> Self {
        let point = Point {
            time_unix_nano: 0,
            start_time_unix_nano: 0,
            flags: 0,
            value: PointValue::None,
            exemplars: Vec::new(),
        };
        DecodedPoint { attributes: Attributes::default(), point, reject: None }
    }

    fn finish(mut self, value: PointValue, reject: Option<Reason>) -> Self {
        self.point.value = value;
        self.reject = if self.point.time_unix_nano == 0 { Some(Reason::PointTime) } else { reject };
        self
    }
}

impl Decoder<'_> {
    pub(super) fn point(
        &mut self,
        point_type: PointType,
        reader: Reader<'_>,
    ) -> Result<DecodedPoint, DecodeError> {
        match point_type {
            PointType::Number => self.number_point(reader),
            PointType::Histogram => self.histogram_point(reader),
            PointType::ExponentialHistogram => self.exponential_histogram_point(reader),
            PointType::Summary => self.summary_point(reader),
        }
    }

    fn number_point(&mut self, mut reader: Reader<'_>) -> Result<DecodedPoint, DecodeError> {
        let mut decoded = DecodedPoint::new();
        let mut value = PointValue::None;
        while let Some(key) = reader.key()? {
            match key.number {
                2 => decoded.point.start_time_unix_nano = reader.fixed64(key)?,
                3 => decoded.point.time_unix_nano = reader.fixed64(key)?,
                4 => value = PointValue::Double(reader.double(key)?),
                5 => self.exemplar(&mut decoded.point.exemplars, reader.message(key)?)?,
                6 => value = PointValue::Int(reader.fixed64(key)? as i64),
                7 => self.key_value(&mut decoded.attributes, reader.message(key)?)?,
                8 => decoded.point.flags = reader.uint32(key)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(decoded.finish(value, None))
    }

    fn histogram_point(&mut self, mut reader: Reader<'_>) -> Result<DecodedPoint, DecodeError> {
        let mut decoded = DecodedPoint::new();
        let mut value = Box::<Histogram>::default();
        self.ticket.charge(size_of::<Histogram>())?;
        while let Some(key) = reader.key()? {
            match key.number {
                2 => decoded.point.start_time_unix_nano = reader.fixed64(key)?,
                3 => decoded.point.time_unix_nano = reader.fixed64(key)?,
                4 => value.count = reader.fixed64(key)?,
                5 => value.sum = Some(reader.double(key)?),
                6 => reader.repeated_fixed64(key, |count| self.push(&mut value.bucket_counts, count))?,
                7 => reader.repeated_fixed64(key, |bits| {
                    self.push(&mut value.explicit_bounds, f64::from_bits(bits))
                })?,
                8 => self.exemplar(&mut decoded.point.exemplars, reader.message(key)?)?,
                9 => self.key_value(&mut decoded.attributes, reader.message(key)?)?,
                10 => decoded.point.flags = reader.uint32(key)?,
                11 => value.min = Some(reader.double(key)?),
                12 => value.max = Some(reader.double(key)?),
                _ => reader.skip(key)?,
            }
        }
        let reject = check_buckets(&value);
        let sum = value.bucket_counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        if reject.is_none() && !value.bucket_counts.is_empty() && sum != value.count {
            self.rejects.add(Reason::BucketSum, 0, "");
        }
        Ok(decoded.finish(PointValue::Histogram(value), reject))
    }

    fn exponential_histogram_point(&mut self, mut reader: Reader<'_>) -> Result<DecodedPoint, DecodeError> {
        let mut decoded = DecodedPoint::new();
        let mut value = Box::<ExponentialHistogram>::default();
        self.ticket.charge(size_of::<ExponentialHistogram>())?;
        while let Some(key) = reader.key()? {
            match key.number {
                1 => self.key_value(&mut decoded.attributes, reader.message(key)?)?,
                2 => decoded.point.start_time_unix_nano = reader.fixed64(key)?,
                3 => decoded.point.time_unix_nano = reader.fixed64(key)?,
                4 => value.count = reader.fixed64(key)?,
                5 => value.sum = Some(reader.double(key)?),
                6 => value.scale = reader.sint32(key)?,
                7 => value.zero_count = reader.fixed64(key)?,
                8 => self.buckets(&mut value.positive, reader.message(key)?)?,
                9 => self.buckets(&mut value.negative, reader.message(key)?)?,
                10 => decoded.point.flags = reader.uint32(key)?,
                11 => self.exemplar(&mut decoded.point.exemplars, reader.message(key)?)?,
                12 => value.min = Some(reader.double(key)?),
                13 => value.max = Some(reader.double(key)?),
                14 => value.zero_threshold = reader.double(key)?,
                _ => reader.skip(key)?,
            }
        }
        let fits = |buckets: &ExponentialBuckets| {
            i64::from(buckets.offset) + buckets.bucket_counts.len() as i64 <= i64::from(i32::MAX)
        };
        let reject = (!fits(&value.positive) || !fits(&value.negative)).then_some(Reason::BucketOffset);
        Ok(decoded.finish(PointValue::ExponentialHistogram(value), reject))
    }

    fn buckets(
        &mut self,
        buckets: &mut ExponentialBuckets,
        mut reader: Reader<'_>,
    ) -> Result<(), DecodeError> {
        while let Some(key) = reader.key()? {
            match key.number {
                1 => buckets.offset = reader.sint32(key)?,
                2 => reader.repeated_varint(key, |count| self.push(&mut buckets.bucket_counts, count))?,
                _ => reader.skip(key)?,
            }
        }
        Ok(())
    }

    fn summary_point(&mut self, mut reader: Reader<'_>) -> Result<DecodedPoint, DecodeError> {
        let mut decoded = DecodedPoint::new();
        let mut value = Box::<Summary>::default();
        self.ticket.charge(size_of::<Summary>())?;
        while let Some(key) = reader.key()? {
            match key.number {
                2 => decoded.point.start_time_unix_nano = reader.fixed64(key)?,
                3 => decoded.point.time_unix_nano = reader.fixed64(key)?,
                4 => value.count = reader.fixed64(key)?,
                5 => value.sum = reader.double(key)?,
                6 => {
                    let quantile = quantile(reader.message(key)?)?;
                    self.push(&mut value.quantiles, quantile)?;
                }
                7 => self.key_value(&mut decoded.attributes, reader.message(key)?)?,
                8 => decoded.point.flags = reader.uint32(key)?,
                _ => reader.skip(key)?,
            }
        }
        Ok(decoded.finish(PointValue::Summary(value), None))
    }

    fn exemplar(&mut self, exemplars: &mut Vec<Exemplar>, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let mut exemplar = Exemplar {
            time_unix_nano: 0,
            value: PointValue::None,
            trace_id: [0; 16],
            span_id: [0; 8],
            filtered_attributes: Attributes::default(),
        };
        while let Some(key) = reader.key()? {
            match key.number {
                2 => exemplar.time_unix_nano = reader.fixed64(key)?,
                3 => exemplar.value = PointValue::Double(reader.double(key)?),
                // An exemplar whose ids are not valid belongs to no trace, as a log record would.
                4 => exemplar.span_id = self.id_or_none(reader.bytes(key)?, Reason::ItemSpanId),
                5 => exemplar.trace_id = self.id_or_none(reader.bytes(key)?, Reason::ItemTraceId),
                6 => exemplar.value = PointValue::Int(reader.fixed64(key)? as i64),
                7 => self.key_value(&mut exemplar.filtered_attributes, reader.message(key)?)?,
                _ => reader.skip(key)?,
            }
        }
        self.push(exemplars, exemplar)
    }

    /// No id where it is not valid, with a warning.
    fn id_or_none<const N: usize>(&mut self, bytes: &[u8], reason: Reason) -> [u8; N] {
        id(bytes).unwrap_or_else(|| {
            self.rejects.add(reason, 0, "");
            [0; N]
        })
    }
}

fn quantile(mut reader: Reader<'_>) -> Result<Quantile, DecodeError> {
    let mut quantile = Quantile { quantile: 0.0, value: 0.0 };
    while let Some(key) = reader.key()? {
        match key.number {
            1 => quantile.quantile = reader.double(key)?,
            2 => quantile.value = reader.double(key)?,
            _ => reader.skip(key)?,
        }
    }
    Ok(quantile)
}

fn check_buckets(histogram: &Histogram) -> Option<Reason> {
    let (counts, bounds) = (histogram.bucket_counts.len(), histogram.explicit_bounds.len());
    if counts != bounds + 1 && (counts, bounds) != (0, 0) {
        return Some(Reason::Buckets);
    }
    let increasing = histogram.explicit_bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let numbers = histogram.explicit_bounds.iter().all(|bound| !bound.is_nan());
    (!increasing || !numbers).then_some(Reason::Bounds)
}
