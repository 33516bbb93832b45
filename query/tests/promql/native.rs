//! Exponential histograms as native histograms. The expected values are those of a Prometheus with the same samples.

use oteld_store::model::*;

use crate::world::{GAUGE, World};

const CUMULATIVE: MetricKind = MetricKind::ExponentialHistogram { temporality: Temporality::Cumulative };
const DELTA: MetricKind = MetricKind::ExponentialHistogram { temporality: Temporality::Delta };

/// A histogram with buckets from `offset` on.
fn histogram(scale: i32, offset: i32, counts: &[u64], zero_count: u64, sum: f64) -> PointValue {
    PointValue::ExponentialHistogram(Box::new(ExponentialHistogram {
        count: counts.iter().sum::<u64>() + zero_count,
        sum: Some(sum),
        scale,
        zero_count,
        positive: ExponentialBuckets { offset, bucket_counts: counts.to_vec() },
        ..ExponentialHistogram::default()
    }))
}

fn world(kind: MetricKind, points: &[(f64, PointValue)]) -> World {
    let mut world = World::default();
    let points = points.iter().map(|(seconds, value)| World::point(*seconds, value.clone())).collect();
    world.add("lat", "s", kind, &[("a", "b")], points);
    world
}

/// 1 observation a second in (1,2] and 1 in (2,4], every 10 s.
fn steady(kind: MetricKind) -> World {
    let count = |i: u64| if kind == DELTA { 10 } else { i * 10 + 100 };
    let points: Vec<_> = (0..30)
        .map(|i| (i as f64 * 10.0, histogram(0, 0, &[count(i); 2], 0, count(i) as f64 * 4.5)))
        .collect();
    world(kind, &points)
}

#[test]
fn a_selector_returns_the_histogram() {
    let world = world(CUMULATIVE, &[(0.0, histogram(0, 0, &[3, 0, 2], 1, 20.0))]);
    assert_eq!(world.ask("lat_seconds", 10.0), "lat_seconds{a=\"b\"} <6 20 [-0,0]:1 (1,2]:3 (4,8]:2>");
    assert_eq!(world.ask("lat_seconds[1m]", 10.0), "lat_seconds{a=\"b\"} <6 20 [-0,0]:1 (1,2]:3 (4,8]:2>@0");
    assert_eq!(world.ask("lat_seconds_sum / lat_seconds_count", 10.0), "{a=\"b\"} 3.333333333");
    assert_eq!(world.ask("timestamp(lat_seconds) - timestamp(lat_seconds_sum)", 10.0), "{a=\"b\"} 0");
}

#[test]
fn rates_are_those_of_every_bucket() {
    for kind in [CUMULATIVE, DELTA] {
        let world = steady(kind);
        let rate = "{a=\"b\"} <2 4.5 (1,2]:1 (2,4]:1>";
        assert_eq!(world.ask("rate(lat_seconds[1m])", 200.0), rate, "{kind:?}");
        assert_eq!(world.ask("irate(lat_seconds[1m])", 200.0), rate, "{kind:?}");
        assert_eq!(world.ask("increase(lat_seconds[1m]) / 60", 200.0), rate, "{kind:?}");
        assert_eq!(world.ask("histogram_count(rate(lat_seconds[1m]))", 200.0), "{a=\"b\"} 2", "{kind:?}");
        assert_eq!(world.ask("histogram_avg(rate(lat_seconds[1m]))", 200.0), "{a=\"b\"} 2.25", "{kind:?}");
        let fraction = "histogram_fraction(0, 2, rate(lat_seconds[1m]))";
        assert_eq!(world.ask(fraction, 200.0), "{a=\"b\"} 0.5", "{kind:?}");
        let median = "histogram_quantile(0.75, sum(rate(lat_seconds[1m])))";
        assert_eq!(world.ask(median, 200.0), "{} 2.828427125", "{kind:?}");
    }
}

#[test]
fn a_counter_reset_is_not_a_fall() {
    let counts: [&[u64]; 4] = [&[10, 10], &[20, 20], &[5, 5], &[15, 15]];
    let points: Vec<_> =
        counts.iter().zip(0..).map(|(c, i)| (f64::from(i) * 10.0, histogram(0, 0, c, 0, 1.0))).collect();
    let world = world(CUMULATIVE, &points);
    assert_eq!(world.ask("resets(lat_seconds[1m])", 30.0), "{a=\"b\"} 1");
    assert_eq!(world.ask("changes(lat_seconds[1m])", 30.0), "{a=\"b\"} 3");
    // 25 in each bucket within 30 s, extrapolated by half a step as the series begins inside.
    assert_eq!(world.ask("increase(lat_seconds[1m]) * 30 / 35", 30.0), "{a=\"b\"} <50 1 (1,2]:25 (2,4]:25>");
}

