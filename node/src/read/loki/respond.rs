//! The bodies of answers, byte for byte in Loki's order of fields: its clients read them as they stream in, and
//! must know the encoding before the values.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use oteld_query::logql::{Entry, Labels, LogStream, QueryResult, group_streams};
use serde::ser::{Serialize, SerializeTuple, Serializer};
use serde_json::{Value, json};

use super::error::LokiError;

/// What a query took.
pub(super) struct Spent {
    pub(super) rows_scanned: u64,
    pub(super) bytes_scanned: u64,
    pub(super) elapsed: Duration,
}

#[derive(serde::Serialize)]
struct Body<T> {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    data: T,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct QueryData {
    result_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    encoding_flags: Vec<&'static str>,
    result: QueryValue,
    stats: Value,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum QueryValue {
    Streams(Vec<StreamBody>),
    Vector(Vec<VectorBody>),
    Matrix(Vec<MatrixBody>),
    Scalar(Sample),
}

#[derive(serde::Serialize)]
struct StreamBody {
    stream: Labels,
    values: Vec<EntryBody>,
}

#[derive(serde::Serialize)]
struct VectorBody {
    metric: Labels,
    value: Sample,
}

#[derive(serde::Serialize)]
struct MatrixBody {
    metric: Labels,
    values: Vec<Sample>,
}

/// `["<ns>", "<line>"]`, and with `categorized` a third element.
struct EntryBody {
    entry: Entry,
    categorized: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryLabels<'a> {
    #[serde(skip_serializing_if = "Labels::is_empty")]
    structured_metadata: &'a Labels,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    parsed: &'a Labels,
}

/// `[<seconds>, "<value>"]`, to the millisecond.
struct Sample {
    time_unix_nano: u64,
    value: f64,
}

impl Serialize for EntryBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Entry { time_unix_nano, line, metadata, parsed, .. } = &self.entry;
        let mut tuple = serializer.serialize_tuple(if self.categorized { 3 } else { 2 })?;
        tuple.serialize_element(&time_unix_nano.to_string())?;
        tuple.serialize_element(line)?;
        if self.categorized {
            tuple.serialize_element(&EntryLabels { structured_metadata: metadata, parsed })?;
        }
        tuple.end()
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.time_unix_nano / 1_000_000;
        let mut tuple = serializer.serialize_tuple(2)?;
        match millis % 1000 {
            0 => tuple.serialize_element(&(millis / 1000))?,
            _ => tuple.serialize_element(&(millis as f64 / 1000.0))?,
        }
        tuple.serialize_element(&number(self.value))?;
        tuple.end()
    }
}

/// As Go's `strconv.FormatFloat(value, 'f', -1, 64)`.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

/// The answer to a query.
pub(super) fn query(
    result: QueryResult,
    categorized: bool,
    spent: Spent,
    warnings: Vec<String>,
) -> Result<Response, LokiError> {
    let mut encoding_flags = Vec::new();
    let mut entries_returned = 0;
    let (result_type, result) = match result {
        QueryResult::Entries(entries) => {
            entries_returned = entries.len();
            if categorized {
                encoding_flags.push("categorize-labels");
            }
            let stream = |LogStream { labels, entries }| StreamBody {
                stream: labels,
                values: entries.into_iter().map(|entry| EntryBody { entry, categorized }).collect(),
            };
            let streams = group_streams(entries, categorized);
            ("streams", QueryValue::Streams(streams.into_iter().map(stream).collect()))
        }
        QueryResult::Vector { time_unix_nano, samples } => {
            let samples = samples
                .into_iter()
                .map(|(metric, value)| VectorBody { metric, value: Sample { time_unix_nano, value } });
            ("vector", QueryValue::Vector(samples.collect()))
        }
        QueryResult::Matrix(series) => {
            let values = |values: Vec<(u64, f64)>| {
                values.into_iter().map(|(time_unix_nano, value)| Sample { time_unix_nano, value }).collect()
            };
            let series = series
                .into_iter()
                .map(|samples| MatrixBody { metric: samples.labels, values: values(samples.values) });
            ("matrix", QueryValue::Matrix(series.collect()))
        }
        QueryResult::Scalar { time_unix_nano, value } => {
            ("scalar", QueryValue::Scalar(Sample { time_unix_nano, value }))
        }
    };
    let stats = stats(&spent, entries_returned);
    let data = QueryData { result_type, encoding_flags, result, stats };
    let partial = !warnings.is_empty();
    send(&Body { status: "success", warnings, data }, partial)
}

/// The summary that Grafana shows; Loki's breakdown by component has no counterpart here.
fn stats(spent: &Spent, entries_returned: usize) -> Value {
    let seconds = spent.elapsed.as_secs_f64();
    let per_second = |count: u64| if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 };
    json!({"summary": {
        "bytesProcessedPerSecond": per_second(spent.bytes_scanned),
        "linesProcessedPerSecond": per_second(spent.rows_scanned),
        "totalBytesProcessed": spent.bytes_scanned,
        "totalLinesProcessed": spent.rows_scanned,
        "execTime": seconds,
        "queueTime": 0.0,
        "totalEntriesReturned": entries_returned,
    }})
}

/// `{"status":"success","data":…}`
pub(super) fn data(data: impl Serialize, warnings: Vec<String>) -> Result<Response, LokiError> {
    let partial = !warnings.is_empty();
    send(&Body { status: "success", warnings, data }, partial)
}

/// A body that has its fields at the top.
pub(super) fn top_level(mut body: Value, warnings: Vec<String>) -> Result<Response, LokiError> {
    let partial = !warnings.is_empty();
    if let (Value::Object(fields), true) = (&mut body, partial) {
        fields.insert("warnings".to_owned(), json!(warnings));
    }
    send(&body, partial)
}

fn send(body: &impl Serialize, partial: bool) -> Result<Response, LokiError> {
    let body = serde_json::to_vec(body).map_err(|error| LokiError::internal(error.to_string()))?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    let mut response = (StatusCode::OK, [json], body).into_response();
    if partial {
        // P5: a partial result is never kept as the complete one.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}
