//! Columns of point values: the kind of each (integers: 0 none, 1 integer, 2 double, 3 histogram, 4 exponential
//! histogram, 5 summary), then the values of each kind in columns of their own, in that order.

use std::sync::Arc;

use super::{lists, put_numbers};
use crate::column::{Effort, FormatError, Reader, Selection, bytes, floats, integers};
use crate::entities::collect;
use crate::model::{ExponentialBuckets, ExponentialHistogram, Histogram, PointValue, Quantile, Summary};

pub(super) fn encode<'a>(
    out: &mut Vec<u8>,
    effort: Effort,
    values: impl Iterator<Item = &'a PointValue> + Clone,
) {
    let kind = |value: &PointValue| match value {
        PointValue::None => 0,
        PointValue::Int(_) => 1,
        PointValue::Double(_) => 2,
        PointValue::Histogram(_) => 3,
        PointValue::ExponentialHistogram(_) => 4,
        PointValue::Summary(_) => 5,
    };
    integers::encode(out, effort, values.clone().map(kind));
    let ints = values.clone().filter_map(|value| match value {
        PointValue::Int(value) => Some(*value),
        _ => None,
    });
    integers::encode(out, effort, ints);
    let doubles = values.clone().filter_map(|value| match value {
        PointValue::Double(value) => Some(*value),
        _ => None,
    });
    floats::encode(out, effort, doubles);
    let (mut histograms, mut exponential, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        match value {
            PointValue::Histogram(value) => histograms.push(&**value),
            PointValue::ExponentialHistogram(value) => exponential.push(&**value),
            PointValue::Summary(value) => summaries.push(&**value),
            PointValue::None | PointValue::Int(_) | PointValue::Double(_) => {}
        }
    }
    encode_histograms(out, effort, &histograms);
    encode_exponential(out, effort, &exponential);
    encode_summaries(out, effort, &summaries);
}

