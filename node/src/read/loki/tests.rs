//! Requests through the router, answered from a set of rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use oteld_env::Env;
use oteld_query::{LeafContext, LeafReply, LeafRequest, Limits, QueryErrorKind};
use oteld_store::model::identity::stream_id;
use oteld_store::model::{LogRecord, LogRow, RequestId, Resource, Rows, Scope, Shard, Stream, Tenant};
use oteld_store::scan::{RowSet, ScanBudget};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::super::ask::Ask;
use super::*;

/// 2020-05-07T22:07:01Z
const BASE: u64 = 1_588_889_221;

/// Two leaves over one row set.
struct Leaves {
    rows: RowSet,
    incomplete: Vec<String>,
    fails: Option<QueryErrorKind>,
}

#[async_trait]
impl Ask for Leaves {
    async fn ask(&self, tenant: &Tenant, request: LeafRequest, _: AskOptions) -> Result<Answer, QueryError> {
        if let Some(kind) = self.fails {
            return Err(QueryError::new(kind, "the leaves say no"));
        }
        let limits = Limits::default();
        let bytes = rmp_serde::to_vec(&request).expect("a request encodes");
        let request: LeafRequest = rmp_serde::from_slice(&bytes).expect("a request decodes");
        let mut answer = Answer { incomplete: self.incomplete.clone(), rows_scanned: 3, ..Answer::default() };
        for shard in [Shard(0), Shard(1)] {
            let budget = ScanBudget::unlimited();
            let context = LeafContext {
                scan: &self.rows,
                tenant: tenant.clone(),
                shards: Arc::new(BTreeSet::from([shard])),
                budget: &budget,
                limits: &limits,
            };
            let reply = oteld_query::leaf(&context, &request)?;
            // Replies travel between nodes, so they must survive it.
            let bytes = rmp_serde::to_vec(&reply).expect("a reply encodes");
            answer.replies.push(rmp_serde::from_slice::<LeafReply>(&bytes).expect("a reply decodes"));
        }
        Ok(answer)
    }
}

fn leaves() -> Leaves {
    let mut rows = RowSet::default();
    let lines = [("cart", 0, "level one", "7"), ("cart", 10, "error two", "8"), ("pay", 20, "three", "9")];
    for (index, (service, second, line, user)) in lines.into_iter().enumerate() {
        let resource =
            Resource { attributes: [("service.name", service)].into_iter().collect(), ..Resource::default() };
        let scope = Scope::default();
        let record = LogRecord {
            time_unix_nano: (BASE + second) * 1_000_000_000,
            body: line.into(),
            attributes: [("user.id", user)].into_iter().collect(),
            ..LogRecord::default()
        };
        let stream = Stream {
            id: stream_id(&Tenant::default(), &resource, &scope),
            resource: Arc::new(resource),
            scope: Arc::new(scope),
        };
        let row = LogRow {
            stream: Arc::new(stream),
            request: RequestId(u128::MAX - index as u128),
            ordinal: 0,
            record,
        };
        rows.add(&Tenant::default(), Shard(index as u32 % 2), Rows::Logs(vec![row]));
    }
    Leaves { rows, incomplete: Vec::new(), fails: None }
}