#[test]
fn other_resolutions_are_merged_to_the_lower_one() {
    let mut world = World::default();
    for (a, scale, counts) in [("x", 1, &[1, 2, 4][..]), ("y", 0, &[8][..])] {
        let point = World::point(0.0, histogram(scale, 0, counts, 0, 1.0));
        world.add("lat", "", CUMULATIVE, &[("a", a)], vec![point]);
    }
    assert_eq!(world.ask("sum(lat)", 0.0), "{} <15 2 (1,2]:11 (2,4]:4>");
    assert_eq!(world.ask("avg(lat) * 2", 0.0), "{} <15 2 (1,2]:11 (2,4]:4>");
    assert_eq!(world.ask("count(lat)", 0.0), "{} 2");
    assert_eq!(world.ask("sum(lat) - on () lat{a=\"y\"}", 0.0), "{} <7 1 (1,2]:3 (2,4]:4>");
    assert_eq!(world.ask("lat == lat", 0.0).lines().count(), 2);
    // Finer than Prometheus' finest.
    let point = World::point(0.0, histogram(10, 0, &[1; 8], 0, 1.0));
    world.add("fine", "", CUMULATIVE, &[], vec![point]);
    assert_eq!(world.ask("count(histogram_count(fine) == 8)", 0.0), "{} 1");
    assert_eq!(world.ask("fine", 0.0).matches(":4").count(), 2);
}

#[test]
fn what_has_no_meaning_for_histograms_gives_nothing() {
    let world = steady(CUMULATIVE);
    for query in
        ["lat_seconds + 1", "2 / lat_seconds", "abs(lat_seconds)", "max(lat_seconds)", "lat_seconds > 1"]
    {
        assert_eq!(world.ask(query, 100.0), "", "{query}");
    }
    assert_eq!(world.ask("absent(lat_seconds)", 100.0), "");
    assert_eq!(world.ask("count(lat_seconds and lat_seconds)", 100.0), "{} 1");
}

#[test]
fn floats_and_histograms_are_not_added() {
    let mut world = steady(CUMULATIVE);
    world.samples("lat_seconds", GAUGE, &[("a", "c")], 10.0, [1.0]);
    let answer = world.instant("sum(lat_seconds)", 5.0).expect("an answer");
    assert!(answer.warnings.iter().any(|warning| warning.contains("mix of histograms and floats")));
    assert_eq!(world.ask("count(lat_seconds)", 5.0), "{} 2");
}

#[test]
fn a_query_for_classic_buckets_is_told_and_never_silently_empty() {
    let world = steady(CUMULATIVE);
    let answer = world.instant("lat_seconds_bucket", 0.0).expect("an answer");
    assert!(answer.warnings.iter().any(|warning| warning.contains("\"lat_seconds\"")));
    for query in ["lat_seconds", "{__name__=~\"lat.*\"}", "lat_seconds_count"] {
        assert!(world.instant(query, 0.0).expect("an answer").warnings.is_empty(), "{query}");
    }
}

#[test]
fn classic_buckets_have_fractions_too() {
    let mut world = World::default();
    for (le, count) in [("1", 4.0), ("2", 8.0), ("+Inf", 16.0)] {
        world.samples("b", GAUGE, &[("le", le)], 10.0, [count]);
    }
    assert_eq!(world.ask("histogram_fraction(0, 1.5, b)", 0.0), "{} 0.375");
    assert_eq!(world.ask("histogram_fraction(-Inf, +Inf, b)", 0.0), "{} 1");
}

/// Cases of Prometheus' own tests (promql/promqltest/testdata/native_histograms.test).
#[test]
fn quantiles_and_deviations_are_those_of_prometheus() {
    let PointValue::ExponentialHistogram(mut value) = histogram(0, -1, &[2, 3, 0, 1, 4], 2, 100.0) else {
        panic!("it is a histogram");
    };
    value.zero_threshold = 0.001;
    let quantiles = world(CUMULATIVE, &[(0.0, PointValue::ExponentialHistogram(value))]);
    for (q, expected) in [
        ("1.001", "+Inf"),
        ("1", "16"),
        ("0.99", "15.670724761"),
        ("0.9", "12.996038342"),
        ("0.6", "4.59479342"),
        ("0.5", "1.587401052"),
        ("0.1", "0.0006"),
        ("0", "0"),
        ("-1", "-Inf"),
    ] {
        let query = format!("histogram_quantile({q}, lat_seconds)");
        assert_eq!(quantiles.ask(&query, 0.0), format!("{{a=\"b\"}} {expected}"), "{query}");
    }
    let deviations = world(CUMULATIVE, &[(0.0, histogram(2, -1, &[1, 0, 0, 0, 1, 0, 0, 1, 1], 0, 10.0))]);
    assert_eq!(deviations.ask("histogram_stddev(lat_seconds)", 0.0), "{a=\"b\"} 1.078799318");
    assert_eq!(deviations.ask("histogram_stdvar(lat_seconds)", 0.0), "{a=\"b\"} 1.163807969");
}
