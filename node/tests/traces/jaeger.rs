//! Jaeger's API.

use serde_json::{Value as Json, json};

use crate::shop::{Api, BUY_TRACE, GET_TRACE, T0};

fn api() -> Api {
    Api { router: oteld::read::jaeger::router(), incomplete: Vec::new() }
}

async fn data(uri: &str) -> Json {
    let reply = api().get(uri).await;
    assert_eq!(reply.status, 200, "{uri}: {}", reply.text());
    assert_eq!(reply.headers["content-type"], "application/json");
    let mut body = reply.json();
    assert_eq!(body["errors"], Json::Null);
    body["data"].take()
}

#[tokio::test]
async fn services_and_operations_are_listed() {
    let reply = api().get("/jaeger/api/services").await;
    let expected = json!({
        "data": ["OTLPResourceNoServiceName", "db", "shop"],
        "total": 3, "limit": 0, "offset": 0, "errors": null,
    });
    assert_eq!(reply.json(), expected);
    assert_eq!(data("/jaeger/api/services/shop/operations").await, json!(["GET /"]));
    assert_eq!(data("/jaeger/api/services/nobody/operations").await, json!([]));
    let unnamed = data("/jaeger/api/operations?service=OTLPResourceNoServiceName").await;
    assert_eq!(unnamed, json!([{"name": "POST /buy", "spanKind": ""}]));
    let client = json!([{"name": "SELECT", "spanKind": "client"}]);
    assert_eq!(data("/jaeger/api/operations?service=db").await, client);
    assert_eq!(data("/jaeger/api/operations?service=db&spanKind=server").await, json!([]));
}

#[tokio::test]
async fn a_trace_has_jaegers_exact_shape() {
    let micros = (T0 + 10) * 1_000_000;
    let expected = json!([{
        "traceID": GET_TRACE,
        "spans": [
            {
                "traceID": GET_TRACE, "spanID": "0101010101010101", "flags": 1, "operationName": "GET /",
                "references": [], "startTime": micros, "duration": 250_000,
                "tags": [
                    {"key": "otel.scope.name", "type": "string", "value": "lib"},
                    {"key": "otel.scope.version", "type": "string", "value": "1.2"},
                    {"key": "http.method", "type": "string", "value": "GET"},
                    {"key": "cached", "type": "bool", "value": true},
                    {"key": "http.status_code", "type": "int64", "value": 200},
                    {"key": "big", "type": "int64", "value": "9223372036854775807"},
                    {"key": "ratio", "type": "float64", "value": 0.5},
                    {"key": "body", "type": "binary", "value": "AP8="},
                    {"key": "list", "type": "string", "value": "[1,\"x\"]"},
                    {"key": "span.kind", "type": "string", "value": "server"},
                ],
                "logs": [], "processID": "p1", "warnings": null,
            },
            {
                "traceID": GET_TRACE, "spanID": "0202020202020202", "operationName": "SELECT",
                "references": [
                    {"refType": "CHILD_OF", "traceID": GET_TRACE, "spanID": "0101010101010101"},
                    {"refType": "FOLLOWS_FROM", "traceID": "0000000000000abc", "spanID": "0707070707070707"},
                ],
                "startTime": micros + 100_000, "duration": 100_000,
                "tags": [
                    {"key": "otel.scope.name", "type": "string", "value": "lib"},
                    {"key": "otel.scope.version", "type": "string", "value": "1.2"},
                    {"key": "span.kind", "type": "string", "value": "client"},
                    {"key": "otel.status_code", "type": "string", "value": "ERROR"},
                    {"key": "error", "type": "bool", "value": true},
                    {"key": "otel.status_description", "type": "string", "value": "timed out"},
                    {"key": "w3c.tracestate", "type": "string", "value": "vendor=1"},
                ],
                "logs": [{
                    "timestamp": micros + 150_000,
                    "fields": [
                        {"key": "event", "type": "string", "value": "exception"},
                        {"key": "exception.type", "type": "string", "value": "Timeout"},
                    ],
                }],
                "processID": "p2", "warnings": null,
            },
        ],
        "processes": {
            "p1": {"serviceName": "shop", "tags": [{"key": "host.cpus", "type": "int64", "value": 8}]},
            "p2": {"serviceName": "db", "tags": [{"key": "host.cpus", "type": "int64", "value": 8}]},
        },
        "warnings": null,
    }]);
    assert_eq!(data(&format!("/jaeger/api/traces/{GET_TRACE}")).await, expected);
    // A search gives whole traces in the same shape, and a short id is enough for the other one.
    let search = format!("/jaeger/api/traces?service=db&start={micros}&end={}", micros + 250_000);
    assert_eq!(data(&search).await, expected);
    let short = data("/jaeger/api/traces/abc").await;
    assert_eq!(short[0]["traceID"], "0000000000000abc");
    assert_eq!(short[0]["processes"]["p1"]["serviceName"], "OTLPResourceNoServiceName");
}

