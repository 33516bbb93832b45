//! Which samples selectors see.

use oteld_query::QueryErrorKind;
use oteld_store::model::PointValue;

use crate::world::{COUNTER, GAUGE, World};

fn hosts() -> World {
    let mut world = World::default();
    for (host, zone) in [("a", "x"), ("b", "y"), ("c", "")] {
        let attributes: Vec<_> =
            [("host", host), ("zone", zone)].into_iter().filter(|(_, value)| !value.is_empty()).collect();
        world.samples("load", GAUGE, &attributes, 60.0, (0..10).map(f64::from));
    }
    world
}

#[test]
fn matchers_select_by_label() {
    let world = hosts();
    let cases = [
        ("load{host=\"a\"}", "a"),
        ("load{host!=\"a\"}", "bc"),
        ("load{host=~\"a|b\"}", "ab"),
        ("load{host=~\"a|b.+\"}", "a"),
        ("load{host!~\"a|b\"}", "c"),
        ("load{zone=\"\"}", "c"),
        ("load{zone!=\"\"}", "ab"),
        ("load{zone=~\".*\"}", "abc"),
        ("load{zone=~\".+\"}", "ab"),
        ("load{zone=~\"|x\"}", "ac"),
        ("{__name__=~\"lo.d\",zone!~\"x\"}", "bc"),
        ("{\"load\",host=\"a\"}", "a"),
        ("load{host=\"a\",host=\"b\"}", ""),
        ("lo", ""),
    ];
    for (query, hosts) in cases {
        let found: String = world
            .ask(&format!("label_replace({query}, \"__name__\", \"\", \"\", \"\")"), 120.0)
            .lines()
            .map(|line| line.split('"').nth(1).expect("a host").to_owned())
            .collect();
        assert_eq!(found, hosts, "{query}");
    }
}

#[test]
fn the_latest_sample_in_five_minutes_counts() {
    let mut world = World::default();
    world.samples("m", GAUGE, &[], 60.0, [1.0, 2.0]);
    let cases =
        [(-0.001, ""), (0.0, "m{} 1"), (59.999, "m{} 1"), (60.0, "m{} 2"), (359.999, "m{} 2"), (360.0, "")];
    for (seconds, expected) in cases {
        assert_eq!(world.ask("m", seconds), expected, "at {seconds}");
    }
}

#[test]
fn a_stale_marker_ends_a_series_until_its_next_sample() {
    let mut world = World::default();
    let value = |seconds, value| World::point(seconds, PointValue::Double(value));
    world.add("m", "", GAUGE, &[], vec![value(0.0, 1.0), World::stale(30.0), value(60.0, 3.0)]);
    assert_eq!(world.ask_range("m", 0, 90, 15), "m{} 1@0 1@15 3@60 3@75 3@90");
    assert_eq!(world.ask("m[2m]", 90.0), "m{} 1@0 3@60");
    assert_eq!(world.ask("count_over_time(m[2m])", 90.0), "{} 2");
}

#[test]
fn offsets_and_at_move_the_time() {
    let world = hosts();
    let cases = [
        ("load{host=\"a\"} offset 1m", "4@300 5@360"),
        ("load{host=\"a\"} offset -1m", "6@300 7@360"),
        ("load{host=\"a\"} @ 1700000120", "2@300 2@360"),
        ("load{host=\"a\"} @ 1700000120 offset 1m", "1@300 1@360"),
        ("load{host=\"a\"} offset 1m @ 1700000120", "1@300 1@360"),
        ("load{host=\"a\"} @ start()", "5@300 5@360"),
        ("load{host=\"a\"} @ end()", "6@300 6@360"),
        ("sum_over_time(load{host=\"a\"}[2m] @ end())", "11@300 11@360"),
        ("timestamp(load{host=\"a\"} offset 30s) - 1700000000", "240@300 300@360"),
    ];
    for (query, expected) in cases {
        let answer = world.ask_range(query, 300, 360, 60);
        assert_eq!(answer.split_once("} ").map(|(_, samples)| samples), Some(expected), "{query}");
    }
}

