//! The clients of a simulated run: OTLP/HTTP in, the query APIs out, over simulated sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use oteld_env::Env;
use serde_json::Value;
use tokio::time::timeout;

use crate::history::{Outcome, Read, Write};
use crate::workload::{Item, Run, SERVICE, Signal};

/// How long a client waits for an answer before it sends the same bytes again.
const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// How often a write is sent before its outcome is left unknown.
const ATTEMPTS_MAX: u32 = 6;

const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Speaks to one front, by its host name in the simulation.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) env: Env,
    pub(super) run: Run,
    pub(super) front: String,
}

impl Client {
    /// Sends until it is acknowledged or given up; a retry is the same bytes.
    pub(super) async fn write(&self, signal: Signal, items: Vec<Item>) -> Write {
        let body = Bytes::from(self.run.request(signal, &items));
        let invoked_ms = self.now_ms();
        let mut write =
            Write { signal, items, invoked_ms, completed_ms: 0, attempts: 0, outcome: Outcome::Unknown };
        while write.attempts < ATTEMPTS_MAX {
            write.attempts += 1;
            let request = Request::post(signal.path()).header("content-type", "application/x-protobuf");
            match self.exchange(4318, request, body.clone()).await {
                // An empty message is full success; anything in it is `partial_success`.
                Ok((200, body)) if body.is_empty() => {
                    write.outcome = Outcome::Acknowledged;
                    break;
                }
                Ok((200, _)) => {
                    write.outcome = Outcome::Rejected;
                    break;
                }
                Ok((status, body)) => {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    tracing::debug!(target: "jepsen", status, %body, "write refused");
                }
                Err(error) => tracing::debug!(target: "jepsen", %error, "write failed"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        write.completed_ms = self.now_ms();
        write
    }

    /// Sends the identical request once more, as a client does that missed the answer.
    pub(super) async fn write_again(&self, write: &Write) {
        let body = Bytes::from(self.run.request(write.signal, &write.items));
        let request = Request::post(write.signal.path()).header("content-type", "application/x-protobuf");
        let _ = self.exchange(4318, request, body).await;
    }

    /// Reads everything of a signal.
    ///
    /// # Errors
    /// In words, when there is no answer to be had now.
    pub(super) async fn read(&self, signal: Signal) -> Result<Read, String> {
        let invoked_ms = self.now_ms();
        let path = self.query(signal);
        let (status, body) = self.exchange(8081, Request::get(path), Bytes::new()).await?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let mut read = Read {
            signal,
            invoked_ms,
            completed_ms: self.now_ms(),
            partial: is_partial(&answer),
            items: BTreeMap::new(),
            strange: Vec::new(),
        };
        self.collect(signal, &answer, &mut read)
            .ok_or_else(|| format!("an answer of another shape: {answer}"))?;
        Ok(read)
    }

    /// Whether the front says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        matches!(self.exchange(8081, Request::get("/readyz"), Bytes::new()).await, Ok((200, _)))
    }

    fn query(&self, signal: Signal) -> String {
        let (start, end) =
            (self.run.start_unix_nano - 1_000_000_000, self.run.start_unix_nano + 3_600_000_000_000);
        match signal {
            Signal::Logs => format!(
                "/loki/api/v1/query_range?query=%7Bservice_name%3D%22{SERVICE}%22%7D&start={start}&end={end}\
                 &limit=1000000&direction=forward"
            ),
            Signal::Metrics => {
                format!("/api/v1/query?query=jepsen_items%5B2h%5D&time={}", end / 1_000_000_000)
            }
            Signal::Traces => format!(
                "/jaeger/api/traces?service={SERVICE}&limit=1000000&start={}&end={}",
                start / 1000,
                end / 1000
            ),
        }
    }

    fn collect(&self, signal: Signal, answer: &Value, read: &mut Read) -> Option<()> {
        let mut found = |item: Option<Item>, text: &dyn Fn() -> String| match item {
            Some(item) => *read.items.entry(item).or_default() += 1,
            None => read.strange.push(text()),
        };
        match signal {
            Signal::Logs => {
                for stream in answer["data"]["result"].as_array()? {
                    for entry in stream["values"].as_array()? {
                        let line = entry[1].as_str()?;
                        found(self.run.item_of_body(line), &|| line.to_owned());
                    }
                }
            }
            Signal::Metrics => {
                for series in answer["data"]["result"].as_array()? {
                    let instance = series["metric"]["instance"].as_str()?;
                    for sample in series["values"].as_array()? {
                        let item = self.item_of_sample(instance, sample[0].as_f64()?, sample[1].as_str()?);
                        found(item, &|| format!("{instance} {sample}"));
                    }
                }
            }
            Signal::Traces => {
                for trace in answer["data"].as_array()? {
                    for span in trace["spans"].as_array()? {
                        let (trace_id, span_id) = (span["traceID"].as_str()?, span["spanID"].as_str()?);
                        found(self.run.item_of_span(trace_id, span_id), &|| format!("{trace_id}/{span_id}"));
                    }
                }
            }
        }
        Some(())
    }

    fn item_of_sample(&self, instance: &str, seconds: f64, value: &str) -> Option<Item> {
        let writer = instance.strip_prefix("writer-")?.parse().ok()?;
        let time_ms = (seconds * 1000.0).round() as u64;
        let sequence = time_ms.checked_sub(self.run.start_unix_nano / 1_000_000)?;
        let item = Item { writer, sequence };
        (self.run.value(item).to_string() == value).then_some(item)
    }

    /// One request on a connection of its own.
    async fn exchange(
        &self,
        port: u16,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<(u16, Bytes), String> {
        let address = format!("{}:{port}", self.front);
        let exchange = async {
            let connection = self.env.net.connect(&address).await.map_err(|error| error.to_string())?;
            let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
                .await
                .map_err(|error| error.to_string())?;
            let driver = self.env.tasks.spawn(driver);
            let request = request.header("host", &self.front).body(Full::new(body));
            let request = request.map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            driver.abort();
            Ok((status, body.to_bytes()))
        };
        timeout(ANSWER_WAIT, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.env.clock.now_unix_nanos() - self.run.start_unix_nano) / 1_000_000
    }
}

/// Each API says it in its own way.
fn is_partial(answer: &Value) -> bool {
    let has = |value: &Value| value.as_array().is_some_and(|items| !items.is_empty());
    has(&answer["warnings"]) || has(&answer["data"]["warnings"]) || has(&answer["errors"])
}
