//! The JSON of an answer, written by hand: an answer may have millions of samples.

use std::collections::BTreeSet;
use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use http::header;
use oteld_query::promql::number::format_sample;
use oteld_query::promql::{Data, ExemplarSeries, Labels, NativeHistogram, Sample};

use super::error::ApiError;

/// A body with `status` success.
#[derive(Debug)]
pub(super) struct Success(String);

impl Success {
    /// `data` is JSON already.
    pub(super) fn new(data: &str, warnings: &BTreeSet<String>, infos: &BTreeSet<String>) -> Self {
        let mut body = String::with_capacity(data.len() + 64);
        body.push_str("{\"status\":\"success\",\"data\":");
        body.push_str(data);
        for (name, notes) in [("warnings", warnings), ("infos", infos)] {
            if !notes.is_empty() {
                body.push(',');
                write_string(&mut body, name);
                body.push(':');
                write_list(&mut body, notes.iter(), |body, note| write_string(body, note));
            }
        }
        body.push('}');
        Success(body)
    }

    pub(super) fn plain(data: &serde_json::Value) -> Self {
        Success::new(&data.to_string(), &BTreeSet::new(), &BTreeSet::new())
    }
}

impl IntoResponse for Success {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// What a handler gives.
pub(super) type Answered = Result<Success, ApiError>;

/// The `data` of a query.
pub(super) fn query_data(data: &Data) -> String {
    let mut json = String::new();
    match data {
        Data::Scalar { time_ms, value } => {
            json.push_str("{\"resultType\":\"scalar\",\"result\":");
            write_sample(&mut json, *time_ms, &format_sample(*value));
        }
        Data::String { time_ms, value } => {
            json.push_str("{\"resultType\":\"string\",\"result\":");
            write_sample(&mut json, *time_ms, value);
        }
        Data::Vector { time_ms, samples } => {
            json.push_str("{\"resultType\":\"vector\",\"result\":");
            write_list(&mut json, samples.iter(), |json, (labels, sample)| {
                json.push_str("{\"metric\":");
                write_labels(json, labels);
                match sample {
                    Sample::Float(value) => {
                        json.push_str(",\"value\":");
                        write_sample(json, *time_ms, &format_sample(*value));
                    }
                    Sample::Histogram(histogram) => {
                        json.push_str(",\"histogram\":");
                        write_histogram(json, *time_ms, histogram);
                    }
                }
                json.push('}');
            });
        }
        Data::Matrix(matrix) => {
            json.push_str("{\"resultType\":\"matrix\",\"result\":");
            write_list(&mut json, matrix.iter(), |json, series| {
                json.push_str("{\"metric\":");
                write_labels(json, &series.labels);
                if !series.samples.is_empty() {
                    json.push_str(",\"values\":");
                    write_list(json, series.samples.iter(), |json, (time_ms, value)| {
                        write_sample(json, *time_ms, &format_sample(*value));
                    });
                }
                if !series.histograms.is_empty() {
                    json.push_str(",\"histograms\":");
                    write_list(json, series.histograms.iter(), |json, (time_ms, histogram)| {
                        write_histogram(json, *time_ms, histogram);
                    });
                }
                json.push('}');
            });
        }
    }
    json.push('}');
    json
}

/// The `data` of an exemplar query.
pub(super) fn exemplar_data(all: &[ExemplarSeries]) -> String {
    let mut json = String::new();
    write_list(&mut json, all.iter(), |json, series| {
        json.push_str("{\"seriesLabels\":");
        write_labels(json, &series.labels);
        json.push_str(",\"exemplars\":");
        write_list(json, series.exemplars.iter(), |json, exemplar| {
            json.push_str("{\"labels\":");
            write_labels(json, &exemplar.labels);
            json.push_str(",\"value\":");
            write_string(json, &format_sample(exemplar.value));
            json.push_str(",\"timestamp\":");
            write_time(json, exemplar.time_ms);
            json.push('}');
        });
        json.push('}');
    });
    json
}

/// A list of label sets.
pub(super) fn series_data<'a>(series: impl Iterator<Item = &'a Labels>) -> String {
    let mut json = String::new();
    write_list(&mut json, series, write_labels);
    json
}

/// A list of strings.
pub(super) fn strings_data<'a>(strings: impl Iterator<Item = &'a String>) -> String {
    let mut json = String::new();
    write_list(&mut json, strings, |json, text| write_string(json, text));
    json
}

fn write_list<T>(json: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    json.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(',');
        }
        write(json, item);
    }
    json.push(']');
}

fn write_labels(json: &mut String, labels: &Labels) {
    json.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_string(json, name);
        json.push(':');
        write_string(json, value);
    }
    json.push('}');
}

fn write_sample(json: &mut String, time_ms: i64, value: &str) {
    json.push('[');
    write_time(json, time_ms);
    json.push(',');
    write_string(json, value);
    json.push(']');
}

/// `[time, {count, sum, buckets: [[boundaries, lower, upper, count], …]}]`, where boundaries are 0 for an interval that
/// is open on the left, 1 on the right, 2 on both sides and 3 on none.
fn write_histogram(json: &mut String, time_ms: i64, histogram: &NativeHistogram) {
    json.push('[');
    write_time(json, time_ms);
    json.push_str(",{\"count\":");
    write_string(json, &format_sample(histogram.count));
    json.push_str(",\"sum\":");
    write_string(json, &format_sample(histogram.sum));
    let buckets = histogram.buckets();
    if !buckets.is_empty() {
        json.push_str(",\"buckets\":");
        write_list(json, buckets.iter(), |json, bucket| {
            json.push_str(match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => "[0",
                (true, false) => "[1",
                (false, false) => "[2",
                (true, true) => "[3",
            });
            for value in [bucket.lower, bucket.upper, bucket.count] {
                json.push(',');
                write_string(json, &format_sample(value));
            }
            json.push(']');
        });
    }
    json.push_str("}]");
}

/// Seconds, with three decimals where they are not zero.
fn write_time(json: &mut String, time_ms: i64) {
    let sign = if time_ms < 0 { "-" } else { "" };
    let (seconds, ms) = (time_ms.unsigned_abs() / 1000, time_ms.unsigned_abs() % 1000);
    let written =
        if ms == 0 { write!(json, "{sign}{seconds}") } else { write!(json, "{sign}{seconds}.{ms:03}") };
    written.expect("a string takes everything");
}

fn write_string(json: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::Value::from(text).to_string());
    }
}