#[test]
fn a_range_is_open_on_the_left() {
    let world = hosts();
    assert_eq!(world.ask("load{host=\"c\"}[2m]", 240.0), "load{host=\"c\"} 3@180 4@240");
    assert_eq!(world.ask("count_over_time(load{host=\"c\"}[1m])", 240.0), "{host=\"c\"} 1");
    assert_eq!(world.ask("count_over_time(load{host=\"c\"}[1m])", 239.0), "{host=\"c\"} 1");
    assert_eq!(world.ask("count_over_time(load{host=\"c\"}[30s])", 239.0), "");
}

#[test]
fn a_subquery_has_steps_at_multiples_of_its_own() {
    let world = hosts();
    // 1700000000 is 20 s after a whole minute.
    assert_eq!(world.ask("load{host=\"c\"}[3m:1m]", 240.0), "load{host=\"c\"} 1@100 2@160 3@220");
    assert_eq!(world.ask("load{host=\"c\"}[3m:]", 240.0), "load{host=\"c\"} 1@100 2@160 3@220");
    assert_eq!(world.ask("max_over_time(load{host=\"c\"}[3m:1m] offset 1m)", 240.0), "{host=\"c\"} 2");
    assert_eq!(
        world.ask_range("max_over_time((load{host=\"c\"} * 2)[2m:20s])", 240, 300, 60),
        "{host=\"c\"} 8@240 10@300"
    );
    // Left-open: a step on the start of the window is not in it.
    assert_eq!(world.ask("count_over_time(load{host=\"c\"}[1m:20s])", 240.0), "{host=\"c\"} 3");
}

#[test]
fn samples_between_windows_are_not_needed_for_the_answer() {
    let mut world = World::default();
    world.samples("c_total", COUNTER, &[], 10.0, (0..1000).map(f64::from));
    let sparse = world.ask_range("increase(c_total[1m])", 1000, 9000, 4000);
    assert_eq!(sparse, "{} 6@1000 6@5000 6@9000");
}

#[test]
fn limits_stop_a_query_and_say_which() {
    let mut world = hosts();
    world.limits.series_max = 2;
    let error = world.error("load", 60.0);
    assert_eq!(error.kind, QueryErrorKind::Limit);
    assert!(error.message.contains("limit of 2 series"), "{error}");
    world.limits.series_max = 100;
    world.limits.samples_max = 5;
    assert!(world.error("load[5m]", 300.0).message.contains("limit of 5 samples"));
    let error = world.range("load", 0, 110_010, 10).expect_err("too many steps");
    assert!(
        error.message.starts_with("exceeded maximum resolution of 11,000 points per timeseries."),
        "{error}"
    );
    assert_eq!(world.error("count_over_time(vector(1)[10y:1ms])", 0.0).kind, QueryErrorKind::Limit);
}

#[test]
fn times_that_add_up_beyond_all_bounds_are_refused() {
    let world = World::default();
    let nested = |inner: String, _| format!("max_over_time({inner}[15000000y:14000000y])");
    let query = (0..20).fold("x".to_owned(), nested);
    for query in [query.as_str(), "x offset 20000000y", "x[99999999999y]", "x @ 1e30", "x @ -9e17"] {
        let error = world.error(query, 0.0);
        assert_eq!(error.kind, QueryErrorKind::BadQuery, "{query}: {error}");
    }
}

#[test]
fn what_is_not_built_is_named() {
    let world = hosts();
    for (query, name) in [
        ("info(load)", "info()"),
        ("limitk(1, load)", "limitk"),
        ("mad_over_time(load[5m])", "mad_over_time()"),
        ("sort_by_label(load, \"a\")", "sort_by_label()"),
    ] {
        let error = world.error(query, 0.0);
        assert_eq!(error.kind, QueryErrorKind::NotSupported, "{query}");
        assert!(error.message.contains(name), "{query}: {error}");
    }
}

#[test]
fn a_range_query_gives_scalars_and_instant_vectors_only() {
    let world = hosts();
    assert_eq!(world.ask_range("1 + 1", 0, 60, 60), "{} 2@0 2@60");
    for (query, kind) in [("load[5m]", "range vector"), ("\"text\"", "string")] {
        let error = world.range(query, 0, 60, 60).expect_err(query);
        assert!(error.message.contains(kind), "{error}");
    }
    assert_eq!(world.ask("\"text\"", 0.0), "text");
}
