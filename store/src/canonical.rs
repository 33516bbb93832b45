//! Canonical bytes of values: one value, one byte string, on every machine and in every version.
//!
//! They decide which of two rows with one key stays (the greatest byte string), and they are how formats store
//! values that have values within. Integers are big-endian, doubles are their bits, strings and lists have
//! their length (32 bits) before them; so two different values never have the same bytes. Attributes keep the
//! order in which they were sent.

use bytes::Bytes;

use crate::column::{FormatError, Reader, values};
use crate::model::identity::kind_code;
use crate::model::{
    AnyValue, Attributes, Exemplar, LogRecord, LogRow, MetricRow, Point, PointValue, Resource, Scope, Span,
    SpanRow, Stream,
};

/// How deep arrays and key-value lists may nest in what a format can read back. What receives telemetry must
/// refuse deeper values.
pub const DEPTH_MAX: usize = 128;

/// A row of any signal.
#[derive(Clone, Copy, Debug)]
pub enum RowRef<'r> {
    Metric(&'r MetricRow),
    Log(&'r LogRow),
    Span(&'r SpanRow),
}

impl<'r> From<&'r MetricRow> for RowRef<'r> {
    fn from(row: &'r MetricRow) -> Self {
        RowRef::Metric(row)
    }
}

impl<'r> From<&'r LogRow> for RowRef<'r> {
    fn from(row: &'r LogRow) -> Self {
        RowRef::Log(row)
    }
}

impl<'r> From<&'r SpanRow> for RowRef<'r> {
    fn from(row: &'r SpanRow) -> Self {
        RowRef::Span(row)
    }
}

/// The canonical bytes of all of a row that is not its key. Of rows with equal keys the one with the greatest
/// bytes is what is stored and shown (PROTOCOL, failure 14): for a point its value, start time, flags and
/// exemplars, for spans and log records everything, with the resource and the scope.
pub fn value_bytes<'r>(row: impl Into<RowRef<'r>>) -> Vec<u8> {
    let mut out = Vec::new();
    match row.into() {
        RowRef::Metric(row) => put_point(&mut out, &row.point),
        RowRef::Log(row) => {
            put_record(&mut out, &row.record);
            put_stream(&mut out, &row.stream);
        }
        RowRef::Span(row) => {
            put_span(&mut out, &row.span);
            put_stream(&mut out, &row.stream);
        }
    }
    out
}

/// The canonical bytes of a whole row: its key, what it belongs to, its value. Two rows have the same bytes only
/// when every field is the same bit for bit, which `==` does not say of doubles.
pub fn row_bytes<'r>(row: impl Into<RowRef<'r>>) -> Vec<u8> {
    let row = row.into();
    let mut out = value_bytes(row);
    match row {
        RowRef::Metric(row) => {
            out.extend(row.point.time_unix_nano.to_be_bytes());
            out.extend(row.series.id.0.to_be_bytes());
            put_resource(&mut out, &row.series.resource);
            put_scope(&mut out, &row.series.scope);
            let metric = &row.series.metric;
            put_bytes(&mut out, metric.name.as_bytes());
            put_bytes(&mut out, metric.unit.as_bytes());
            put_bytes(&mut out, metric.description.as_bytes());
            out.extend(kind_code(metric.kind));
            put_attributes(&mut out, &metric.metadata);
            put_attributes(&mut out, &row.series.attributes);
        }
        RowRef::Log(row) => {
            out.extend(row.request.0.to_be_bytes());
            out.extend(row.ordinal.to_be_bytes());
        }
        RowRef::Span(_) => {}
    }
    out
}

/// The canonical bytes of attributes, in their own order.
pub fn attributes_bytes(attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::new();
    put_attributes(&mut out, attributes);
    out
}

/// Appends the canonical bytes of a value: its type code (byte), then its content.
pub(crate) fn put_value(out: &mut Vec<u8>, value: &AnyValue) {
    out.push(values::type_code(value));
    match value {
        AnyValue::Empty => {}
        AnyValue::String(text) => put_bytes(out, text.as_bytes()),
        AnyValue::Bool(value) => out.push(u8::from(*value)),
        AnyValue::Int(value) => out.extend(value.to_be_bytes()),
        AnyValue::Double(value) => put_double(out, *value),
        AnyValue::Bytes(bytes) => put_bytes(out, bytes),
        AnyValue::Array(values) => put_list(out, values, put_value),
        AnyValue::KeyValues(attributes) => put_attributes(out, attributes),
    }
}

/// Reads what [`put_value`] wrote.
pub(crate) fn read_value(reader: &mut Reader<'_>) -> Result<AnyValue, FormatError> {
    read_value_at(reader, 0)
}

