//! OpenTelemetry metrics as Prometheus series.

use oteld_store::model::*;

use crate::world::{COUNTER, DELTA, GAUGE, START, World};

fn histogram(counts: [u64; 3], sum: f64) -> PointValue {
    PointValue::Histogram(Box::new(Histogram {
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![0.1, 0.5],
        ..Histogram::default()
    }))
}

const CUMULATIVE_HISTOGRAM: MetricKind = MetricKind::Histogram { temporality: Temporality::Cumulative };

#[test]
fn a_histogram_has_buckets_sum_and_count() {
    let mut world = World::default();
    world.resource = vec![("service.name", "cart"), ("service.instance.id", "i")];
    let points =
        (0..7).map(|i| World::point(f64::from(i) * 10.0, histogram([i as u64 * 10; 3], f64::from(i) * 6.0)));
    world.add("request.duration", "s", CUMULATIVE_HISTOGRAM, &[("http.route", "/")], points.collect());
    let labels = "http_route=\"/\", instance=\"i\", job=\"cart\"";
    assert_eq!(
        world.ask("request_duration_seconds_count", 60.0),
        format!("request_duration_seconds_count{{{labels}}} 180")
    );
    assert_eq!(
        world.ask("request_duration_seconds_sum", 60.0),
        format!("request_duration_seconds_sum{{{labels}}} 36")
    );
    assert_eq!(
        world.ask("sum by (le) (request_duration_seconds_bucket{le!=\"0.5\"})", 60.0),
        "{le=\"+Inf\"} 180\n{le=\"0.1\"} 60"
    );
    assert_eq!(
        world.ask(
            "histogram_quantile(0.5, sum by (le, job) (rate(request_duration_seconds_bucket[1m])))",
            60.0
        ),
        "{job=\"cart\"} 0.3"
    );
    assert_eq!(world.ask("request_duration_seconds", 60.0), "");
}

#[test]
fn a_bucket_without_le_is_told() {
    let mut world = World::default();
    world.samples("m", GAUGE, &[], 10.0, [1.0]);
    let answer = world.instant("histogram_quantile(0.5, m)", 0.0).expect("an answer");
    assert!(answer.warnings.iter().any(|warning| warning.contains("bucket label \"le\" is missing")));
}

#[test]
fn a_summary_has_quantiles() {
    let mut world = World::default();
    let summary = Summary { count: 3, sum: 1.5, quantiles: vec![Quantile { quantile: 0.99, value: 0.7 }] };
    world.add(
        "lag",
        "ms",
        MetricKind::Summary,
        &[],
        vec![World::point(0.0, PointValue::Summary(Box::new(summary)))],
    );
    assert_eq!(world.ask("lag_milliseconds", 0.0), "lag_milliseconds{quantile=\"0.99\"} 0.7");
    assert_eq!(world.ask("lag_milliseconds_sum / lag_milliseconds_count", 0.0), "{} 0.5");
}

#[test]
fn increments_have_the_rate_of_their_counter() {
    let mut world = World::default();
    world.samples("d", DELTA, &[], 10.0, [5.0; 60]);
    world.samples("c", COUNTER, &[], 10.0, (0..60).map(|i| 1000.0 + f64::from(i) * 5.0));
    for query in ["rate(NAME[1m])", "increase(NAME[1m])", "irate(NAME[1m])", "sum(increase(NAME[5m]))"] {
        let of = |name: &str| world.ask(&query.replace("NAME", name), 400.0);
        assert_eq!(of("d_total"), of("c_total"), "{query}");
    }
    let range = |name: &str| world.ask_range(&format!("rate({name}[1m])"), 60, 560, 50);
    assert_eq!(range("d_total"), range("c_total"));
}

#[test]
fn the_rate_of_increments_does_not_depend_on_what_else_is_read() {
    let mut world = World::default();
    world.samples("d", DELTA, &[], 10.0, [1.0, 100.0, 0.0, 3.0, 250.0, 1.0, 90.0, 7.0].repeat(9));
    for seconds in (100..700).step_by(35) {
        let alone = world.ask("increase(d_total[1m])", f64::from(seconds));
        let among = world.ask_range("increase(d_total[1m])", 30, i64::from(seconds), i64::from(seconds) - 30);
        let (alone, among) = (alone.rsplit(' ').next(), among.rsplit(' ').next());
        assert_eq!(alone, among.and_then(|last| last.split('@').next()), "at {seconds}");
    }
}

#[test]
fn a_lone_increment_has_a_rate() {
    let mut world = World::default();
    let start_time_unix_nano = (START as u64 + 90) * 1_000_000_000;
    let point = Point { start_time_unix_nano, ..World::point(100.0, PointValue::Int(7)) };
    world.add("jobs", "", DELTA, &[], vec![point]);
    assert_eq!(world.ask("increase(jobs_total[1m])", 105.0), "{} 10.5");
    assert_eq!(world.ask("max_over_time(jobs_total[1m])", 105.0), "{} 7");
}

#[test]
fn increments_of_two_resources_with_the_same_labels_add_up() {
    let mut world = World::default();
    for host in ["a", "b"] {
        world.resource = vec![("service.name", "cart"), ("host.name", host)];
        world.samples("d", DELTA, &[], 10.0, [5.0; 60]);
    }
    assert_eq!(world.ask("increase(d_total[1m])", 300.0), "{job=\"cart\"} 60");
}

#[test]
fn series_of_equal_labels_are_merged_by_time() {
    let mut world = World::default();
    for (host, seconds) in [("a", 0.0), ("b", 30.0)] {
        world.resource = vec![("service.name", "cart"), ("host.name", host)];
        world.add("m", "", GAUGE, &[], vec![World::point(seconds, PointValue::Double(seconds))]);
    }
    assert_eq!(world.ask("m[1m]", 30.0), "m{job=\"cart\"} 0@0 30@30");
}

#[test]
fn resource_attributes_are_target_info() {
    let mut world = World::default();
    world.resource = vec![
        ("service.name", "cart"),
        ("service.instance.id", "i"),
        ("host.name", "h"),
        ("service.namespace", "shop"),
    ];
    world.samples("m", GAUGE, &[("a", "b")], 60.0, [1.0, 2.0]);
    assert_eq!(
        world.ask("target_info", 90.0),
        "target_info{host_name=\"h\", instance=\"i\", job=\"shop/cart\"} 1"
    );
    assert_eq!(
        world.ask("m * on (job, instance) group_left (host_name) target_info", 90.0),
        "{a=\"b\", host_name=\"h\", instance=\"i\", job=\"shop/cart\"} 2"
    );
    assert_eq!(world.ask("target_info", 400.0), "");
    assert_eq!(world.ask("count({job=\"shop/cart\"})", 60.0), "{} 2");
}

#[test]
fn staleness_of_a_histogram_ends_its_buckets() {
    let mut world = World::default();
    let points = vec![World::point(0.0, histogram([1, 2, 3], 1.0)), World::stale(10.0)];
    world.add("h", "", CUMULATIVE_HISTOGRAM, &[], points);
    assert_eq!(world.ask("count({__name__=~\"h_.*\"})", 5.0), "{} 5");
    assert_eq!(world.ask("{__name__=~\"h_.*\"}", 15.0), "");
}
