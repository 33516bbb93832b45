//! Input that must be refused, and bursts that are too much: precise answers are expected, and nobody else may notice.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Request;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;

use super::{Phase, Shared};
use crate::history::event::{Event, Probe};
use crate::workload::item::Signal;
use crate::workload::request::Block;

const PROTOBUF: &str = "application/x-protobuf";

/// Between two probes.
const PAUSE_MS: std::ops::Range<u64> = 200..2_500;

/// What [`bad`] knows.
const KINDS: u64 = 12;

/// Requests of a burst. Together they hold more than any budget that a test gives.
const BURST: usize = 16;

/// Something to send, and the statuses that are right for it.
struct Bad {
    kind: &'static str,
    expect: &'static [u16],
    /// To the query port instead of OTLP's.
    is_query: bool,
    request: http::request::Builder,
    body: Bytes,
}

/// Sends one thing that must be refused after the other until the healing begins, and now and then a burst.
pub(super) async fn prober(shared: Rc<Shared>) {
    let mut turn = 0_usize;
    let mut kind = shared.env.random.in_range(0..KINDS) as usize;
    let mut keys = Vec::new();
    while shared.phase() == Phase::Work {
        let pause = Duration::from_millis(shared.env.random.in_range(PAUSE_MS));
        shared.sleep_in_work(pause).await;
        match turn % 4 {
            3 if (turn + 1).checked_rem(shared.plan.burst_every) == Some(0) => burst(&shared).await,
            1 => keys.extend(use_key(&shared, turn).await),
            2 if !keys.is_empty() => {
                let key = &keys[shared.env.random.in_range(0..keys.len() as u64) as usize];
                one(&shared, used_key(&shared, key, turn)).await;
            }
            _ => {
                one(&shared, bad(&shared, kind)).await;
                kind += 1;
            }
        }
        turn += 1;
    }
}

/// Sends something under an idempotency key of its own; the key, once that is acknowledged.
async fn use_key(shared: &Rc<Shared>, turn: usize) -> Option<String> {
    let key = format!("probe-{turn}");
    let Bad { request, body, .. } = used_key(shared, &key, 0);
    let address = &shared.targets.fronts[shared.some_front()].otlp_http;
    let answer = shared.pool.exchange(address, request, body, shared.plan.answer_wait).await;
    answer.is_ok_and(|answer| answer.status == 200).then_some(key)
}

/// Another body under the same key, as `version` says: it is no retry, and to drop it as one would lose it.
fn used_key(shared: &Shared, key: &str, version: usize) -> Bad {
    let body = noise(&format!("version {version} under {key}"), shared.run.start_unix_nano);
    let request = post("/v1/logs", PROTOBUF).header("idempotency-key", key);
    Bad {
        kind: "another body under a used idempotency key",
        expect: &[409],
        is_query: false,
        request,
        body: body.into(),
    }
}

async fn one(shared: &Rc<Shared>, bad: Bad) {
    let number = shared.some_front();
    let front = &shared.targets.fronts[number];
    let address = if bad.is_query { &front.query } else { &front.otlp_http };
    let invoked_us = shared.timeline.now_us();
    let answer = shared.pool.exchange(address, bad.request, bad.body, shared.plan.answer_wait).await;
    let (status, explained, retry_after) = match &answer {
        Ok(answer) => (Some(answer.status), explains(&answer.body), answer.retry_after.is_some()),
        Err(_) => (None, false, false),
    };
    shared.recorder.record(Event::Probe(Probe {
        kind: bad.kind.into(),
        expect: bad.expect.to_vec(),
        status,
        explained,
        retry_after,
        front: number as u32,
        invoked_us,
        completed_us: shared.timeline.now_us(),
    }));
}

/// Whether there is a sentence in it.
fn explains(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count() >= 2
}

fn post(path: &str, content_type: &str) -> http::request::Builder {
    Request::post(path).header("content-type", content_type)
}

fn bad(shared: &Shared, kind: usize) -> Bad {
    let whole = || {
        let block = Block { signal: Signal::Logs, writer: u32::MAX, sequences: 0..4, echo: None };
        shared.run.request(&block)
    };
    let otlp = |kind, expect, request, body: Vec<u8>| Bad {
        kind,
        expect,
        is_query: false,
        request,
        body: body.into(),
    };
    let query = |kind, expect, path: &str| Bad {
        kind,
        expect,
        is_query: true,
        request: Request::get(path),
        body: Bytes::new(),
    };
    match kind % KINDS as usize {
        0 => {
            let mut body = whole();
            body.truncate(body.len() - 3);
            otlp("truncated protobuf", &[400], post("/v1/logs", PROTOBUF), body)
        }
        1 => otlp("bytes that are no protobuf", &[400], post("/v1/traces", PROTOBUF), vec![0xff; 64]),
        2 => {
            let body = br#"{"resourceLogs":7}"#.to_vec();
            otlp("JSON of another shape", &[400], post("/v1/logs", "application/json"), body)
        }
        3 => otlp("unknown content type", &[415], post("/v1/metrics", "text/plain"), whole()),
        4 => {
            let request = post("/v1/logs", PROTOBUF).header("content-encoding", "gzip");
            otlp("gzip that is none", &[400], request, whole())
        }
        5 => {
            let request = post("/v1/logs", PROTOBUF).header("content-encoding", "gzip");
            otlp("gzip bomb", &[413], request, bomb(shared.plan.request_bytes_max * 4))
        }
        6 => {
            let body = vec![0; shared.plan.request_bytes_max as usize + 1];
            otlp("oversized request", &[413], post("/v1/logs", PROTOBUF), body)
        }
        7 => otlp("event time far ahead", &[400], post("/v1/logs", PROTOBUF), far_ahead(shared)),
        8 => query("PromQL that is none", &[400], "/api/v1/query?query=sum%28"),
        9 => query("LogQL that is none", &[400], "/loki/api/v1/query_range?query=%7Ba%3D&start=1&end=2"),
        10 => query("trace id that is none", &[400], "/tempo/api/traces/xyz"),
        _ => query("too many steps", &[400, 422], "/api/v1/query_range?query=up&start=0&end=1e9&step=1ms"),
    }
}

fn bomb(bytes: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 64 << 10];
    for _ in 0..bytes / zeros.len() as u64 {
        encoder.write_all(&zeros).expect("a vector takes all that is written");
    }
    encoder.finish().expect("a vector takes all that is written")
}

fn far_ahead(shared: &Shared) -> Vec<u8> {
    let year = 365 * 86_400 * 1_000_000_000;
    noise("a year ahead", shared.run.start_unix_nano + year)
}

/// A log record that is no item of the run.
fn noise(body: &str, time_unix_nano: u64) -> Vec<u8> {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(body.into())) });
    let record = LogRecord { time_unix_nano, body, ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let group = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
}

/// Many large valid requests at once: each is taken, or refused with a delay after which to try again.
async fn burst(shared: &Rc<Shared>) {
    let size = shared.plan.request_bytes_max as usize / 2;
    let requests = (0..BURST).map(|number| {
        let body = noise(&format!("{number:016} ").repeat(size / 17), shared.run.start_unix_nano);
        let (kind, expect) = ("burst", &[200, 429][..]);
        let request = post("/v1/logs", PROTOBUF);
        let bad = Bad { kind, expect, is_query: false, request, body: body.into() };
        let shared = shared.clone();
        tokio::task::spawn_local(async move { one(&shared, bad).await })
    });
    for request in requests.collect::<Vec<_>>() {
        // A panic of the task would be one of ours; the run's end shows it as a client that ended.
        let _ = request.await;
    }
}