fn read_value_at(reader: &mut Reader<'_>, depth: usize) -> Result<AnyValue, FormatError> {
    if depth > DEPTH_MAX {
        return Err(reader.invalid());
    }
    Ok(match reader.byte()? {
        0 => AnyValue::Empty,
        1 => AnyValue::String(read_str(reader)?.into()),
        2 => match reader.byte()? {
            0 => AnyValue::Bool(false),
            1 => AnyValue::Bool(true),
            _ => return Err(reader.invalid()),
        },
        3 => AnyValue::Int(i64::from_be_bytes(reader.array()?)),
        4 => AnyValue::Double(f64::from_bits(u64::from_be_bytes(reader.array()?))),
        5 => AnyValue::Bytes(Bytes::copy_from_slice(read_bytes(reader)?)),
        6 => {
            let len = read_len(reader)?;
            let values = (0..len).map(|_| read_value_at(reader, depth + 1));
            AnyValue::Array(values.collect::<Result<_, _>>()?)
        }
        7 => {
            let len = read_len(reader)?;
            let pairs = (0..len).map(|_| Ok((read_str(reader)?.into(), read_value_at(reader, depth + 1)?)));
            AnyValue::KeyValues(Attributes(pairs.collect::<Result<_, FormatError>>()?))
        }
        _ => return Err(reader.invalid()),
    })
}

fn read_len(reader: &mut Reader<'_>) -> Result<usize, FormatError> {
    Ok(u32::from_be_bytes(reader.array()?) as usize)
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], FormatError> {
    let len = read_len(reader)?;
    reader.take(len)
}

fn read_str<'a>(reader: &mut Reader<'a>) -> Result<&'a str, FormatError> {
    let bytes = read_bytes(reader)?;
    std::str::from_utf8(bytes).map_err(|_| reader.invalid())
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("what one request carries is far below 4 GiB");
    out.extend(len.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    out.extend(value.to_bits().to_be_bytes());
}

fn put_optional(out: &mut Vec<u8>, value: Option<f64>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put_double(out, value);
    }
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_len(out, items.len());
    items.iter().for_each(|item| put(out, item));
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    put_list(out, &attributes.0, |out, (key, value)| {
        put_bytes(out, key.as_bytes());
        put_value(out, value);
    });
}

fn put_point(out: &mut Vec<u8>, point: &Point) {
    put_point_value(out, &point.value);
    out.extend(point.start_time_unix_nano.to_be_bytes());
    out.extend(point.flags.to_be_bytes());
    put_list(out, &point.exemplars, put_exemplar);
}

fn put_point_value(out: &mut Vec<u8>, value: &PointValue) {
    let counts = |out: &mut Vec<u8>, counts: &[u64]| {
        put_list(out, counts, |out, count| out.extend(count.to_be_bytes()));
    };
    match value {
        PointValue::None => out.push(0),
        PointValue::Int(value) => {
            out.push(1);
            out.extend(value.to_be_bytes());
        }
        PointValue::Double(value) => {
            out.push(2);
            put_double(out, *value);
        }
        PointValue::Histogram(histogram) => {
            out.push(3);
            out.extend(histogram.count.to_be_bytes());
            put_optional(out, histogram.sum);
            put_optional(out, histogram.min);
            put_optional(out, histogram.max);
            counts(out, &histogram.bucket_counts);
            put_list(out, &histogram.explicit_bounds, |out, bound| put_double(out, *bound));
        }
        PointValue::ExponentialHistogram(histogram) => {
            out.push(4);
            out.extend(histogram.count.to_be_bytes());
            put_optional(out, histogram.sum);
            put_optional(out, histogram.min);
            put_optional(out, histogram.max);
            out.extend(histogram.scale.to_be_bytes());
            out.extend(histogram.zero_count.to_be_bytes());
            put_double(out, histogram.zero_threshold);
            for buckets in [&histogram.positive, &histogram.negative] {
                out.extend(buckets.offset.to_be_bytes());
                counts(out, &buckets.bucket_counts);
            }
        }
        PointValue::Summary(summary) => {
            out.push(5);
            out.extend(summary.count.to_be_bytes());
            put_double(out, summary.sum);
            put_list(out, &summary.quantiles, |out, quantile| {
                put_double(out, quantile.quantile);
                put_double(out, quantile.value);
            });
        }
    }
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend(exemplar.time_unix_nano.to_be_bytes());
    put_point_value(out, &exemplar.value);
    out.extend(exemplar.trace_id);
    out.extend(exemplar.span_id);
    put_attributes(out, &exemplar.filtered_attributes);
}

