//! Asks any node of a cluster over HTTP: the admin API and the three query APIs.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::admin::{self, ClusterStatus, NodeStatus, ShardStatus};

/// Asks one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Url,
    tenant: Option<String>,
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{endpoint:?} is not an endpoint: {reason}")]
    Endpoint { endpoint: String, reason: String },
    /// Nothing answered: refused, unreachable, timed out, or broken off.
    #[error("no answer from {url}: {cause}")]
    NoAnswer { url: String, cause: String },
    /// An answer that is not a success; the message is the server's own.
    #[error("{url} answered {status}: {message}")]
    Refused { url: String, status: u16, message: String },
    /// A success that is not what the API promises: probably not oteld, or a newer one.
    #[error("{url} answered something else than this API: {cause}")]
    Unexpected { url: String, cause: String },
}

/// A query language, and with it the API that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    PromQl,
    LogQl,
    TraceQl,
}

/// The time that a query is about. Times are unix nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now, or for TraceQL the server's default range.
    Default,
    At(u64),
    /// The step is for PromQL and for LogQL's metric queries; `None` leaves it to the server.
    Range {
        start: u64,
        end: u64,
        step: Option<Duration>,
    },
}

impl Client {
    /// A client of the node at `endpoint` (`http://host:port`, or `host:port`). It does not connect yet.
    pub fn new(endpoint: &str, timeout: Duration) -> Result<Client, ClientError> {
        let bad = |reason: String| ClientError::Endpoint { endpoint: endpoint.to_owned(), reason };
        let with_scheme = match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false => format!("http://{endpoint}"),
        };
        let url =
            Url::parse(&with_scheme).map_err(|error| bad(format!("{error}; expected http://host:port")))?;
        if url.scheme() != "http" {
            return Err(bad(format!(
                "the scheme {}:// is not supported; expected http://host:port",
                url.scheme()
            )));
        }
        let http = reqwest::Client::builder().timeout(timeout).connect_timeout(timeout).no_proxy().build();
        Ok(Client { http: http.map_err(|error| bad(error.to_string()))?, endpoint: url, tenant: None })
    }

    /// Asks as this tenant (`X-Scope-OrgID`); without it the server takes `default`.
    #[must_use]
    pub fn with_tenant(self, tenant: impl Into<String>) -> Client {
        Client { tenant: Some(tenant.into()), ..self }
    }

    pub async fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        self.get(admin::CLUSTER_STATUS_PATH, &[]).await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClientError> {
        self.get(admin::NODES_PATH, &[]).await
    }

    pub async fn shards(&self) -> Result<Vec<ShardStatus>, ClientError> {
        self.get(admin::SHARDS_PATH, &[]).await
    }

    /// The API's own JSON answer: Prometheus' for PromQL, Loki's for LogQL, Tempo's search for TraceQL. `limit` is
    /// for log lines and traces.
    pub async fn query(
        &self,
        language: Language,
        query: &str,
        when: When,
        limit: Option<u32>,
    ) -> Result<Value, ClientError> {
        let (path, mut parameters) = query_parameters(language, query, when);
        if let (Some(limit), Language::LogQl | Language::TraceQl) = (limit, language) {
            parameters.push(("limit", limit.to_string()));
        }
        self.get(path, &parameters).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{path}", self.endpoint.path().trim_end_matches('/')));
        let named = url.to_string();
        let no_answer =
            |error: reqwest::Error| ClientError::NoAnswer { url: named.clone(), cause: root_cause(&error) };
        let mut request = self.http.get(url).query(parameters);
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let body = response.bytes().await.map_err(no_answer)?;
        if status != StatusCode::OK {
            return Err(ClientError::Refused {
                url: named,
                status: status.as_u16(),
                message: message_of(&body),
            });
        }
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unexpected { url: named, cause: error.to_string() })
    }
}

