//! Tempo's API.

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};
use prost::Message;
use serde_json::{Value as Json, json};

use crate::shop::{Api, GET_TRACE, T0, bytes_of};

fn api() -> Api {
    Api { router: oteld::read::tempo::router(), incomplete: Vec::new() }
}

fn partial() -> Api {
    Api { incomplete: vec!["shard 3 was not \"reached\"".into()], ..api() }
}

async fn body(uri: &str) -> Json {
    let reply = api().get(uri).await;
    assert_eq!(reply.status, 200, "{uri}: {}", reply.text());
    assert_eq!(reply.headers["content-type"], "application/json");
    reply.json()
}

/// `tempopb.TraceByIDResponse`, as Grafana would read it.
#[derive(Clone, PartialEq, Message)]
struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

#[tokio::test]
async fn health_checks_answer() {
    let echo = api().get("/tempo/api/echo").await;
    assert_eq!((echo.status.as_u16(), echo.text().as_str()), (200, "echo"));
    assert_eq!(body("/tempo/api/status/buildinfo").await["version"], env!("CARGO_PKG_VERSION"));
}

fn expected_spans() -> Json {
    let nanos = |millis: u64| (T0 * 1_000_000_000 + 10_000_000_000 + millis * 1_000_000).to_string();
    let attribute = |key: &str, value: Json| json!({"key": key, "value": value});
    let resource = |service: &str| {
        json!({"attributes": [
            attribute("host.cpus", json!({"intValue": "8"})),
            attribute("service.name", json!({"stringValue": service})),
        ]})
    };
    let scope = json!({"name": "lib", "version": "1.2"});
    let trace_id = "AAECAwQFBgcICQoLDA0ODw==";
    let list = json!({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}});
    let page = json!({
        "traceId": trace_id, "spanId": "AQEBAQEBAQE=", "flags": 257, "name": "GET /",
        "kind": "SPAN_KIND_SERVER", "startTimeUnixNano": nanos(0),
        "endTimeUnixNano": (T0 * 1_000_000_000 + 10_250_000_999).to_string(),
        "attributes": [
            attribute("http.method", json!({"stringValue": "GET"})),
            attribute("cached", json!({"boolValue": true})),
            attribute("http.status_code", json!({"intValue": "200"})),
            attribute("big", json!({"intValue": "9223372036854775807"})),
            attribute("ratio", json!({"doubleValue": 0.5})),
            attribute("body", json!({"bytesValue": "AP8="})),
            attribute("list", list),
        ],
        "status": {},
    });
    let query = json!({
        "traceId": trace_id, "spanId": "AgICAgICAgI=", "parentSpanId": "AQEBAQEBAQE=",
        "traceState": "vendor=1", "name": "SELECT", "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": nanos(100), "endTimeUnixNano": nanos(200),
        "events": [{
            "timeUnixNano": nanos(150), "name": "exception",
            "attributes": [attribute("exception.type", json!({"stringValue": "Timeout"}))],
        }],
        "links": [{"traceId": "AAAAAAAAAAAAAAAAAAAKvA==", "spanId": "BwcHBwcHBwc="}],
        "status": {"message": "timed out", "code": "STATUS_CODE_ERROR"},
    });
    json!([
        {"resource": resource("shop"), "scopeSpans": [{"scope": scope, "spans": [page]}]},
        {"resource": resource("db"), "scopeSpans": [{"scope": scope, "spans": [query]}]},
    ])
}

#[tokio::test]
async fn a_trace_in_json_has_tempos_exact_shape() {
    let v1 = body(&format!("/tempo/api/traces/{GET_TRACE}")).await;
    assert_eq!(v1, json!({"batches": expected_spans()}));
    let v2 = body(&format!("/tempo/api/v2/traces/{GET_TRACE}")).await;
    assert_eq!(v2, json!({"trace": {"resourceSpans": expected_spans()}, "metrics": {}}));
    // Leading zeros may be left out, as Tempo's own search results do.
    let trimmed = body(&format!("/tempo/api/traces/{}", &GET_TRACE[3..])).await;
    assert_eq!(trimmed, v1);
}