fn put_record(out: &mut Vec<u8>, record: &LogRecord) {
    out.extend(record.time_unix_nano.to_be_bytes());
    out.extend(record.observed_time_unix_nano.to_be_bytes());
    out.push(record.severity_number);
    put_bytes(out, record.severity_text.as_bytes());
    put_bytes(out, record.event_name.as_bytes());
    put_value(out, &record.body);
    put_attributes(out, &record.attributes);
    out.extend(record.dropped_attributes_count.to_be_bytes());
    out.extend(record.flags.to_be_bytes());
    out.extend(record.trace_id);
    out.extend(record.span_id);
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    out.extend(span.start_time_unix_nano.to_be_bytes());
    out.extend(span.end_time_unix_nano.to_be_bytes());
    out.extend(span.trace_id);
    out.extend(span.span_id);
    out.extend(span.parent_span_id);
    put_bytes(out, span.trace_state.as_bytes());
    out.extend(span.flags.to_be_bytes());
    put_bytes(out, span.name.as_bytes());
    out.extend([span.kind, span.status_code]);
    put_bytes(out, span.status_message.as_bytes());
    put_attributes(out, &span.attributes);
    out.extend(span.dropped_attributes_count.to_be_bytes());
    put_list(out, &span.events, |out, event| {
        out.extend(event.time_unix_nano.to_be_bytes());
        put_bytes(out, event.name.as_bytes());
        put_attributes(out, &event.attributes);
        out.extend(event.dropped_attributes_count.to_be_bytes());
    });
    out.extend(span.dropped_events_count.to_be_bytes());
    put_list(out, &span.links, |out, link| {
        out.extend(link.trace_id);
        out.extend(link.span_id);
        put_bytes(out, link.trace_state.as_bytes());
        put_attributes(out, &link.attributes);
        out.extend(link.dropped_attributes_count.to_be_bytes());
        out.extend(link.flags.to_be_bytes());
    });
    out.extend(span.dropped_links_count.to_be_bytes());
}

fn put_stream(out: &mut Vec<u8>, stream: &Stream) {
    out.extend(stream.id.0.to_be_bytes());
    put_resource(out, &stream.resource);
    put_scope(out, &stream.scope);
}

fn put_resource(out: &mut Vec<u8>, resource: &Resource) {
    put_attributes(out, &resource.attributes);
    out.extend(resource.dropped_attributes_count.to_be_bytes());
    put_bytes(out, resource.schema_url.as_bytes());
}

fn put_scope(out: &mut Vec<u8>, scope: &Scope) {
    put_bytes(out, scope.name.as_bytes());
    put_bytes(out, scope.version.as_bytes());
    put_attributes(out, &scope.attributes);
    out.extend(scope.dropped_attributes_count.to_be_bytes());
    put_bytes(out, scope.schema_url.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> AnyValue {
        (0..depth).fold(AnyValue::Int(1), |value, _| AnyValue::Array(vec![value]))
    }

    fn read(value: &AnyValue) -> Result<AnyValue, FormatError> {
        let mut bytes = Vec::new();
        put_value(&mut bytes, value);
        read_value(&mut Reader::new(&bytes, "value"))
    }

    #[test]
    fn values_nest_as_deep_as_promised_and_no_deeper() {
        assert_eq!(read(&nested(DEPTH_MAX)).unwrap(), nested(DEPTH_MAX));
        assert!(read(&nested(DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn values_that_compare_equal_but_differ_in_bits_have_different_bytes() {
        let bytes = |value: f64| attributes_bytes(&[("k", value)].into_iter().collect());
        assert_ne!(bytes(0.0), bytes(-0.0));
        assert_ne!(bytes(f64::NAN), bytes(-f64::NAN));
        let list =
            |values: &[&str]| AnyValue::Array(values.iter().map(|value| AnyValue::from(*value)).collect());
        let mut one = Vec::new();
        put_value(&mut one, &list(&["a", "bc"]));
        let mut other = Vec::new();
        put_value(&mut other, &list(&["ab", "c"]));
        assert_ne!(one, other);
    }

    /// Which of two values wins may never change: replicas of two versions would not agree.
    #[test]
    fn canonical_bytes_of_a_point_are_pinned() {
        let point = Point {
            time_unix_nano: 5,
            start_time_unix_nano: 1,
            flags: 2,
            value: PointValue::Int(3),
            exemplars: Vec::new(),
        };
        let mut bytes = Vec::new();
        put_point(&mut bytes, &point);
        let expected = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(bytes, expected);
    }
}
