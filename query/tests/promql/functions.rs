//! Functions of ranges, vectors and scalars.

use crate::world::{COUNTER, GAUGE, World};

fn counters() -> World {
    let mut world = World::default();
    // 1 a second, sampled every 10 s.
    world.samples("steady_total", COUNTER, &[], 10.0, (0..60).map(|i| 100.0 + f64::from(i) * 10.0));
    // Falls to 5 at 30 s.
    world.samples("reset_total", COUNTER, &[], 10.0, [10.0, 20.0, 30.0, 5.0, 15.0]);
    world.samples("gauge", GAUGE, &[], 10.0, [8.0, 6.0, 6.0, 10.0, 4.0]);
    world
}

#[track_caller]
fn check(world: &World, seconds: f64, cases: &[(&str, &str)]) {
    for (query, expected) in cases {
        assert_eq!(world.ask(query, seconds), *expected, "{query}");
    }
}

#[test]
fn rates_are_extrapolated_to_the_ends_of_the_window() {
    check(
        &counters(),
        300.0,
        &[
            ("rate(steady_total[1m])", "{} 1"),
            ("increase(steady_total[1m])", "{} 60"),
            ("increase(steady_total[65s])", "{} 65"),
            ("rate(steady_total[1m] offset 3s)", "{} 1"),
            ("irate(steady_total[1m])", "{} 1"),
            ("rate(steady_total[5s])", ""),
            ("rate(steady_total[10s])", ""),
        ],
    );
}

#[test]
fn a_series_that_begins_or_ends_inside_is_extrapolated_by_half_a_step() {
    let world = counters();
    // The samples end at 590: 11 s are more than 1.1 steps, so half a step is added.
    // In (542, 602]: 550…590, 40 in 40 s; 8 s before are less than a step.
    check(&world, 602.0, &[("increase(steady_total[1m])", "{} 53")]);
}

#[test]
fn a_counter_is_not_extrapolated_below_zero() {
    let mut world = World::default();
    world.samples("young_total", COUNTER, &[], 10.0, [1.0, 11.0, 21.0]);
    // At 0 the counter was 1, and 1 s before it was 0.
    check(&world, 20.0, &[("increase(young_total[30s])", "{} 21"), ("delta(young_total[30s])", "{} 30")]);
}

#[test]
fn a_reset_counts_from_zero() {
    check(
        &counters(),
        40.0,
        &[
            // 10, 10, 5 (after the reset), 10 in 40 s, and 10 s to the start of the window.
            ("increase(reset_total[50s])", "{} 43.75"),
            ("resets(reset_total[50s])", "{} 1"),
            ("idelta(reset_total[50s])", "{} 10"),
        ],
    );
    check(
        &counters(),
        30.0,
        &[("irate(reset_total[50s])", "{} 0.5"), ("idelta(reset_total[50s])", "{} -25")],
    );
}

#[test]
fn windows_are_summarized() {
    check(
        &counters(),
        40.0,
        &[
            ("avg_over_time(gauge[1m])", "{} 6.8"),
            ("min_over_time(gauge[1m])", "{} 4"),
            ("max_over_time(gauge[1m])", "{} 10"),
            ("sum_over_time(gauge[1m])", "{} 34"),
            ("count_over_time(gauge[1m])", "{} 5"),
            ("quantile_over_time(0.5, gauge[1m])", "{} 6"),
            ("stdvar_over_time(gauge[1m])", "{} 4.16"),
            ("stddev_over_time(gauge[1m]) ^ 2", "{} 4.16"),
            ("last_over_time(gauge[1m])", "gauge{} 4"),
            ("present_over_time(gauge[1m])", "{} 1"),
            ("changes(gauge[1m])", "{} 3"),
            ("resets(gauge[1m])", "{} 2"),
            ("delta(gauge[40s])", "{} -2.666666667"),
            ("absent_over_time(gauge[1m])", ""),
            ("absent_over_time(nothing{a=\"b\",c=~\"d\"}[1m])", "{a=\"b\"} 1"),
            ("absent(gauge)", ""),
            ("absent(nothing{a=\"b\",a=\"c\",d=\"e\"})", "{d=\"e\"} 1"),
            ("absent(sum(nothing{a=\"b\"}))", "{} 1"),
        ],
    );
}

#[test]
fn lines_are_fitted() {
    check(
        &counters(),
        300.0,
        &[
            ("deriv(steady_total[1m])", "{} 1"),
            ("predict_linear(steady_total[1m], 100)", "{} 500"),
            ("predict_linear(steady_total[1m] offset 1m, 0)", "{} 400"),
            ("deriv(steady_total[10s])", ""),
        ],
    );
}

