//! Queries: shapes, errors and limits.

use axum::body::Body;
use http::{Request, StatusCode};
use oteld_query::{QueryError, QueryErrorKind};
use oteld_store::model::{Exemplar, MetricKind, Point, PointValue};

use crate::world::{COUNTER, Mood, START, World, point};

fn world() -> World {
    let mut world = World::default();
    for (path, values) in [("/", [0.5, 1.5]), ("/\"q\"", [f64::INFINITY, f64::NAN])] {
        let points =
            values.into_iter().zip([0, 10]).map(|(v, seconds)| point(seconds, PointValue::Double(v)));
        world.add("load", "", MetricKind::Gauge, &[("url.path", path)], points.collect());
    }
    world
}

#[tokio::test]
async fn a_scalar_needs_no_cluster() {
    let world = World { mood: Mood::Failing(QueryError::bad("not asked")), ..World::default() };
    for path in ["query?query=1%2B1&time=1700000000.5", "query?query=1%2B1&time=2023-11-14T22:13:20.5Z"] {
        assert_eq!(world.data(path).await, r#"{"resultType":"scalar","result":[1700000000.500,"2"]}"#);
    }
}

#[tokio::test]
async fn each_result_type_has_its_shape() {
    let world = world();
    assert_eq!(
        world.data(&format!("query?query=load&time={START}")).await,
        concat!(
            r#"{"resultType":"vector","result":["#,
            r#"{"metric":{"__name__":"load","job":"cart","url_path":"/"},"value":[1700000000,"0.5"]},"#,
            r#"{"metric":{"__name__":"load","job":"cart","url_path":"/\"q\""},"value":[1700000000,"+Inf"]}]}"#
        )
    );
    assert_eq!(
        world.data(&format!("query_range?query=load&start={START}&end={}&step=10s", START + 10)).await,
        concat!(
            r#"{"resultType":"matrix","result":["#,
            r#"{"metric":{"__name__":"load","job":"cart","url_path":"/"},"values":[[1700000000,"0.5"],[1700000010,"1.5"]]},"#,
            r#"{"metric":{"__name__":"load","job":"cart","url_path":"/\"q\""},"values":[[1700000000,"+Inf"],[1700000010,"NaN"]]}]}"#
        )
    );
    assert_eq!(
        world.data("query?query=%22text%22&time=1").await,
        r#"{"resultType":"string","result":[1,"text"]}"#
    );
    assert_eq!(world.data("query?query=nothing&time=1").await, r#"{"resultType":"vector","result":[]}"#);
    assert_eq!(
        world.data("query_range?query=1&start=0&end=0.5&step=0.25").await,
        r#"{"resultType":"matrix","result":[{"metric":{},"values":[[0,"1"],[0.250,"1"],[0.500,"1"]]}]}"#
    );
}

#[tokio::test]
async fn a_form_is_as_good_as_a_url() {
    let request = Request::post("/prometheus/api/v1/query?time=7&query=2")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("query=vector(3)"))
        .expect("a request");
    let (status, body) = world().send(request).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[7,"3"]}]}}"#
    );
}

