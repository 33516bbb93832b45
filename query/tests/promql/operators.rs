//! Binary operators and vector matching.

use crate::world::{GAUGE, World};

fn world() -> World {
    let mut world = World::default();
    for (method, code, value) in
        [("get", "500", 24.0), ("get", "404", 30.0), ("put", "501", 3.0), ("post", "500", 6.0)]
    {
        world.samples("errors", GAUGE, &[("method", method), ("code", code)], 60.0, [value]);
    }
    for (method, value) in [("get", 600.0), ("del", 34.0), ("post", 120.0)] {
        world.samples("requests", GAUGE, &[("method", method)], 60.0, [value]);
    }
    world.samples("more", GAUGE, &[("method", "get")], 60.0, [1.0]);
    world
}

#[track_caller]
fn check(cases: &[(&str, &[&str])]) {
    let world = world();
    for (query, expected) in cases {
        let answer = world.ask(query, 0.0);
        let mut lines: Vec<&str> = answer.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, *expected, "{query}");
    }
}

#[test]
fn scalars_are_computed() {
    check(&[
        ("1 + 1", &["2"]),
        ("2 ^ 3 ^ 2", &["512"]),
        ("-2 ^ 2", &["-4"]),
        ("7 % 3 - -1", &["2"]),
        ("-7 % 3", &["-1"]),
        ("1 / 0", &["+Inf"]),
        ("0 / 0", &["NaN"]),
        ("1 > bool 2", &["0"]),
        ("1 atan2 1 > bool 0.78", &["1"]),
        ("1e3 * 0x10", &["16000"]),
    ]);
}

#[test]
fn a_scalar_meets_every_element() {
    check(&[
        ("requests / 2", &["{method=\"del\"} 17", "{method=\"get\"} 300", "{method=\"post\"} 60"]),
        ("1000 - requests{method=\"get\"}", &["{method=\"get\"} 400"]),
        ("requests > 100", &["requests{method=\"get\"} 600", "requests{method=\"post\"} 120"]),
        ("100 < requests", &["requests{method=\"get\"} 600", "requests{method=\"post\"} 120"]),
        ("requests > bool 500", &["{method=\"del\"} 0", "{method=\"get\"} 1", "{method=\"post\"} 0"]),
        ("-requests{method=\"del\"}", &["{method=\"del\"} -34"]),
        ("requests == 34", &["requests{method=\"del\"} 34"]),
    ]);
}

#[test]
fn vectors_match_on_labels() {
    check(&[
        (
            "errors{code=\"500\"} / ignoring(code) requests",
            &["{method=\"get\"} 0.04", "{method=\"post\"} 0.05"],
        ),
        ("errors{code=\"500\"} / on(method) requests", &["{method=\"get\"} 0.04", "{method=\"post\"} 0.05"]),
        (
            "errors / ignoring(code) group_left requests",
            &[
                "{code=\"404\", method=\"get\"} 0.05",
                "{code=\"500\", method=\"get\"} 0.04",
                "{code=\"500\", method=\"post\"} 0.05",
            ],
        ),
        (
            "requests / on(method) group_right errors",
            &[
                "{code=\"404\", method=\"get\"} 20",
                "{code=\"500\", method=\"get\"} 25",
                "{code=\"500\", method=\"post\"} 20",
            ],
        ),
        ("requests + requests{method=\"get\"}", &["{method=\"get\"} 1200"]),
        ("requests > ignoring(code) errors{code=\"500\"} * 21", &["requests{method=\"get\"} 600"]),
        ("requests > bool on(method) errors{code=\"404\"}", &["{method=\"get\"} 1"]),
        ("sum(requests) / on() sum(errors)", &["{} 11.968253968"]),
        (
            "requests{method=\"get\"} * on(method) group_left(code) errors{code=\"404\"}",
            &["{code=\"404\", method=\"get\"} 18000"],
        ),
    ]);
}

#[test]
fn sets_keep_or_drop_whole_elements() {
    check(&[
        (
            "requests and on(method) errors",
            &["requests{method=\"get\"} 600", "requests{method=\"post\"} 120"],
        ),
        ("requests unless on(method) errors", &["requests{method=\"del\"} 34"]),
        (
            "requests{method=\"get\"} or on(method) errors",
            &[
                "errors{code=\"500\", method=\"post\"} 6",
                "errors{code=\"501\", method=\"put\"} 3",
                "requests{method=\"get\"} 600",
            ],
        ),
        (
            "requests or vector(1) unless requests",
            &[
                "requests{method=\"del\"} 34",
                "requests{method=\"get\"} 600",
                "requests{method=\"post\"} 120",
                "{} 1",
            ],
        ),
        ("group by (__name__) (requests) unless group by (__name__) (requests offset 1h)", &["requests{} 1"]),
    ]);
}

#[test]
fn ambiguous_matches_are_errors() {
    let world = world();
    for (query, message) in [
        (
            "errors / ignoring(code) requests",
            "many-to-one matching must be explicit (group_left/group_right)",
        ),
        (
            "requests / ignoring(code) errors",
            "found duplicate series for the match group {method=\"get\"} on the right hand-side",
        ),
        (
            "requests * on(method) group_left errors",
            "many-to-many matching not allowed: matching labels must be unique on one side",
        ),
        ("errors * on(method) group_right requests", "on the left hand-side of the operation"),
        (
            "errors + on(method) group_left(code) label_replace(requests, \"code\", \"1\", \"\", \"\")",
            "grouping labels must ensure unique matches",
        ),
        ("1 == 1", "comparisons between scalars must use BOOL modifier"),
        ("requests and 1", "set operator 'and' not allowed in binary scalar expression"),
        (
            "label_replace(requests, \"method\", \"same\", \"\", \"\")",
            "vector cannot contain metrics with the same labelset",
        ),
        ("abs({__name__=~\"requests|more\"})", "same labelset"),
    ] {
        let error = world.error(query, 0.0);
        assert!(error.message.contains(message), "{query}: {error}");
    }
}
