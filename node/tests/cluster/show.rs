//! What a front shows, by each of its query APIs. Every answer must be complete: a partial one is a failure.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::send::Front;

/// Log lines that a query may give at most.
const LINES_MAX: usize = 5_000;

impl Front {
    /// # Errors
    /// The status and body of an answer that is not a complete 200.
    pub(crate) async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let request = self.http.get(format!("{}{path}", self.query)).query(parameters);
        let response = request.header("accept", "application/json").send().await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.text().await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("{path}: {status}: {body}"));
        }
        let body: Value = serde_json::from_str(&body).map_err(|error| format!("{path}: {error}: {body}"))?;
        let says_partial =
            ["warnings", "errors", "message"].iter().find(|key| body.get(key).is_some_and(|v| !v.is_null()));
        match says_partial {
            Some(key) => Err(format!("{path}: partial: {}", body[key])),
            None => Ok(body),
        }
    }

    /// Log lines of a service in a range of nanoseconds, by Loki's API, with how often each is there.
    pub(crate) async fn lines(
        &self,
        service: &str,
        time: Range<u64>,
    ) -> Result<BTreeMap<String, usize>, String> {
        let query = format!("{{service_name=\"{service}\"}}");
        let (start, end) = (time.start.to_string(), time.end.to_string());
        let limit = LINES_MAX.to_string();
        let parameters = [("query", &*query), ("start", &start), ("end", &end), ("limit", &limit)];
        let body = self.ask("/loki/api/v1/query_range", &parameters).await?;
        let streams = body["data"]["result"].as_array().into_iter().flatten();
        let values = streams.flat_map(|stream| stream["values"].as_array().unwrap());
        let mut lines = BTreeMap::new();
        for value in values {
            *lines.entry(value[1].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert!(lines.values().sum::<usize>() < LINES_MAX, "the range is too wide for one query");
        Ok(lines)
    }

    /// The value of a Loki metric query that gives one sample; zero where it gives none.
    pub(crate) async fn log_count(&self, query: &str) -> Result<f64, String> {
        let body = self.ask("/loki/api/v1/query", &[("query", query)]).await?;
        Ok(number(&body["data"]["result"][0]["value"][1]))
    }

    /// The value of a PromQL query that gives one sample; zero where it gives none.
    pub(crate) async fn prometheus_value(&self, query: &str) -> Result<f64, String> {
        let body = self.ask("/prometheus/api/v1/query", &[("query", query)]).await?;
        assert!(body["data"]["result"].as_array().unwrap().len() <= 1, "{body}");
        Ok(number(&body["data"]["result"][0]["value"][1]))
    }

    /// All samples of the one series that a range selector picks: (milliseconds, value).
    pub(crate) async fn samples(&self, selector: &str) -> Result<Vec<(u64, f64)>, String> {
        let body = self.ask("/prometheus/api/v1/query", &[("query", selector)]).await?;
        let series = body["data"]["result"].as_array().unwrap();
        assert!(series.len() <= 1, "{body}");
        let values = series.iter().flat_map(|series| series["values"].as_array().unwrap());
        Ok(values.map(|v| ((v[0].as_f64().unwrap() * 1000.0).round() as u64, number(&v[1]))).collect())
    }

    /// Names of the spans of a trace by Jaeger's API, with how often each is there.
    pub(crate) async fn jaeger_spans(&self, trace: u128) -> Result<BTreeMap<String, usize>, String> {
        let body = self.ask(&format!("/jaeger/api/traces/{trace:032x}"), &[]).await?;
        assert_eq!(body["data"].as_array().unwrap().len(), 1, "{body}");
        let mut names = BTreeMap::new();
        for span in body["data"][0]["spans"].as_array().unwrap() {
            *names.entry(span["operationName"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        Ok(names)
    }

    /// The same by Tempo's API.
    pub(crate) async fn tempo_spans(&self, trace: u128) -> Result<BTreeMap<String, usize>, String> {
        let body = self.ask(&format!("/tempo/api/v2/traces/{trace:032x}"), &[]).await?;
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let mut names = BTreeMap::new();
        for span in (list(&body["trace"], "resourceSpans").iter())
            .flat_map(|resource| list(resource, "scopeSpans"))
            .flat_map(|scope| list(&scope, "spans"))
        {
            *names.entry(span["name"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        Ok(names)
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().map_or(0.0, |text| text.parse().unwrap())
}
