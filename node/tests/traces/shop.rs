//! Rows to ask about, and an `Ask` that answers from them.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use oteld::read::ask::{Answer, Ask, AskOptions, ReadState};
use oteld_env::Env;
use oteld_query::{LeafContext, LeafRequest, Limits, QueryError};
use oteld_store::model::{
    AnyValue, Resource, Rows, Scope, Shard, Span, SpanEvent, SpanLink, SpanRow, Stream, Tenant,
    identity::stream_id,
};
use oteld_store::scan::{RowSet, ScanBudget};
use serde_json::Value as Json;
use tower::ServiceExt;

/// When the shop's traces begin: 2026-01-01T00:00:00Z.
pub(crate) const T0: u64 = 1_767_225_600;
const SECOND: u64 = 1_000_000_000;

pub(crate) const GET_TRACE: &str = "000102030405060708090a0b0c0d0e0f";
pub(crate) const BUY_TRACE: &str = "00000000000000000000000000000abc";

/// Two leaves with a shard each.
struct Leaves {
    rows: RowSet,
    incomplete: Vec<String>,
}

#[async_trait]
impl Ask for Leaves {
    async fn ask(&self, tenant: &Tenant, request: LeafRequest, _: AskOptions) -> Result<Answer, QueryError> {
        // Requests and replies travel as the cluster sends them.
        let request: LeafRequest = rmp_serde::from_slice(&rmp_serde::to_vec(&request).unwrap()).unwrap();
        let budget = ScanBudget::unlimited();
        let reply = |shard| {
            let context = LeafContext {
                scan: &self.rows,
                tenant: tenant.clone(),
                shards: Arc::new([Shard(shard)].into()),
                budget: &budget,
                limits: &Limits::default(),
            };
            let reply = oteld_query::leaf(&context, &request);
            reply.map(|reply| rmp_serde::from_slice(&rmp_serde::to_vec(&reply).unwrap()).unwrap())
        };
        let replies = vec![reply(0)?, reply(1)?];
        Ok(Answer { replies, incomplete: self.incomplete.clone(), rows_scanned: 4, bytes_scanned: 1234 })
    }
}

/// An answer as it came over HTTP.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) struct Api {
    pub(crate) router: Router<ReadState>,
    /// What the cluster says is missing.
    pub(crate) incomplete: Vec<String>,
}

impl Api {
    pub(crate) async fn get(&self, uri: &str) -> Reply {
        self.get_with(uri, &[]).await
    }

    pub(crate) async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> Reply {
        let state = ReadState {
            env: Env::real(),
            ask: Arc::new(Leaves { rows: shop(), incomplete: self.incomplete.clone() }),
            limits: Arc::new(Limits::default()),
        };
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().with_state(state).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }
}

fn stream(service: Option<&str>) -> Arc<Stream> {
    let mut attributes: Vec<(&str, AnyValue)> = vec![("host.cpus", AnyValue::Int(8))];
    attributes.extend(service.map(|name| ("service.name", AnyValue::from(name))));
    let resource = Resource { attributes: attributes.into_iter().collect(), ..Resource::default() };
    let scope = Scope { name: "lib".into(), version: "1.2".into(), ..Scope::default() };
    let id = stream_id(&Tenant::default(), &resource, &scope);
    Arc::new(Stream { id, resource: Arc::new(resource), scope: Arc::new(scope) })
}

pub(crate) fn bytes_of(trace_id: &str) -> [u8; 16] {
    u128::from_str_radix(trace_id, 16).unwrap().to_be_bytes()
}

/// A shop's page view with a failing query (10.000 s to 10.250 s after [`T0`]), and a purchase that names no
/// service (20 s to 21 s).
fn shop() -> RowSet {
    let mut rows = RowSet::default();
    let tenant = Tenant::default();
    let base = (T0 + 10) * SECOND;
    let page = Span {
        trace_id: bytes_of(GET_TRACE),
        span_id: [1; 8],
        flags: 0x101,
        name: "GET /".into(),
        kind: 2,
        start_time_unix_nano: base,
        end_time_unix_nano: base + 250_000_999,
        attributes: page_attributes().into_iter().collect(),
        ..Span::default()
    };
    let query = Span {
        trace_id: bytes_of(GET_TRACE),
        span_id: [2; 8],
        parent_span_id: [1; 8],
        trace_state: "vendor=1".into(),
        name: "SELECT".into(),
        kind: 3,
        start_time_unix_nano: base + 100_000_000,
        end_time_unix_nano: base + 200_000_000,
        events: vec![SpanEvent {
            time_unix_nano: base + 150_000_000,
            name: "exception".into(),
            attributes: [("exception.type", "Timeout")].into_iter().collect(),
            ..SpanEvent::default()
        }],
        links: vec![SpanLink { trace_id: bytes_of(BUY_TRACE), span_id: [7; 8], ..SpanLink::default() }],
        status_code: 2,
        status_message: "timed out".into(),
        ..Span::default()
    };
    let buy = Span {
        trace_id: bytes_of(BUY_TRACE),
        span_id: [7; 8],
        name: "POST /buy".into(),
        start_time_unix_nano: (T0 + 20) * SECOND,
        end_time_unix_nano: (T0 + 21) * SECOND,
        ..Span::default()
    };
    let of = |service, span| SpanRow { stream: stream(service), span };
    rows.add(&tenant, Shard(0), Rows::Traces(vec![of(Some("shop"), page), of(Some("db"), query)]));
    rows.add(&tenant, Shard(1), Rows::Traces(vec![of(None, buy)]));
    rows
}

fn page_attributes() -> Vec<(&'static str, AnyValue)> {
    vec![
        ("http.method", "GET".into()),
        ("cached", true.into()),
        ("http.status_code", 200_i64.into()),
        ("big", i64::MAX.into()),
        ("ratio", 0.5.into()),
        ("body", AnyValue::Bytes(Bytes::from_static(b"\x00\xff"))),
        ("list", AnyValue::Array(vec![1_i64.into(), "x".into()])),
    ]
}
