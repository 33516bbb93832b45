//! Aggregations.

use crate::world::{GAUGE, World};

fn world() -> World {
    let mut world = World::default();
    for (zone, host, value) in
        [("x", "a", 1.0), ("x", "b", 2.0), ("x", "c", 3.0), ("y", "d", 10.0), ("y", "e", f64::NAN)]
    {
        world.samples("m", GAUGE, &[("zone", zone), ("host", host)], 60.0, [value]);
    }
    world
}

#[test]
fn groups_become_one_value() {
    let world = world();
    let cases = [
        ("sum(m{zone=\"x\"})", "{} 6"),
        ("sum by (zone) (m{host!=\"e\"})", "{zone=\"x\"} 6\n{zone=\"y\"} 10"),
        ("sum without (host) (m{host!=\"e\"})", "{zone=\"x\"} 6\n{zone=\"y\"} 10"),
        ("avg by (zone) (m{host!=\"e\"})", "{zone=\"x\"} 2\n{zone=\"y\"} 10"),
        ("min by (zone) (m)", "{zone=\"x\"} 1\n{zone=\"y\"} 10"),
        ("max by (zone) (m)", "{zone=\"x\"} 3\n{zone=\"y\"} 10"),
        ("count(m) by (zone)", "{zone=\"x\"} 3\n{zone=\"y\"} 2"),
        ("group by (nothing) (m)", "{} 1"),
        ("stdvar by (zone) (m{zone=\"x\"})", "{zone=\"x\"} 0.666666667"),
        ("stddev(m{host=~\"a|c\"})", "{} 1"),
        ("quantile(0.25, m{zone=\"x\"})", "{} 1.5"),
        ("quantile by (zone) (-1, m{zone=\"x\"})", "{zone=\"x\"} -Inf"),
        ("sum(m{zone=\"z\"})", ""),
        ("sum by (zone) (m)", "{zone=\"x\"} 6\n{zone=\"y\"} NaN"),
        ("sum by (__name__) (m{zone=\"x\"})", "m{} 6"),
    ];
    for (query, expected) in cases {
        assert_eq!(world.ask(query, 0.0), expected, "{query}");
    }
}

#[test]
fn the_greatest_and_least_keep_their_labels_in_order() {
    let world = world();
    let cases = [
        ("topk(2, m)", "d10 c3"),
        ("bottomk(2, m)", "a1 b2"),
        ("topk(10, m)", "d10 c3 b2 a1 eNaN"),
        ("topk by (zone) (1, m)", "c3 d10"),
        ("topk(0, m)", ""),
        ("bottomk without (host) (1, m)", "a1 d10"),
        ("sort(m)", "a1 b2 c3 d10 eNaN"),
        ("sort_desc(m)", "d10 c3 b2 a1 eNaN"),
    ];
    for (query, expected) in cases {
        let answer = world.ask(query, 0.0);
        let short: Vec<String> = answer
            .lines()
            .map(|line| {
                format!(
                    "{}{}",
                    line.split('"').nth(1).expect("a host"),
                    line.rsplit(' ').next().expect("a value")
                )
            })
            .collect();
        assert_eq!(short.join(" "), expected, "{query}");
    }
}

#[test]
fn values_are_counted() {
    let mut world = World::default();
    for (host, value) in [("a", 1.0), ("b", 1.0), ("c", 2.5)] {
        world.samples("version", GAUGE, &[("host", host)], 60.0, [value]);
    }
    assert_eq!(world.ask("count_values(\"v\", version)", 0.0), "{v=\"1\"} 2\n{v=\"2.5\"} 1");
}

#[test]
fn large_numbers_do_not_swallow_small_ones() {
    let mut world = World::default();
    for (host, value) in [("a", 1e100), ("b", 1.0), ("c", -1e100)] {
        world.samples("m", GAUGE, &[("host", host)], 60.0, [value]);
    }
    assert_eq!(world.ask("sum(m)", 0.0), "{} 1");
    assert_eq!(world.ask("avg(m) * 3", 0.0), "{} 1");
}

#[test]
fn a_quantile_out_of_range_is_told() {
    let answer = world().instant("quantile(2, m)", 0.0).expect("an answer");
    let warnings: Vec<_> = answer.warnings.into_iter().collect();
    assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2"]);
}

#[test]
fn a_k_that_is_no_number_of_series_is_refused() {
    for (k, message) in [("NaN", "Parameter value is NaN"), ("1e30", "Scalar value 1e+30 overflows int64")] {
        assert_eq!(world().error(&format!("topk({k}, m)"), 0.0).message, message);
    }
}