async fn send(leaves: Leaves, request: Request<Body>) -> (StatusCode, String) {
    let state = ReadState { env: Env::real(), ask: Arc::new(leaves), limits: Arc::new(Limits::default()) };
    let response = router().with_state(state).oneshot(request).await.expect("a router cannot fail");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body in memory").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// A GET of a path with these parameters.
fn get_of(path: &str, pairs: &[(&str, &str)]) -> Request<Body> {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let uri = format!("/loki/api/v1/{path}?{}", pairs.join("&"));
    Request::get(uri).body(Body::empty()).expect("a request")
}

async fn text(path: &str, pairs: &[(&str, &str)]) -> String {
    let (status, body) = send(leaves(), get_of(path, pairs)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

async fn json(path: &str, pairs: &[(&str, &str)]) -> Value {
    serde_json::from_str(&text(path, pairs).await).expect("JSON")
}

/// The parameters of a query over all rows, from before the first to behind the last.
fn over_all<'a>(query: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = vec![("query", query), ("start", "1588889220"), ("end", "2020-05-07T22:08:01Z")];
    pairs.extend_from_slice(more);
    pairs
}

#[tokio::test]
async fn a_log_query_gives_streams_with_all_labels() {
    let pairs = over_all(r#"{service_name="cart"}"#, &[("direction", "forward")]);
    let body = json("query_range", &pairs).await;
    assert_eq!(body["status"], "success");
    assert_eq!(body["data"]["resultType"], "streams");
    assert_eq!(
        body["data"]["result"],
        json!([
            {
                "stream": {"detected_level": "error", "service_name": "cart", "user_id": "8"},
                "values": [["1588889231000000000", "error two"]],
            },
            {
                "stream": {"detected_level": "unknown", "service_name": "cart", "user_id": "7"},
                "values": [["1588889221000000000", "level one"]],
            },
        ])
    );
    assert_eq!(body["data"]["stats"]["summary"]["totalLinesProcessed"], 3);
    assert!(body.get("warnings").is_none());
}

#[tokio::test]
async fn categorized_labels_come_as_a_third_element_behind_their_flag() {
    let pairs = over_all(r#"{service_name="cart"} |= "two" | logfmt x="none""#, &[]);
    let mut request = get_of("query_range", &pairs);
    request
        .headers_mut()
        .insert("X-Loki-Response-Encoding-Flags", "categorize-labels".parse().expect("a header value"));
    let (status, body) = send(leaves(), request).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let start = r#"{"status":"success","data":{"resultType":"streams","encodingFlags":["categorize-labels"],"result":["#;
    assert!(body.starts_with(start), "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        body["data"]["result"],
        json!([{
            "stream": {"service_name": "cart"},
            "values": [[
                "1588889231000000000",
                "error two",
                {"structuredMetadata": {"detected_level": "error", "user_id": "8"}, "parsed": {"x": ""}},
            ]],
        }])
    );
}

#[tokio::test]
async fn the_limit_and_the_direction_choose_across_leaves() {
    for (direction, expected) in [("forward", "level one"), ("BACKWARD", "three")] {
        let pairs = over_all(r#"{service_name=~".+"}"#, &[("limit", "1"), ("direction", direction)]);
        let body = json("query_range", &pairs).await;
        assert_eq!(body["data"]["result"].as_array().map(Vec::len), Some(1));
        assert_eq!(body["data"]["result"][0]["values"][0][1], expected);
    }
}

#[tokio::test]
async fn metric_queries_give_matrices_and_vectors() {
    let query = r#"sum by (service_name) (count_over_time({service_name=~".+"}[1m]))"#;
    let body = json(
        "query_range",
        &[("query", query), ("start", "1588889231"), ("end", "1588889251"), ("step", "10")],
    )
    .await;
    assert_eq!(body["data"]["resultType"], "matrix");
    assert_eq!(
        body["data"]["result"],
        json!([
            {"metric": {"service_name": "cart"}, "values": [[1588889231, "2"], [1588889241, "2"], [1588889251, "2"]]},
            {"metric": {"service_name": "pay"}, "values": [[1588889241, "1"], [1588889251, "1"]]},
        ])
    );
    let query = r#"sum(rate({service_name="pay"}[40s]))"#;
    let body = json("query", &[("query", query), ("time", "1588889241500000000")]).await;
    assert_eq!(body["data"]["resultType"], "vector");
    assert_eq!(body["data"]["result"], json!([{"metric": {}, "value": [1588889241.5, "0.025"]}]));
}

#[tokio::test]
async fn grafanas_health_check_is_answered() {
    let body = json("query", &[("query", "vector(1)+vector(1)"), ("time", "4000000000")]).await;
    assert_eq!(body["data"]["result"], json!([{"metric": {}, "value": [4000000000_u64, "2"]}]));
}

#[tokio::test]
async fn the_drilldown_app_is_told_what_there_is() {
    let limits = json("drilldown-limits", &[]).await;
    assert_eq!(limits["pattern_ingester_enabled"], false);
    assert_eq!(limits["limits"]["volume_enabled"], true);
    assert_eq!(limits["limits"]["max_entries_limit_per_query"], Limits::default().entries_max);
    assert!(limits["version"].is_string());
}

#[tokio::test]
async fn labels_values_and_series_come_from_streams_in_range() {
    let times = [("start", "1588889220"), ("end", "1588889300")];
    assert_eq!(json("labels", &times).await, json!({"status": "success", "data": ["service_name"]}));
    assert_eq!(
        json("label/service_name/values", &times).await,
        json!({"status": "success", "data": ["cart", "pay"]})
    );
    assert_eq!(
        json("label/service_name/values", &over_all(r#"{service_name=~"p.+"}"#, &[])).await["data"],
        json!(["pay"])
    );
    assert_eq!(json("label/nothing/values", &times).await["data"], json!([]));
    assert_eq!(json("labels", &[("end", "1500000000")]).await["data"], json!([]));
    let form = format!("match[]={}&start=1588889220&end=1588889300", encoded(r#"{service_name="cart"}"#));
    let request = Request::post("/loki/api/v1/series")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form))
        .expect("a request");
    let (_, body) = send(leaves(), request).await;
    assert_eq!(body, r#"{"status":"success","data":[{"service_name":"cart"}]}"#);
    assert_eq!(
        json("detected_labels", &times).await,
        json!({"detectedLabels": [{"label": "service_name", "cardinality": 2}]})
    );
}

#[tokio::test]
async fn index_stats_and_volume_count_rows() {
    let pairs = over_all(r#"{service_name=~".+"}"#, &[]);
    assert_eq!(
        json("index/stats", &pairs).await,
        json!({"streams": 2, "chunks": 0, "bytes": 23, "entries": 3})
    );
    let body = json("index/volume", &pairs).await;
    assert_eq!(
        body["data"]["result"],
        json!([
            {"metric": {"service_name": "cart"}, "value": [1588889281, "18"]},
            {"metric": {"service_name": "pay"}, "value": [1588889281, "5"]},
        ])
    );
    let pairs = over_all(r#"{service_name=~".+"}"#, &[("aggregateBy", "labels")]);
    let body = json("index/volume", &pairs).await;
    assert_eq!(
        body["data"]["result"],
        json!([{"metric": {"service_name": ""}, "value": [1588889281, "23"]}])
    );
}

#[tokio::test]
async fn fields_are_detected_in_metadata_and_lines() {
    let mut leaves = leaves();
    let (service, scope) = ([("service.name", "json")].into_iter().collect(), Scope::default());
    let resource = Resource { attributes: service, ..Resource::default() };
    let stream = Stream {
        id: stream_id(&Tenant::default(), &resource, &scope),
        resource: Arc::new(resource),
        scope: Arc::new(scope),
    };
    let rows =
        [r#"{"a":{"b":"5ms"},"ok":true}"#, "took=1.5 who=eve"].into_iter().enumerate().map(|(n, line)| {
            LogRow {
                stream: Arc::new(stream.clone()),
                request: RequestId(1),
                ordinal: n as u32,
                record: LogRecord {
                    time_unix_nano: BASE * 1_000_000_000,
                    body: line.into(),
                    ..LogRecord::default()
                },
            }
        });
    leaves.rows.add(&Tenant::default(), Shard(0), Rows::Logs(rows.collect()));
    let pairs = over_all(r#"{service_name="json"}"#, &[]);
    let (_, body) = send(leaves, get_of("detected_fields", &pairs)).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        body,
        json!({"limit": 1000, "fields": [
            {"label": "a_b", "type": "duration", "cardinality": 1, "parsers": ["json"], "jsonPath": ["a", "b"]},
            {"label": "detected_level", "type": "string", "cardinality": 1, "parsers": null},
            {"label": "ok", "type": "boolean", "cardinality": 1, "parsers": ["json"], "jsonPath": ["ok"]},
            {"label": "took", "type": "float", "cardinality": 1, "parsers": ["logfmt"]},
            {"label": "who", "type": "string", "cardinality": 1, "parsers": ["logfmt"]},
        ]})
    );
    let body = json("detected_field/user_id/values", &over_all(r#"{service_name=~".+"}"#, &[])).await;
    assert_eq!(body, json!({"values": ["7", "8", "9"], "limit": 1000}));
}

#[tokio::test]
async fn errors_have_lokis_codes_and_a_message() {
    let selector = r#"{service_name="cart"}"#;
    for (path, pairs, status, words) in [
        ("query_range", vec![("query", "{")], 400, "parse error at line 1, col 2"),
        ("query_range", vec![], 400, "`query` is missing"),
        ("query", vec![("query", selector)], 400, "instant query type"),
        ("query_range", vec![("query", selector), ("start", "x")], 400, "could not parse 'start'"),
        ("query_range", vec![("query", selector), ("start", "5"), ("end", "4")], 400, "end timestamp"),
        ("query_range", vec![("query", selector), ("limit", "5001")], 400, "max entries limit"),
        ("query_range", vec![("query", selector), ("limit", "0")], 400, "limit must be"),
        ("query_range", vec![("query", selector), ("interval", "5s")], 501, "interval"),
        ("query_range", vec![("query", r#"{a="b"} | distinct x"#)], 501, "distinct"),
        ("tail", vec![("query", selector)], 501, "/loki/api/v1/tail is not supported yet"),
        ("patterns", vec![], 501, "patterns"),
        ("detected_fields", vec![("query", "vector(1)")], 400, "log queries only"),
    ] {
        let (found, body) = send(leaves(), get_of(path, &pairs)).await;
        assert_eq!(found.as_u16(), status, "{path} {pairs:?}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert!(body["message"].as_str().is_some_and(|message| message.contains(words)), "{words}: {body}");
        assert_eq!((&body["status"], &body["code"]), (&json!("error"), &json!(status)));
    }
    let too_long = format!("{{a=\"{}\"}}", "x".repeat(20_000));
    let (status, body) = send(leaves(), get_of("query_range", &[("query", &too_long)])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("the limit is 16384 bytes"), "{body}");
}

#[tokio::test]
async fn what_the_cluster_refuses_keeps_its_kind() {
    for (kind, status) in [
        (QueryErrorKind::Timeout, 504),
        (QueryErrorKind::Cancelled, 499),
        (QueryErrorKind::Unavailable, 503),
        (QueryErrorKind::Limit, 400),
        (QueryErrorKind::Internal, 500),
    ] {
        let leaves = Leaves { fails: Some(kind), ..leaves() };
        let (found, body) = send(leaves, get_of("labels", &[])).await;
        assert_eq!(found.as_u16(), status, "{body}");
        assert!(body.contains("the leaves say no"));
    }
}

#[tokio::test]
async fn a_partial_result_says_so_everywhere() {
    let query = r#"{service_name="cart"}"#;
    let metric = r#"sum(rate({service_name="cart"}[1m]))"#;
    for (path, query) in [
        ("query_range", query),
        ("query_range", metric),
        ("query", metric),
        ("labels", query),
        ("label/service_name/values", query),
        ("series", query),
        ("detected_labels", query),
        ("detected_fields", query),
        ("detected_field/user_id/values", query),
        ("index/stats", query),
        ("index/volume", query),
    ] {
        let partial = Leaves { incomplete: vec!["node 3 did not answer".to_owned()], ..leaves() };
        let (status, body) = send(partial, get_of(path, &over_all(query, &[]))).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["warnings"], json!(["node 3 did not answer"]), "{path}");
    }
}

#[tokio::test]
async fn a_tenant_sees_only_its_own() {
    let mut request = get_of("labels", &[("start", "1588889220"), ("end", "1588889300")]);
    request.headers_mut().insert("X-Scope-OrgID", "other".parse().expect("a header value"));
    let (_, body) = send(leaves(), request).await;
    assert_eq!(body, r#"{"status":"success","data":[]}"#);
    let mut request = get_of("labels", &[]);
    request.headers_mut().insert("X-Scope-OrgID", "a/b".parse().expect("a header value"));
    assert_eq!(send(leaves(), request).await.0, StatusCode::BAD_REQUEST);
}
