//! Answers to paths that nobody serves: what is not there yet, in the shape of the API that it belongs to, and else
//! what is where.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use serde_json::json;

const QUERY_PATHS: &str = "This is oteld's query port. It serves:\n\
    \n  /prometheus/api/v1/...   PromQL, for Grafana's Prometheus data source (URL http://HOST:PORT/prometheus)\
    \n  /loki/api/v1/...         LogQL, for its Loki data source (URL http://HOST:PORT)\
    \n  /tempo/api/...           TraceQL and traces, for its Tempo data source (URL http://HOST:PORT/tempo)\
    \n  /jaeger/api/...          traces, for its Jaeger data source (URL http://HOST:PORT/jaeger)\
    \n  /api/v1/admin/...        what otelctl asks\
    \n  /healthz  /readyz  /metrics\
    \n\nThe three query APIs are on nodes with the front role. OTLP goes to ports 4317 (gRPC) and 4318 (HTTP).\n";

const OTLP_PATHS: &str = "This is oteld's OTLP/HTTP port. It takes POST /v1/metrics, /v1/logs and /v1/traces, without \
    a slash at the end; a client's endpoint setting is http://HOST:PORT, to which it adds these paths itself. Queries \
    go to port 8081.\n";

const SEND_OTLP: &str = "send OTLP to port 4317 (gRPC) or 4318 (HTTP)";

/// Calls of Prometheus that exist there and not here.
const PROMETHEUS: [&str; 12] = [
    "targets",
    "targets/metadata",
    "scrape_pools",
    "status/tsdb",
    "status/config",
    "status/flags",
    "status/runtimeinfo",
    "status/walreplay",
    "parse_query",
    "features",
    "notifications",
    "read",
];

/// Calls of Loki that exist there and not here.
const LOKI: [&str; 3] = ["status/buildinfo", "delete", "cache/generation_numbers"];

/// For paths of the query port that no route has.
pub(super) async fn of_queries(uri: Uri) -> Response {
    let path = uri.path();
    match not_built(path) {
        Some(Api::Prometheus(message)) => {
            let body = json!({ "status": "error", "errorType": "not_implemented", "error": message });
            (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
        }
        Some(Api::Loki(message)) => {
            let body = json!({ "code": 501, "status": "error", "message": message });
            (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
        }
        None => (StatusCode::NOT_FOUND, format!("nothing is at {path}\n\n{QUERY_PATHS}")).into_response(),
    }
}

/// For paths of the OTLP/HTTP port that no route has.
pub(super) async fn of_otlp(uri: Uri) -> Response {
    (StatusCode::NOT_FOUND, format!("nothing is at {}\n\n{OTLP_PATHS}", uri.path())).into_response()
}

#[derive(Debug, PartialEq, Eq)]
enum Api {
    Prometheus(String),
    Loki(String),
}

/// The API that a path belongs to, and what to say, where it is known and not there.
fn not_built(path: &str) -> Option<Api> {
    if let Some(call) = path.strip_prefix("/loki/api/v1/") {
        return match call {
            "push" => Some(Api::Loki(format!("Loki's push is not there yet: {SEND_OTLP}"))),
            call if LOKI.contains(&call) => Some(Api::Loki(format!("{path} is not supported"))),
            _ => None,
        };
    }
    let call = path.strip_prefix("/prometheus/api/v1/").or_else(|| path.strip_prefix("/api/v1/"))?;
    match call {
        "write" => Some(Api::Prometheus(format!("Prometheus remote write is not there yet: {SEND_OTLP}"))),
        "otlp/v1/metrics" => Some(Api::Prometheus(format!("OTLP is not taken here: {SEND_OTLP}"))),
        call if PROMETHEUS.contains(&call) || call.starts_with("admin/tsdb/") => {
            Some(Api::Prometheus(format!("{path} is not supported")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_not_there_is_named_and_the_rest_says_what_is_where() {
        let queries = || Router::new().fallback(of_queries);
        for (path, status, part) in [
            ("/", 404, "/prometheus/api/v1/"),
            ("/loki/api/v1/push", 501, "OTLP to port 4317"),
            ("/loki/api/v1/status/buildinfo", 501, "\"code\":501"),
            ("/prometheus/api/v1/write", 501, "\"status\":\"error\""),
            ("/api/v1/write", 501, "remote write is not there yet"),
            ("/api/v1/targets", 501, "/api/v1/targets"),
            ("/prometheus/api/v1/status/tsdb", 501, "\"errorType\""),
            ("/prometheus/api/v1/nonsense", 404, "nothing is at"),
        ] {
            let (found, body) = ask(queries(), path).await;
            assert_eq!(found, status, "{path}: {body}");
            assert!(body.contains(part), "{path}: {body}");
        }
        let (status, body) = ask(Router::new().fallback(of_otlp), "/v1/logs/").await;
        assert_eq!(status, 404);
        assert!(body.contains("without a slash"), "{body}");
    }
}