#[test]
fn times_and_dates_are_utc() {
    // 1700000000 is Tuesday, 2023-11-14 22:13:20.
    check(
        &World::default(),
        0.0,
        &[
            ("time()", "1700000000"),
            ("year()", "{} 2023"),
            ("month()", "{} 11"),
            ("day_of_month()", "{} 14"),
            ("day_of_week()", "{} 2"),
            ("day_of_year()", "{} 318"),
            ("days_in_month()", "{} 30"),
            ("hour()", "{} 22"),
            ("minute()", "{} 13"),
            ("days_in_month(vector(1709164800))", "{} 29"),
            ("year(vector(-1))", "{} 1969"),
            ("timestamp(vector(1))", "{} 1700000000"),
        ],
    );
}

#[test]
fn values_are_transformed() {
    check(
        &World::default(),
        0.0,
        &[
            ("abs(vector(-1.5))", "{} 1.5"),
            ("sgn(vector(-3))", "{} -1"),
            ("sgn(vector(0))", "{} 0"),
            ("round(vector(2.5))", "{} 3"),
            ("round(vector(-2.5))", "{} -2"),
            ("round(vector(27), 10)", "{} 30"),
            ("ceil(vector(1.1)) + floor(vector(1.9))", "{} 3"),
            ("clamp(vector(5), 1, 3)", "{} 3"),
            ("clamp(vector(5), 3, 1)", ""),
            ("clamp_min(vector(5), 7)", "{} 7"),
            ("clamp_max(vector(5), NaN)", "{} NaN"),
            (
                "sqrt(vector(16)) + exp(vector(0)) + ln(vector(1)) + log2(vector(8)) + log10(vector(1000))",
                "{} 11",
            ),
            ("deg(vector(pi()))", "{} 180"),
            ("scalar(vector(3)) + 1", "4"),
            ("scalar(vector(1) > 2)", "NaN"),
            ("vector(time() - 1700000000)", "{} 0"),
        ],
    );
}

#[test]
fn labels_are_rewritten() {
    let mut world = World::default();
    world.samples("m", GAUGE, &[("path", "/a/b"), ("host", "h1")], 60.0, [1.0]);
    check(
        &world,
        0.0,
        &[
            (
                "label_replace(m, \"top\", \"$1\", \"path\", \"/(.*)/.*\")",
                "m{host=\"h1\", path=\"/a/b\", top=\"a\"} 1",
            ),
            (
                "label_replace(m, \"host\", \"${n}x\", \"host\", \"h(?P<n>.)\")",
                "m{host=\"1x\", path=\"/a/b\"} 1",
            ),
            ("label_replace(m, \"top\", \"x\", \"path\", \"a\")", "m{host=\"h1\", path=\"/a/b\"} 1"),
            ("label_replace(m, \"host\", \"\", \"\", \"\")", "m{path=\"/a/b\"} 1"),
            (
                "label_join(m, \"all\", \"-\", \"host\", \"none\", \"path\")",
                "m{all=\"h1--/a/b\", host=\"h1\", path=\"/a/b\"} 1",
            ),
        ],
    );
    assert!(
        world
            .error("label_replace(m, \"a\", \"b\", \"c\", \"(\")", 0.0)
            .message
            .contains("regular expression")
    );
}

#[test]
fn a_rate_of_what_is_not_a_counter_is_told() {
    let answer = counters().instant("rate(gauge[1m])", 40.0).expect("an answer");
    let infos: Vec<_> = answer.infos.into_iter().collect();
    assert!(
        infos.len() == 1 && infos[0].contains("might not be a counter") && infos[0].contains("\"gauge\"")
    );
}

#[test]
fn infinities_are_as_in_go() {
    let mut world = World::default();
    let big = 1.7e308;
    world.samples("up", GAUGE, &[], 10.0, [f64::INFINITY]);
    world.samples("down", GAUGE, &[], 10.0, [f64::NEG_INFINITY]);
    world.samples("swing_total", COUNTER, &[], 10.0, [big, -big, big, -big, big, -big]);
    let cases = [("clamp_min(up, NaN)", "{} +Inf"), ("clamp_max(down, NaN)", "{} -Inf")];
    check(&world, 0.0, &cases);
    check(
        &world,
        50.0,
        &[("clamp_max(swing_total, NaN)", "{} NaN"), ("increase(swing_total[1m])", "{} -Inf")],
    );
}