fn query_parameters(
    language: Language,
    query: &str,
    when: When,
) -> (&'static str, Vec<(&'static str, String)>) {
    let range = matches!(when, When::Range { .. });
    let (path, name) = match (language, range) {
        (Language::PromQl, false) => ("/prometheus/api/v1/query", "query"),
        (Language::PromQl, true) => ("/prometheus/api/v1/query_range", "query"),
        (Language::LogQl, false) => ("/loki/api/v1/query", "query"),
        (Language::LogQl, true) => ("/loki/api/v1/query_range", "query"),
        (Language::TraceQl, _) => ("/tempo/api/search", "q"),
    };
    let mut parameters = vec![(name, query.to_owned())];
    match when {
        When::Default => {}
        When::At(time) => parameters.push(("time", api_time(language, time))),
        When::Range { start, end, step } => {
            parameters.push(("start", api_time(language, start)));
            parameters.push(("end", api_time(language, end)));
            match (language, step) {
                (Language::TraceQl, _) | (Language::LogQl, None) => {}
                (_, Some(step)) => parameters.push(("step", step.as_secs_f64().to_string())),
                // Prometheus demands one: 100 steps, as a graph of that width would ask.
                (Language::PromQl, None) => {
                    let step = (end.saturating_sub(start) / 100).max(1_000_000_000);
                    parameters.push(("step", (step as f64 / 1e9).to_string()));
                }
            }
        }
    }
    (path, parameters)
}

/// Each API has its own unit: Prometheus decimal seconds, Loki nanoseconds, Tempo whole seconds.
fn api_time(language: Language, unix_nano: u64) -> String {
    let (seconds, nanos) = (unix_nano / 1_000_000_000, unix_nano % 1_000_000_000);
    match language {
        Language::PromQl => format!("{seconds}.{:03}", nanos / 1_000_000),
        Language::LogQl => unix_nano.to_string(),
        Language::TraceQl => seconds.to_string(),
    }
}

/// The message in an error body: the admin API's and Prometheus' `error`, Loki's `message`, or the text itself.
fn message_of(body: &[u8]) -> String {
    const LENGTH_MAX: usize = 500;
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && let Some(message) = ["error", "message"].iter().find_map(|key| value.get(key)?.as_str())
    {
        return message.to_owned();
    }
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => "without a message".to_owned(),
        text => text.chars().take(LENGTH_MAX).collect(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 1_700_000_000_123_456_789;

    #[test]
    fn each_api_gets_times_in_its_own_unit() {
        assert_eq!(api_time(Language::PromQl, TIME), "1700000000.123");
        assert_eq!(api_time(Language::LogQl, TIME), "1700000000123456789");
        assert_eq!(api_time(Language::TraceQl, TIME), "1700000000");
    }

    #[test]
    fn a_prometheus_range_without_a_step_has_a_hundred() {
        let when = When::Range { start: TIME, end: TIME + 3_600_000_000_000, step: None };
        let (path, parameters) = query_parameters(Language::PromQl, "up", when);
        assert_eq!(path, "/prometheus/api/v1/query_range");
        assert!(parameters.contains(&("step", "36".to_owned())));
    }

    #[test]
    fn the_message_is_found_in_every_apis_error() {
        assert_eq!(
            message_of(br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#),
            "parse error"
        );
        assert_eq!(message_of(br#"{"message":"too many streams"}"#), "too many streams");
        assert_eq!(message_of(b"upstream is gone\n"), "upstream is gone");
        assert_eq!(message_of(b""), "without a message");
    }

    #[test]
    fn an_endpoint_that_cannot_work_is_refused_at_once() {
        for endpoint in ["https://host:8081", "http://", "host:port", ""] {
            let error = Client::new(endpoint, Duration::from_secs(1)).expect_err("refused").to_string();
            assert!(error.contains("http://host:port"), "{error}");
        }
        for endpoint in ["http://127.0.0.1:8081", "127.0.0.1:8081", "front-1:8081", "localhost:8081"] {
            let client = Client::new(endpoint, Duration::from_secs(1)).expect("an endpoint");
            assert_eq!((client.endpoint.scheme(), client.endpoint.port()), ("http", Some(8081)));
        }
    }
}