#[tokio::test]
async fn a_trace_in_protobuf_is_read_as_tempos_messages() {
    let accept = [("accept", "application/protobuf")];
    let v1 = api().get_with(&format!("/tempo/api/traces/{GET_TRACE}"), &accept).await;
    assert_eq!(v1.headers["content-type"], "application/protobuf");
    let v1: Vec<ResourceSpans> = TracesData::decode(v1.body).unwrap().resource_spans;
    let span = &v1[1].scope_spans[0].spans[0];
    assert_eq!((span.trace_id.as_slice(), span.name.as_str()), (&bytes_of(GET_TRACE)[..], "SELECT"));

    let v2 = api().get_with(&format!("/tempo/api/v2/traces/{GET_TRACE}"), &accept).await;
    let v2 = TraceByIdResponse::decode(v2.body).unwrap();
    assert_eq!((v2.trace.unwrap().resource_spans, v2.status, v2.message.as_str()), (v1, 0, ""));
}

#[tokio::test]
async fn a_trace_is_restricted_by_the_range_that_is_given() {
    let spans = |range: String| async move {
        api().get(&format!("/tempo/api/traces/{GET_TRACE}?{range}")).await.status.as_u16()
    };
    assert_eq!(spans(format!("start={}&end={}", T0 + 9, T0 + 10)).await, 200);
    assert_eq!(spans(format!("start={}&end={}", T0 + 11, T0 + 20)).await, 404);
}

#[tokio::test]
async fn an_unknown_trace_is_not_found() {
    for version in ["", "v2/"] {
        assert_eq!(api().get(&format!("/tempo/api/{version}traces/77")).await.status, 404);
        assert_eq!(api().get(&format!("/tempo/api/{version}traces/xyz")).await.status, 400);
        // Unless not all that could know it were asked.
        assert_eq!(partial().get(&format!("/tempo/api/{version}traces/77")).await.status, 503);
    }
    let other = [("x-scope-orgid", "other")];
    assert_eq!(api().get_with(&format!("/tempo/api/traces/{GET_TRACE}"), &other).await.status, 404);
}

#[tokio::test]
async fn a_partial_result_says_so_in_the_way_of_its_endpoint() {
    let said = "199 oteld \"shard 3 was not 'reached'\"";
    let accept = [("accept", "application/protobuf")];
    let v2 = partial().get_with(&format!("/tempo/api/v2/traces/{GET_TRACE}"), &accept).await;
    let decoded = TraceByIdResponse::decode(v2.body.clone()).unwrap();
    assert_eq!((decoded.status, decoded.message.as_str()), (1, "shard 3 was not \"reached\""));
    let json = partial().get(&format!("/tempo/api/v2/traces/{GET_TRACE}")).await;
    assert_eq!(json.json()["status"], "PARTIAL");
    assert_eq!(json.json()["message"], "shard 3 was not \"reached\"");
    let v1 = partial().get(&format!("/tempo/api/traces/{GET_TRACE}")).await;
    assert_eq!(v1.status, 206);
    let search = partial().get("/tempo/api/search").await;
    assert_eq!(search.status, 206);
    let metrics = &search.json()["metrics"];
    assert_eq!((metrics["completedJobs"].as_u64(), metrics["totalJobs"].as_u64()), (None, Some(1)));
    let tags = partial().get("/tempo/api/v2/search/tags").await;
    for reply in [v2, json, v1, search, tags] {
        assert_eq!(reply.headers["warning"], said);
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    // Whether there are traces is not known: none found is an error, which Grafana shows.
    let none = "/tempo/api/search?q=%7Bname%3D%22nothing%22%7D";
    let reply = partial().get(none).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text().contains("shard 3 was not")),
        (503, true),
        "{}",
        reply.text()
    );
    assert_eq!(api().get(none).await.status, 200);
    assert!(!api().get("/tempo/api/search").await.headers.contains_key("warning"));
}

