//! Answers of the query APIs as text for people. What has no known shape is shown as the JSON that it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::status_table::table;
use crate::time;

/// The `data` of Prometheus' and Loki's query answers.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Matrix(Vec<Series>),
    Scalar((Value, String)),
    String((Value, String)),
    Streams(Vec<Stream>),
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: Option<(Value, String)>,
    histogram: Option<(Value, Value)>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(Value, String)>,
    #[serde(default)]
    histograms: Vec<(Value, Value)>,
}

#[derive(Deserialize)]
struct Stream {
    stream: BTreeMap<String, String>,
    /// Nanoseconds as text, the line, and perhaps structured metadata.
    values: Vec<Vec<Value>>,
}

/// Tempo's search answer.
#[derive(Deserialize)]
struct Search {
    traces: Vec<Trace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(default)]
    root_service_name: String,
    #[serde(default)]
    root_trace_name: String,
    /// 64-bit integers are text in protobuf's JSON.
    #[serde(default)]
    start_time_unix_nano: Value,
    #[serde(default)]
    duration_ms: u64,
}

pub(crate) fn render(answer: &Value) -> String {
    let data = answer.get("data").and_then(|data| {
        // Loki puts statistics beside the result, so only the two fields that are needed are read.
        let (kind, result) = (data.get("resultType")?, data.get("result")?);
        serde_json::from_value::<Data>(serde_json::json!({ "resultType": kind, "result": result })).ok()
    });
    if let Some(data) = data {
        return render_data(data);
    }
    if let Ok(search) = Search::deserialize(answer) {
        return render_search(&search);
    }
    serde_json::to_string_pretty(answer).expect("JSON was JSON before")
}

/// What the server says beside the result: that it is partial, or a limit was hit.
pub(crate) fn warnings(answer: &Value) -> Vec<String> {
    let lists = ["warnings", "infos"].iter().filter_map(|key| answer.get(key)?.as_array());
    lists.flatten().filter_map(|warning| warning.as_str().map(str::to_owned)).collect()
}

fn render_data(data: Data) -> String {
    let mut rows;
    match data {
        Data::Vector(samples) if samples.is_empty() => return "no series".to_owned(),
        Data::Matrix(series) if series.is_empty() => return "no series".to_owned(),
        Data::Streams(streams) if streams.is_empty() => return "no log lines".to_owned(),
        Data::Scalar((_, value)) | Data::String((_, value)) => return value,
        Data::Vector(samples) => {
            rows = table(&["SERIES", "VALUE"], &[1]);
            for sample in samples {
                let histogram = sample.histogram.map(|(_, histogram)| histogram.to_string());
                let value = sample.value.map(|(_, value)| value).or(histogram).unwrap_or_default();
                rows.add_row([labels(&sample.metric), value]);
            }
        }
        Data::Matrix(series) => {
            rows = table(&["SERIES", "TIME", "VALUE"], &[2]);
            for series in series {
                let histograms = series.histograms.iter().map(|(at, value)| (at, value.to_string()));
                let values = series.values.iter().map(|(at, value)| (at, value.clone())).chain(histograms);
                for (index, (at, value)) in values.enumerate() {
                    let name = if index == 0 { labels(&series.metric) } else { String::new() };
                    rows.add_row([name, seconds(at), value]);
                }
            }
        }
        Data::Streams(streams) => return render_streams(streams),
    }
    rows.to_string()
}

/// One line a record, all streams together, in the order of time.
fn render_streams(streams: Vec<Stream>) -> String {
    let mut lines: Vec<(u64, String, String)> = Vec::new();
    for stream in &streams {
        let labels = labels(&stream.stream);
        for value in &stream.values {
            let at = value.first().and_then(Value::as_str).and_then(|at| at.parse().ok()).unwrap_or(0);
            let line = value.get(1).and_then(Value::as_str).unwrap_or_default();
            lines.push((at, labels.clone(), line.trim_end().to_owned()));
        }
    }
    lines.sort();
    let lines = lines.into_iter().map(|(at, labels, line)| format!("{}  {labels}  {line}", time::format(at)));
    lines.collect::<Vec<_>>().join("\n")
}

fn render_search(search: &Search) -> String {
    if search.traces.is_empty() {
        return "no traces".to_owned();
    }
    let mut rows = table(&["TRACE", "START", "DURATION", "SERVICE", "NAME"], &[2]);
    for trace in &search.traces {
        let start = match &trace.start_time_unix_nano {
            Value::String(text) => text.parse().unwrap_or(0),
            value => value.as_u64().unwrap_or(0),
        };
        rows.add_row([
            trace.trace_id.clone(),
            time::format(start),
            format!("{} ms", trace.duration_ms),
            trace.root_service_name.clone(),
            trace.root_trace_name.clone(),
        ]);
    }
    rows.to_string()
}

/// A series as Prometheus writes it: `name{label="value"}`.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let name = labels.get("__name__").cloned().unwrap_or_default();
    let rest =
        labels.iter().filter(|(key, _)| *key != "__name__").map(|(key, value)| format!("{key}={value:?}"));
    let rest = rest.collect::<Vec<_>>().join(", ");
    if rest.is_empty() && !name.is_empty() { name } else { format!("{name}{{{rest}}}") }
}

fn seconds(at: &Value) -> String {
    let at = at.as_f64().unwrap_or(0.0);
    time::format((at * 1e3).round() as u64 * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_several_streams_come_in_the_order_of_time() {
        let answer = json!({ "status": "success", "data": { "resultType": "streams", "stats": {}, "result": [
            { "stream": { "service_name": "b" }, "values": [["1700000000002000000", "second\n"]] },
            { "stream": { "service_name": "a" }, "values": [["1700000000001000000", "first", {}]] },
        ] } });
        assert_eq!(
            render(&answer),
            "2023-11-14T22:13:20.001Z  {service_name=\"a\"}  first\n\
             2023-11-14T22:13:20.002Z  {service_name=\"b\"}  second"
        );
    }

    #[test]
    fn an_empty_vector_is_said_to_be_empty() {
        let answer = json!({ "status": "success", "data": { "resultType": "vector", "result": [] } });
        assert_eq!(render(&answer), "no series");
    }

    #[test]
    fn an_unknown_shape_is_shown_as_it_is() {
        assert!(render(&json!({ "something": "else" })).contains("\"something\": \"else\""));
    }

    #[test]
    fn partial_results_are_said() {
        assert_eq!(warnings(&json!({ "warnings": ["partial: 1 of 3 nodes"] })), ["partial: 1 of 3 nodes"]);
    }
}