/// The names of the first spans of what a search finds.
async fn found(parameters: &str) -> Vec<String> {
    let micros = T0 * 1_000_000;
    let end = micros + 3_600_000_000;
    let traces = data(&format!("/jaeger/api/traces?start={micros}&end={end}&{parameters}")).await;
    let name = |trace: &Json| trace["spans"][0]["operationName"].as_str().unwrap().to_owned();
    traces.as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn searches_find_by_span() {
    let page: &[&str] = &["GET /"];
    let table: [(&str, &[&str]); 23] = [
        ("service=shop", page),
        ("service=db", page),
        ("service=OTLPResourceNoServiceName", &["POST /buy"]),
        ("service=nobody", &[]),
        ("service=shop&operation=GET+%2F", page),
        ("service=shop&operation=SELECT", &[]),
        ("service=shop&tag=http.method:GET", page),
        ("service=shop&tag=http.method:GET&tag=cached:true", page),
        ("service=shop&tag=http.method:GET&tag=cached:false", &[]),
        ("service=shop&tags=%7B%22http.status_code%22%3A%22200%22%7D", page),
        ("service=shop&tag=host.cpus:8", page),
        ("service=shop&tag=error:true", &[]),
        ("service=db&tag=error:true", page),
        ("service=db&tag=otel.status_code:ERROR", page),
        ("service=db&tag=span.kind:client", page),
        ("service=db&tag=exception.type:Timeout", page),
        ("service=db&tag=otel.scope.name:lib&tag=otel.status_description:timed+out", page),
        ("service=shop&minDuration=250ms", page),
        ("service=shop&minDuration=251ms", &[]),
        ("service=db&maxDuration=100ms&minDuration=0.1s", page),
        ("service=db&maxDuration=99ms", &[]),
        ("service=db&minDuration=0s&maxDuration=0s", page),
        ("service=shop&limit=1&lookback=custom", page),
    ];
    for (parameters, names) in table {
        assert_eq!(found(parameters).await, names, "{parameters}");
    }
}

#[tokio::test]
async fn a_range_restricts_a_search_and_a_trace() {
    let at = |seconds: u64| (T0 + seconds) * 1_000_000;
    let between = |start, end| format!("/jaeger/api/traces?service=shop&start={start}&end={end}");
    assert_eq!(data(&between(at(11), at(15))).await, json!([]));
    assert_eq!(data(&between(at(10), at(10))).await[0]["spans"].as_array().map(Vec::len), Some(2));
    // By id, in Grafana's milliseconds and Jaeger's microseconds.
    for (start, end) in [(T0 * 1000, (T0 + 10) * 1000), (at(0), at(10))] {
        let trace = data(&format!("/jaeger/api/traces/{GET_TRACE}?start={start}&end={end}")).await;
        assert_eq!(trace[0]["spans"].as_array().map(Vec::len), Some(1), "{start}");
    }
    // The default range ends now and is two days long; a lookback from the shop's time is given its end.
    let lookback = format!("/jaeger/api/traces?service=shop&end={}&lookback=20s", at(15));
    assert_eq!(data(&lookback).await.as_array().map(Vec::len), Some(1));
    let lookback = format!("/jaeger/api/traces?service=shop&end={}&lookback=2s", at(15));
    assert_eq!(data(&lookback).await, json!([]));
}

#[tokio::test]
async fn traces_are_fetched_by_repeated_ids_and_missing_ones_named() {
    let uri = format!("/jaeger/api/traces?traceID={GET_TRACE}&traceID={BUY_TRACE}&traceID=77");
    let body = api().get(&uri).await.json();
    assert_eq!(body["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["errors"], json!([{"msg": "trace not found", "traceID": "0000000000000077"}]));
}

#[tokio::test]
async fn dependencies_count_calls_between_services() {
    let end = (T0 + 60) * 1000;
    let expected = json!([{"parent": "shop", "child": "db", "callCount": 1}]);
    assert_eq!(data(&format!("/jaeger/api/dependencies?endTs={end}&lookback=60000")).await, expected);
    assert_eq!(data(&format!("/jaeger/api/dependencies?endTs={end}")).await, expected);
    assert_eq!(data(&format!("/jaeger/api/dependencies?endTs={end}&lookback=30000")).await, json!([]));
}

#[tokio::test]
async fn failures_have_jaegers_shape() {
    let body = |code: u16, msg: &str| {
        let errors = json!([{"code": code, "msg": msg}]);
        json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors})
    };
    let reply = api().get("/jaeger/api/traces/77").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (404, body(404, "trace not found")));
    let reply = api().get("/jaeger/api/operations").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (400, body(400, "parameter 'service' is required")));

    let table = [
        ("traces?limit=20", 400, "'service' is required"),
        ("traces?service=a&start=x", 400, "start"),
        ("traces?service=a&end=-5", 400, "end"),
        ("traces?service=a&limit=many", 400, "limit"),
        ("traces?service=a&limit=0", 400, "limit"),
        ("traces?service=a&limit=1000000", 422, "entries_max"),
        ("traces?service=a&minDuration=5", 400, "minDuration"),
        ("traces?service=a&minDuration=2s&maxDuration=1s", 400, "maxDuration"),
        ("traces?service=a&tag=novalue", 400, "key:value"),
        ("traces?service=a&tags=notjson", 400, "unmarshal JSON"),
        ("traces?traceID=xyz", 400, "trace id"),
        ("traces/xyz", 400, "trace id"),
        ("traces/77?start=x", 400, "start"),
        ("operations?service=a&spanKind=sideways", 400, "spanKind"),
        ("dependencies?endTs=x", 400, "endTs"),
        ("dependencies?lookback=1h", 400, "lookback"),
        ("metrics/calls", 501, "/api/metrics/calls"),
        ("v3/services", 501, "/api/v3/services"),
    ];
    for (uri, status, message) in table {
        let reply = api().get(&format!("/jaeger/api/{uri}")).await;
        let body = reply.json();
        assert_eq!(reply.status, status, "{uri}: {body}");
        assert_eq!(body["errors"][0]["code"], status, "{uri}");
        assert!(body["errors"][0]["msg"].as_str().unwrap().contains(message), "{uri}: {body}");
    }
}

#[tokio::test]
async fn another_tenants_traces_are_not_seen() {
    let other = [("x-scope-orgid", "other")];
    let reply = api().get_with(&format!("/jaeger/api/traces/{GET_TRACE}"), &other).await;
    assert_eq!(reply.status, 404);
    assert_eq!(api().get_with("/jaeger/api/services", &other).await.json()["data"], json!([]));
    assert_eq!(api().get_with("/jaeger/api/services", &[("x-scope-orgid", "a/b")]).await.status, 400);
}

#[tokio::test]
async fn a_partial_result_says_so_and_is_not_kept() {
    let partial = Api { incomplete: vec!["shard 3 was not reached".into()], ..api() };
    for uri in ["services", "traces?service=shop", &format!("traces/{GET_TRACE}")] {
        let reply = partial.get(&format!("/jaeger/api/{uri}")).await;
        assert_eq!(reply.status, 200, "{uri}");
        assert_eq!(reply.json()["errors"], json!([{"msg": "shard 3 was not reached"}]), "{uri}");
        assert_eq!(reply.headers["cache-control"], "no-store", "{uri}");
    }
    // That a trace does not exist cannot be known then.
    assert_eq!(partial.get("/jaeger/api/traces/77").await.status, 503);
}