#[tokio::test]
async fn a_search_has_the_exact_fields_of_tempos_message() {
    let start = (T0 + 10) * 1_000_000_000;
    let span_set = json!({
        "spans": [{
            "spanID": "0202020202020202",
            "name": "SELECT",
            "startTimeUnixNano": (start + 100_000_000).to_string(),
            "durationNanos": "100000000",
            "attributes": [
                {"key": "status", "value": {"stringValue": "error"}},
                {"key": "host.cpus", "value": {"intValue": "8"}},
            ],
        }],
        "matched": 1,
    });
    let expected = json!({
        "traces": [{
            "traceID": "102030405060708090a0b0c0d0e0f",
            "rootServiceName": "shop",
            "rootTraceName": "GET /",
            "startTimeUnixNano": start.to_string(),
            "durationMs": 250,
            "spanSet": span_set,
            "spanSets": [span_set],
        }],
        "metrics": {"inspectedTraces": 2, "inspectedBytes": "1234", "completedJobs": 1, "totalJobs": 1},
    });
    let q = "%7Bstatus%3Derror%20%26%26%20resource.host.cpus%3D8%7D";
    assert_eq!(body(&format!("/tempo/api/search?q={q}")).await, expected);

    // A search by tags has no span sets, and nothing found is an empty list.
    let by_tags = body("/tempo/api/search?tags=service.name%3Dsho").await;
    assert_eq!(by_tags["traces"][0].get("spanSets"), None);
    assert_eq!(by_tags["traces"][0].get("spanSet"), None);
    assert_eq!(body("/tempo/api/search?tags=no%3Dsuch").await["traces"], json!([]));
}

