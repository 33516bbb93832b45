//! Labels, series, metadata, and what oteld says of itself.

use http::StatusCode;
use oteld_env::Env;
use oteld_store::model::{Histogram, MetricKind, Point, PointValue, Temporality};

use crate::world::{COUNTER, START, World, point};

fn world() -> World {
    let mut world = World::default();
    world.add("calls", "", COUNTER, &[("http.method", "GET")], vec![point(0, PointValue::Int(1))]);
    world.add("old", "", MetricKind::Gauge, &[("legacy", "yes")], vec![point(100, PointValue::Int(1))]);
    let histogram = Histogram {
        count: 3,
        sum: Some(1.0),
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.5],
        ..Histogram::default()
    };
    let kind = MetricKind::Histogram { temporality: Temporality::Cumulative };
    world.add("lat", "s", kind, &[], vec![point(0, PointValue::Histogram(Box::new(histogram)))]);
    world
}

#[tokio::test]
async fn label_names_and_values_are_listed() {
    let world = world();
    let now = format!("start={START}&end={}", START + 10);
    let cases = [
        (format!("labels?{now}"), r#"["__name__","host_name","http_method","job","le"]"#),
        ("labels".to_owned(), r#"["__name__","host_name","http_method","job","le","legacy"]"#),
        (format!("labels?{now}&match[]=calls_total"), r#"["__name__","http_method","job"]"#),
        (
            format!("labels?{now}&match[]=lat_seconds_sum&match[]={{http_method=\"GET\"}}")
                .replace('"', "%22")
                .replace('{', "%7B")
                .replace('}', "%7D"),
            r#"["__name__","http_method","job"]"#,
        ),
        (
            format!("label/__name__/values?{now}"),
            r#"["calls_total","lat_seconds_bucket","lat_seconds_count","lat_seconds_sum","target_info"]"#,
        ),
        (format!("label/le/values?{now}"), r#"["+Inf","0.5"]"#),
        (format!("label/U__http__method/values?{now}"), r#"["GET"]"#),
        (format!("label/http_method/values?{now}&match[]=lat_seconds_sum"), "[]"),
        (format!("label/legacy/values?{now}"), "[]"),
        (format!("label/host_name/values?{now}"), r#"["h"]"#),
    ];
    for (path, expected) in cases {
        assert_eq!(world.data(&path).await, expected, "{path}");
    }
    let (_, body) = world.get("labels?limit=2").await;
    assert_eq!(
        body,
        r#"{"status":"success","data":["__name__","host_name"],"warnings":["results truncated due to limit"]}"#
    );
}

#[tokio::test]
async fn series_are_listed_with_their_buckets() {
    let world = world();
    assert_eq!(
        world.data("series?match[]=lat_seconds_bucket&match[]=calls_total").await,
        concat!(
            r#"[{"__name__":"calls_total","http_method":"GET","job":"cart"},"#,
            r#"{"__name__":"lat_seconds_bucket","job":"cart","le":"+Inf"},"#,
            r#"{"__name__":"lat_seconds_bucket","job":"cart","le":"0.5"}]"#
        )
    );
}

#[tokio::test]
async fn metadata_are_of_what_reported_lately() {
    // The rows of this world are years old.
    let mut world = world();
    let now = Point { time_unix_nano: Env::real().clock.now_unix_nanos(), ..point(0, PointValue::Int(1)) };
    world.add("calls", "By", COUNTER, &[], vec![now]);
    let calls = r#""calls_bytes_total":[{"help":"what it is","type":"counter","unit":"By"}]"#;
    let target = r#""target_info":[{"help":"Target metadata","type":"info","unit":""}]"#;
    assert_eq!(world.data("metadata").await, format!("{{{calls},{target}}}"));
    assert_eq!(world.data("metadata?limit=1").await, format!("{{{calls}}}"));
    assert_eq!(world.data("metadata?metric=target_info").await, format!("{{{target}}}"));
}

#[tokio::test]
async fn grafana_takes_it_for_prometheus_without_rules() {
    let world = World::default();
    let (status, body) = world.get("status/buildinfo").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains(r#""version":"3."#) && !body.contains("features"), "{body}");
    assert_eq!(world.data("rules").await, r#"{"groups":[]}"#);
    assert_eq!(world.data("alerts").await, r#"{"alerts":[]}"#);
}