pub(super) fn decode(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<PointValue>, FormatError> {
    let kinds = integers::decode_indices(reader, &Selection::all(selection.count()), 6)?;
    let of_kind = |kind: usize| selection.nested(kinds.iter().map(|found| usize::from(*found == kind)));
    let mut ints = integers::decode(reader, &of_kind(1))?.into_iter();
    let mut doubles = floats::decode(reader, &of_kind(2))?.into_iter();
    let mut histograms = decode_histograms(reader, &of_kind(3))?.into_iter();
    let mut exponential = decode_exponential(reader, &of_kind(4))?.into_iter();
    let mut summaries = decode_summaries(reader, &of_kind(5))?.into_iter();
    let mut kinds = selection.take(kinds).into_iter();
    collect(reader, selection.len(), || {
        Some(match kinds.next()? {
            0 => PointValue::None,
            1 => PointValue::Int(ints.next()?),
            2 => PointValue::Double(doubles.next()?),
            3 => PointValue::Histogram(Box::new(histograms.next()?)),
            4 => PointValue::ExponentialHistogram(Box::new(exponential.next()?)),
            _ => PointValue::Summary(Box::new(summaries.next()?)),
        })
    })
}

/// Count (integers), sum, min, max (optional), buckets, bounds (bytes: eight little-endian bytes a bound, so that
/// equal lists of bounds are one dictionary entry; no dictionary where a histogram has more bounds than buckets,
/// so that the buckets bound what a dictionary can repeat).
fn encode_histograms(out: &mut Vec<u8>, effort: Effort, histograms: &[&Histogram]) {
    integers::encode_u64(out, effort, histograms.iter().map(|histogram| histogram.count));
    put_optional(out, effort, histograms, |histogram| histogram.sum);
    put_optional(out, effort, histograms, |histogram| histogram.min);
    put_optional(out, effort, histograms, |histogram| histogram.max);
    put_buckets(out, effort, histograms, |histogram| &histogram.bucket_counts);
    let bounds: Vec<Vec<u8>> = histograms
        .iter()
        .map(|histogram| histogram.explicit_bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect())
        .collect();
    let slices: Vec<&[u8]> = bounds.iter().map(Vec::as_slice).collect();
    if histograms.iter().all(|histogram| histogram.explicit_bounds.len() <= histogram.bucket_counts.len()) {
        bytes::encode(out, effort, &slices);
    } else {
        bytes::encode_plain(out, effort, &slices);
    }
}

fn decode_histograms(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<Histogram>, FormatError> {
    let mut counts = integers::decode_u64(reader, selection)?.into_iter();
    let mut sums = read_optional(reader, selection)?;
    let mut mins = read_optional(reader, selection)?;
    let mut maxs = read_optional(reader, selection)?;
    let mut buckets = read_buckets(reader, selection)?;
    let mut bounds = decode_bounds(reader, selection, buckets.as_slice())?.into_iter();
    collect(reader, selection.len(), || {
        Some(Histogram {
            count: counts.next()?,
            sum: sums.next()?,
            min: mins.next()?,
            max: maxs.next()?,
            bucket_counts: buckets.next()?,
            explicit_bounds: bounds.next()?.to_vec(),
        })
    })
}

fn decode_bounds(
    reader: &mut Reader<'_>,
    selection: &Selection,
    buckets: &[Vec<u64>],
) -> Result<Vec<Arc<[f64]>>, FormatError> {
    // Without a dictionary a byte is at most 255 after lz4, and so 32 bounds.
    let without_dictionary = reader.remaining().saturating_mul(32);
    let bounds: Vec<Arc<[f64]>> = bytes::decode_with(reader, selection, |bytes| {
        let (bounds, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(FormatError::Invalid { what: "bounds of a histogram" });
        }
        Ok(bounds.iter().map(|bound| f64::from_le_bytes(*bound)).collect())
    })?;
    let total = |lengths: &mut dyn Iterator<Item = usize>| lengths.fold(0, usize::saturating_add);
    let buckets = total(&mut buckets.iter().map(Vec::len));
    if total(&mut bounds.iter().map(|bounds| bounds.len())) > buckets.saturating_add(without_dictionary) {
        return Err(reader.invalid());
    }
    Ok(bounds)
}

/// Count (integers), sum, min, max (optional), scale, zero count (integers), zero threshold (floats), then for the
/// positive and the negative range: offset (integers), buckets.
fn encode_exponential(out: &mut Vec<u8>, effort: Effort, histograms: &[&ExponentialHistogram]) {
    integers::encode_u64(out, effort, histograms.iter().map(|histogram| histogram.count));
    put_optional(out, effort, histograms, |histogram| histogram.sum);
    put_optional(out, effort, histograms, |histogram| histogram.min);
    put_optional(out, effort, histograms, |histogram| histogram.max);
    put_numbers(out, effort, histograms, |histogram| histogram.scale);
    integers::encode_u64(out, effort, histograms.iter().map(|histogram| histogram.zero_count));
    floats::encode(out, effort, histograms.iter().map(|histogram| histogram.zero_threshold));
    put_numbers(out, effort, histograms, |histogram| histogram.positive.offset);
    put_buckets(out, effort, histograms, |histogram| &histogram.positive.bucket_counts);
    put_numbers(out, effort, histograms, |histogram| histogram.negative.offset);
    put_buckets(out, effort, histograms, |histogram| &histogram.negative.bucket_counts);
}

fn decode_exponential(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<Vec<ExponentialHistogram>, FormatError> {
    let mut counts = integers::decode_u64(reader, selection)?.into_iter();
    let mut sums = read_optional(reader, selection)?;
    let mut mins = read_optional(reader, selection)?;
    let mut maxs = read_optional(reader, selection)?;
    let mut scales = integers::decode_as(reader, selection)?.into_iter();
    let mut zero_counts = integers::decode_u64(reader, selection)?.into_iter();
    let mut zero_thresholds = floats::decode(reader, selection)?.into_iter();
    let mut positive_offsets = integers::decode_as(reader, selection)?.into_iter();
    let mut positive = read_buckets(reader, selection)?;
    let mut negative_offsets = integers::decode_as(reader, selection)?.into_iter();
    let mut negative = read_buckets(reader, selection)?;
    collect(reader, selection.len(), || {
        Some(ExponentialHistogram {
            count: counts.next()?,
            sum: sums.next()?,
            min: mins.next()?,
            max: maxs.next()?,
            scale: scales.next()?,
            zero_count: zero_counts.next()?,
            zero_threshold: zero_thresholds.next()?,
            positive: ExponentialBuckets {
                offset: positive_offsets.next()?,
                bucket_counts: positive.next()?,
            },
            negative: ExponentialBuckets {
                offset: negative_offsets.next()?,
                bucket_counts: negative.next()?,
            },
        })
    })
}

/// Count (integers), sum (floats), number of quantiles (integers), quantiles, their values (floats).
fn encode_summaries(out: &mut Vec<u8>, effort: Effort, summaries: &[&Summary]) {
    integers::encode_u64(out, effort, summaries.iter().map(|summary| summary.count));
    floats::encode(out, effort, summaries.iter().map(|summary| summary.sum));
    put_numbers(out, effort, summaries, |summary| summary.quantiles.len() as i64);
    let quantiles = || summaries.iter().flat_map(|summary| &summary.quantiles);
    floats::encode(out, effort, quantiles().map(|quantile| quantile.quantile));
    floats::encode(out, effort, quantiles().map(|quantile| quantile.value));
}

fn decode_summaries(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<Summary>, FormatError> {
    let mut counts = integers::decode_u64(reader, selection)?.into_iter();
    let mut sums = floats::decode(reader, selection)?.into_iter();
    let (lengths, items) = integers::decode_counts(reader, selection)?;
    let quantiles = floats::decode(reader, &items)?.into_iter();
    let values = floats::decode(reader, &items)?.into_iter();
    let quantiles = quantiles.zip(values).map(|(quantile, value)| Quantile { quantile, value }).collect();
    let mut quantiles = lists(reader, lengths, quantiles)?;
    collect(reader, selection.len(), || {
        Some(Summary { count: counts.next()?, sum: sums.next()?, quantiles: quantiles.next()? })
    })
}

/// Whether each has the number (integers, 0 or 1), then the numbers that are there (floats).
fn put_optional<T>(out: &mut Vec<u8>, effort: Effort, items: &[T], number: impl Fn(&T) -> Option<f64>) {
    put_numbers(out, effort, items, |item| number(item).is_some());
    floats::encode(out, effort, items.iter().filter_map(number));
}

fn read_optional(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<std::vec::IntoIter<Option<f64>>, FormatError> {
    let present = integers::decode_indices(reader, &Selection::all(selection.count()), 2)?;
    let mut numbers = floats::decode(reader, &selection.nested(present.iter().copied()))?.into_iter();
    let present = selection.take(present).into_iter();
    let numbers: Vec<Option<f64>> =
        present.map(|present| if present == 1 { numbers.next() } else { None }).collect();
    Ok(numbers.into_iter())
}

/// The number of buckets of each (integers), then the counts of all buckets (integers).
fn put_buckets<T>(out: &mut Vec<u8>, effort: Effort, items: &[T], buckets: impl Fn(&T) -> &Vec<u64>) {
    put_numbers(out, effort, items, |item| buckets(item).len() as i64);
    integers::encode_u64(out, effort, items.iter().flat_map(buckets).copied());
}

fn read_buckets(
    reader: &mut Reader<'_>,
    selection: &Selection,
) -> Result<std::vec::IntoIter<Vec<u64>>, FormatError> {
    let (lengths, items) = integers::decode_counts(reader, selection)?;
    let counts = integers::decode_u64(reader, &items)?;
    lists(reader, lengths, counts)
}