#[tokio::test]
async fn errors_have_prometheus_types_and_statuses() {
    let world = world();
    let cases = [
        ("query?query=sum(", 400, "bad_data", "parse error"),
        ("query", 400, "bad_data", "parse error"),
        (
            "query?query=1&time=yesterday",
            400,
            "bad_data",
            r#"invalid parameter \"time\": cannot parse \"yesterday\""#,
        ),
        ("query_range?query=1&start=0&end=1", 400, "bad_data", r#"invalid parameter \"step\""#),
        (
            "query_range?query=1&start=1&end=0&step=1",
            400,
            "bad_data",
            "end timestamp must not be before start time",
        ),
        (
            "query_range?query=1&start=0&end=1&step=0",
            400,
            "bad_data",
            "zero or negative query resolution step",
        ),
        (
            "query_range?query=1&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries",
        ),
        (
            "query_range?query=load[5m]&start=0&end=1&step=1",
            400,
            "bad_data",
            "must be Scalar or instant Vector",
        ),
        (
            "query?query=load%2Bon()load&time=1700000000",
            422,
            "execution",
            "many-to-many matching not allowed",
        ),
        ("query?query=info(load)", 422, "execution", "info() is not supported yet"),
        ("query?query=load&lookback_delta=1m", 422, "execution", "lookback_delta is not supported yet"),
        ("query?query=load&consistency=maybe", 400, "bad_data", "consistency"),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        ("labels?match[]=sum(x)", 400, "bad_data", r#"invalid parameter \"match[]\""#),
        ("labels?limit=-1", 400, "bad_data", "limit must be a number"),
    ];
    for (path, status, kind, message) in cases {
        let (found, body) = world.get(path).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert!(
            body.contains(&format!(r#""errorType":"{kind}""#)) && body.contains(message),
            "{path}: {body}"
        );
        assert!(body.contains(r#""status":"error""#), "{path}: {body}");
    }
}

#[tokio::test]
async fn what_the_cluster_says_keeps_its_meaning() {
    for (kind, status, error_type) in [
        (QueryErrorKind::Limit, 422, "execution"),
        (QueryErrorKind::Timeout, 503, "timeout"),
        (QueryErrorKind::Cancelled, 499, "canceled"),
        (QueryErrorKind::Unavailable, 503, "unavailable"),
        (QueryErrorKind::Internal, 500, "internal"),
    ] {
        let world = World { mood: Mood::Failing(QueryError::new(kind, "because")), ..world() };
        let (found, body) = world.get("query?query=load").await;
        assert_eq!(found.as_u16(), status);
        assert!(body.contains(error_type) && body.contains("because"), "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_may_miss_rows_says_so() {
    let world = World { mood: Mood::Incomplete("node 3 was not reached"), ..world() };
    for path in ["query?query=load", "labels", "series?match[]=load", "query_exemplars?query=load"] {
        let (status, body) = world.get(path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.ends_with(r#","warnings":["node 3 was not reached"]}"#), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_ends_with_its_time() {
    let world = World { mood: Mood::Silent, ..world() };
    for path in ["query?query=load", "query?query=load&timeout=5s", "labels?timeout=1m"] {
        let (status, body) = world.get(path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains(r#""errorType":"timeout""#), "{body}");
    }
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let world = world();
    let request = |tenant: &str| {
        Request::get("/api/v1/query?query=load&time=1700000000")
            .header("x-scope-orgid", tenant)
            .body(Body::empty())
            .expect("a request")
    };
    assert!(world.send(request("default")).await.1.contains("url_path"));
    assert_eq!(
        world.send(request("other")).await.1,
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#
    );
    assert_eq!(world.send(request("a/b")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn notes_of_the_engine_are_passed_on() {
    let world = world();
    let (_, body) = world.get(&format!("query?query=rate(load[1m])&time={}", START + 10)).await;
    assert!(body.contains(r#""infos":["PromQL info: metric might not be a counter"#), "{body}");
    let (_, body) = world.get(&format!("query?query=quantile(7,load)&time={START}")).await;
    assert!(
        body.contains(r#""warnings":["PromQL warning: quantile value should be between 0 and 1, got 7"]"#)
    );
}

#[tokio::test]
async fn a_limit_cuts_series_and_says_so() {
    let world = world();
    for path in
        ["query?query=load&time=1700000000", "query_range?query=load&start=1700000000&end=1700000000&step=1"]
    {
        let (_, all) = world.get(&format!("{path}&limit=2")).await;
        assert!(all.matches("metric").count() == 2 && !all.contains("truncated"), "{all}");
        let (_, cut) = world.get(&format!("{path}&limit=1")).await;
        assert_eq!(cut.matches("metric").count(), 1, "{cut}");
        assert!(cut.ends_with(r#","warnings":["results truncated due to limit"]}"#), "{cut}");
    }
}

#[tokio::test]
async fn exemplars_are_found_by_the_series_of_a_query() {
    let exemplar = Exemplar {
        time_unix_nano: (START + 3) * 1_000_000_000 + 250_000_000,
        value: PointValue::Double(6.0),
        trace_id: [0xab; 16],
        span_id: [0; 8],
        filtered_attributes: [("user.id", "u1")].into_iter().collect(),
    };
    let mut world = World::default();
    let points =
        (0..2).map(|i| Point { exemplars: vec![exemplar.clone()], ..point(10 * i, PointValue::Int(1)) });
    world.add("calls", "", COUNTER, &[], points.collect());
    // Grafana's probe sends milliseconds for seconds.
    assert_eq!(world.data("query_exemplars?query=test&start=1700000000000&end=1700003600000").await, "[]");
    assert_eq!(
        world
            .data(&format!(
                "query_exemplars?query=rate(calls_total[5m])%2B1&start={START}&end={}",
                START + 60
            ))
            .await,
        concat!(
            r#"[{"seriesLabels":{"__name__":"calls_total","job":"cart"},"exemplars":["#,
            r#"{"labels":{"trace_id":"abababababababababababababababab","user_id":"u1"},"value":"6","timestamp":1700000003.250}]}]"#
        )
    );
    assert_eq!(world.data(&format!("query_exemplars?query=1%2B1&end={START}")).await, "[]");
}

#[tokio::test]
async fn a_query_is_laid_out() {
    assert_eq!(
        world().data("format_query?query=sum(++rate(+x[5m]))by(job)").await.replace(' ', ""),
        r#""sumby(job)(rate(x[5m]))""#
    );
}