async fn found(parameters: &str) -> Vec<String> {
    let traces = body(&format!("/tempo/api/search?{parameters}")).await;
    let name = |trace: &Json| trace["rootTraceName"].as_str().unwrap().to_owned();
    traces["traces"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn searches_take_tags_queries_durations_and_ranges() {
    let page: &[&str] = &["GET /"];
    let buy: &[&str] = &["POST /buy"];
    let both: &[&str] = &["POST /buy", "GET /"];
    let at = |seconds: u64| T0 + seconds;
    let range = |start, end| format!("start={}&end={}", at(start), at(end));
    let table: [(&str, &[&str]); 21] = [
        ("", both),
        ("maxDuration=0s", both),
        ("q=%7B%7D", both),
        ("q=%7B%7D&limit=1", buy),
        ("q=%7Bname%3D%22SELECT%22%7D%26%26%7Bname%3D~%22GET.*%22%7D", page),
        ("tags=service.name%3Ddb", page),
        ("tags=service.name%3Dshop%20exception.type%3DTimeout", page),
        ("tags=exception.type%3DTime", &[]),
        ("tags=http.status_code%3D200", page),
        ("tags=error%3Dtrue", page),
        ("tags=status.code%3Derror", page),
        ("tags=name%3Dbuy", buy),
        ("tags=root.name%3DGET", page),
        ("tags=root.service.name%3Dshop", page),
        ("http.method=GET&limit=5", page),
        ("minDuration=500ms", buy),
        ("maxDuration=500ms", page),
        ("minDuration=2s", &[]),
        (&range(5, 10), page),
        (&range(11, 20), buy),
        (&range(25, 30), &[]),
    ];
    for (parameters, names) in table {
        assert_eq!(found(parameters).await, names, "{parameters}");
    }
}

#[tokio::test]
async fn spans_shown_follow_spss() {
    let shown = |spss: &'static str| async move {
        let reply = body(&format!("/tempo/api/search?q=%7B.host.cpus%3D8%7D&limit=5{spss}")).await;
        let set = &reply["traces"][1]["spanSet"];
        (set["spans"].as_array().map(Vec::len), set["matched"].as_u64())
    };
    assert_eq!(shown("").await, (Some(2), Some(2)));
    assert_eq!(shown("&spss=1").await, (Some(1), Some(2)));
    assert_eq!(shown("&spss=0").await, (Some(2), Some(2)));
}

#[tokio::test]
async fn attribute_names_are_listed_in_both_versions() {
    let v1 = body("/tempo/api/search/tags?scope=span").await;
    let span = ["big", "body", "cached", "http.method", "http.status_code", "list", "ratio"];
    assert_eq!(v1, json!({"tagNames": span}));
    let all = body("/tempo/api/search/tags").await;
    let all = all["tagNames"].as_array().unwrap();
    assert!(all.contains(&"service.name".into()) && !all.contains(&"duration".into()));

    let v2 = body("/tempo/api/v2/search/tags").await;
    let resource = ["host.cpus", "service.name"];
    assert_eq!(v2["scopes"][0], json!({"name": "resource", "tags": resource}));
    assert_eq!(v2["scopes"][1], json!({"name": "span", "tags": span}));
    assert_eq!(v2["scopes"][2], json!({"name": "event", "tags": ["exception.type"]}));
    assert_eq!(v2["scopes"][3]["name"], "intrinsic");
    let one = body("/tempo/api/v2/search/tags?scope=resource").await;
    assert_eq!(one, json!({"scopes": [{"name": "resource", "tags": resource}]}));
    let intrinsic = body("/tempo/api/v2/search/tags?scope=intrinsic").await;
    assert_eq!(intrinsic["scopes"].as_array().map(Vec::len), Some(1));
    let none = body(&format!("/tempo/api/v2/search/tags?scope=span&start=1&end={}", T0)).await;
    assert_eq!(none, json!({"scopes": []}));
}

#[tokio::test]
async fn attribute_values_are_listed_in_both_versions() {
    let values = body("/tempo/api/search/tag/service.name/values").await;
    assert_eq!(values, json!({"tagValues": ["db", "shop"]}));
    let string = |text: &str| json!({"type": "string", "value": text});
    let v2 = |tag: &'static str| async move { body(&format!("/tempo/api/v2/search/tag/{tag}")).await };
    assert_eq!(
        v2("resource.service.name/values").await,
        json!({"tagValues": [string("db"), string("shop")]})
    );
    let table = [
        ("resource.service.name/values?q=%7Bstatus%3Derror%7D", vec![string("db")]),
        ("resource.service.name/values?q=%7Bstatus%3D", vec![string("db"), string("shop")]),
        ("resource.service.name/values?limit=1", vec![string("db")]),
        ("span.http.status_code/values", vec![json!({"type": "int", "value": "200"})]),
        ("span.cached/values", vec![json!({"type": "bool", "value": "true"})]),
        ("span.ratio/values", vec![json!({"type": "float", "value": "0.5"})]),
        ("rootServiceName/values", vec![string("shop")]),
        (".http.method/values", vec![string("GET")]),
        ("span.nothing/values", vec![]),
    ];
    for (tag, values) in table {
        assert_eq!(v2(tag).await, json!({"tagValues": values}), "{tag}");
    }
    let status = v2("status/values").await;
    let keyword = |text: &str| json!({"type": "keyword", "value": text});
    assert_eq!(status, json!({"tagValues": [keyword("error"), keyword("unset")]}));
}

#[tokio::test]
async fn failures_are_plain_text_with_a_reason() {
    let table = [
        ("search?q=%7B", 400, "parse error"),
        ("search?q=%7B%7D%20%7C%20rate()", 501, "rate()"),
        ("search?q=%7B.a%7D%3E%3E%7B.b%7D", 501, ">>"),
        ("search?q=%7B%7D&tags=a%3Db", 400, "both"),
        ("search?tags=a%3D1%20a%3D2", 400, "set twice"),
        ("search?limit=0", 400, "positive"),
        ("search?limit=x", 400, "limit"),
        ("search?limit=100000", 422, "entries_max"),
        ("search?minDuration=5", 400, "minDuration"),
        ("search?minDuration=2s&maxDuration=1s", 400, "maxDuration"),
        ("search?start=20&end=10", 400, "start must be before end"),
        ("search?start=x", 400, "start"),
        ("search/tags?scope=sideways", 400, "invalid scope: sideways"),
        ("metrics/query_range?q=%7B%7D", 501, "/api/metrics/query_range"),
        ("metrics/query?q=%7B%7D", 501, "/api/metrics/query"),
    ];
    for (uri, status, message) in table {
        let reply = api().get(&format!("/tempo/api/{uri}")).await;
        assert_eq!(reply.status, status, "{uri}: {}", reply.text());
        assert!(reply.text().contains(message), "{uri}: {}", reply.text());
    }
}
