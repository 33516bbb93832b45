//! What parses, to what, and what is refused with which words.

use super::super::ast::*;
use super::*;
use crate::QueryErrorKind;

fn query(text: &str) -> Query {
    parse(text, 16_384).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn logs(text: &str) -> LogQuery {
    match query(text) {
        Query::Logs(query) => query,
        Query::Metric(_) => panic!("{text} is a metric query"),
    }
}

fn metric(text: &str) -> MetricExpr {
    match query(text) {
        Query::Metric(expression) => expression,
        Query::Logs(_) => panic!("{text} is a log query"),
    }
}

fn refused(text: &str) -> QueryError {
    match parse(text, 16_384) {
        Err(error) => error,
        Ok(query) => panic!("{text} parsed to {query:?}"),
    }
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher { name: name.to_owned(), op, value: value.to_owned() }
}

#[test]
fn selectors_take_all_four_operators() {
    let found = logs(r#"{a="1", b!="2", c=~"x.+", d!~`y\d`,}"#).selector;
    let expected = [
        matcher("a", MatchOp::Equal, "1"),
        matcher("b", MatchOp::NotEqual, "2"),
        matcher("c", MatchOp::Regex, "x.+"),
        matcher("d", MatchOp::NotRegex, r"y\d"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_selector_that_any_stream_fits_is_refused() {
    for text in ["{}", r#"{a=~".*"}"#, r#"{a!="x"}"#, r#"{a=""}"#, r#"{a!~"x"}"#] {
        assert!(refused(text).message.contains("at least one regexp or equality matcher"), "{text}");
    }
    assert_eq!(parse_selector("{}", 100), Ok(Vec::new()));
    logs(r#"{a!="x", b=~".+"}"#);
}

#[test]
fn line_filters_chain_and_take_alternatives() {
    let filter = |op, values: &[&str]| {
        Stage::Line(LineFilter { op, values: values.iter().map(|value| (*value).to_owned()).collect() })
    };
    let found = logs(r#"{a="b"} |= "x" or "y" != "z" |~ `\d+` !~ "q""#).stages;
    let expected = [
        filter(LineOp::Contains, &["x", "y"]),
        filter(LineOp::NotContains, &["z"]),
        filter(LineOp::Match, &[r"\d+"]),
        filter(LineOp::NotMatch, &["q"]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn label_filters_bind_and_before_or() {
    let text = r#"{a="b"} | level="error" or status >= 500 and took > 1.5s, size<=20KB"#;
    let Stage::Filter(LabelFilter::Or(any)) = &logs(text).stages[0] else { panic!("not an or") };
    let compare = |name: &str, op, value| LabelFilter::Compare { name: name.to_owned(), op, value };
    assert_eq!(any[0], LabelFilter::Matches(matcher("level", MatchOp::Equal, "error")));
    let all = LabelFilter::And(vec![
        compare("status", CompareOp::GreaterOrEqual, Quantity::Number(500.0)),
        compare("took", CompareOp::Greater, Quantity::Duration(1.5)),
        compare("size", CompareOp::LessOrEqual, Quantity::Bytes(20_000.0)),
    ]);
    assert_eq!(any[1], all);
}

#[test]
fn parsers_take_their_arguments_and_label_filters_may_be_named_like_them() {
    let text = r#"{a="b"} | json | json x="a.b", y | logfmt --strict k="v" | pattern "<x> y" | regexp "(?P<z>.)"
        | json="1" | line_format "{{.x}} {{ __line__ }}!" | label_format n=old, m="{{.x}}" | drop q, w="1""#;
    let stages = logs(text).stages;
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(stages[0], Stage::Json { fields: vec![] });
    assert_eq!(stages[1], Stage::Json { fields: vec![pair("x", "a.b"), pair("y", "y")] });
    assert_eq!(stages[2], Stage::Logfmt { strict: true, keep_empty: false, fields: vec![pair("k", "v")] });
    assert_eq!(stages[5], Stage::Filter(LabelFilter::Matches(matcher("json", MatchOp::Equal, "1"))));
    let label = || TemplatePart::Label("x".to_owned());
    let text = |text: &str| TemplatePart::Text(text.to_owned());
    assert_eq!(stages[6], Stage::LineFormat(vec![label(), text(" "), TemplatePart::Line, text("!")]));
    assert_eq!(stages.len(), 9);
}

#[test]
fn a_range_stands_before_or_behind_the_stages() {
    for text in [
        r#"count_over_time({a="b"} |= "x" [5m] offset 1h)"#,
        r#"count_over_time({a="b"}[5m] offset 1h |= "x")"#,
    ] {
        let MetricExpr::Range(range) = metric(text) else { panic!("{text} is no range aggregation") };
        assert_eq!((range.range_nanos, range.offset_nanos), (300_000_000_000, 3_600_000_000_000), "{text}");
        assert_eq!(range.query.stages.len(), 1, "{text}");
    }
}

#[test]
fn unwrap_keeps_its_conversion_and_filters() {
    let text = r#"max_over_time({a="b"} | json | unwrap duration(took) | __error__="" [1m]) by (x, a)"#;
    let MetricExpr::Range(range) = metric(text) else { panic!("no range aggregation") };
    let unwrap = range.unwrap.expect("an unwrap");
    assert_eq!((unwrap.label.as_str(), unwrap.conversion), ("took", Conversion::Duration));
    assert_eq!(unwrap.filters.len(), 1);
    assert_eq!(range.grouping, Some(Grouping { without: false, labels: vec!["a".into(), "x".into()] }));
}

#[test]
fn operators_bind_as_in_arithmetic() {
    let MetricExpr::Binary { op, sides, .. } = metric("1 + 2 * 3 > bool 4") else { panic!("no operator") };
    assert_eq!(op, BinaryOp::Compare(CompareOp::Greater));
    let MetricExpr::Binary { op, .. } = &sides.0 else { panic!("no operator") };
    assert_eq!(*op, BinaryOp::Add);
    let MetricExpr::Binary { sides, .. } = metric("2 ^ 3 ^ 2") else { panic!("no operator") };
    assert_eq!(sides.0, MetricExpr::Scalar(2.0));
}

#[test]
fn what_is_valid_and_not_built_is_named() {
    for (text, name) in [
        (r#"{a="b"} | distinct x"#, "distinct"),
        (r#"{a="b"} |= ip("10.0.0.0/8")"#, "ip()"),
        (r#"{a="b"} | addr = ip("10.0.0.0/8")"#, "ip()"),
        (r#"{a="b"} | line_format "{{ .x | ToUpper }}""#, "ToUpper"),
        (r#"rate_counter({a="b"} | unwrap x [1m])"#, "rate_counter"),
        (r#"stddev(rate({a="b"}[1m]))"#, "stddev"),
        (r#"rate({a="b"}[1m]) / on (x) group_left rate({a="b"}[1m])"#, "group_left"),
    ] {
        let error = refused(text);
        assert_eq!(error.kind, QueryErrorKind::NotSupported, "{text}: {error}");
        assert!(error.message.contains(name), "{text}: {error}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (text, words) in [
        ("", "line 1, col 1: unexpected the end of the query"),
        (r#"{a="b""#, "col 7"),
        (r#"{a="b"} |= 5"#, "expected a string"),
        (r#"{a=~"("}"#, "error parsing regexp"),
        (r#"{a=~"a)(b"}"#, "error parsing regexp"),
        (r#"{a="b"} | nonsense"#, "unknown stage"),
        (r#"{a="b"} | x > "5""#, "expected a number"),
        (r#"{a="b"} | unwrap x"#, "unwrap"),
        (r#"rate({a="b"})"#, "expected a range"),
        (r#"rate({a="b"}[0s])"#, "longer than zero"),
        (r#"sum_over_time({a="b"}[1m])"#, "without unwrap"),
        (r#"bytes_rate({a="b"} | unwrap x [1m])"#, "with unwrap"),
        (r#"count_over_time({a="b"}[1m]) by (x)"#, "grouping not allowed"),
        (r#"topk(0, rate({a="b"}[1m]))"#, "1 or more"),
        (r#"label_replace(rate({a="b"}[1m]), "x", "$1", "y", "(")"#, "error parsing regexp"),
        (r#"sort(rate({a="b"}[1m])) by (x)"#, "no grouping"),
        (r#"1 and 2"#, "between vectors"),
        (r#"rate({a="b"}[5m]) garbage"#, "unexpected `garbage`"),
        (r#"{a="b"}{c="d"}"#, "unexpected `{`"),
    ] {
        let error = refused(text);
        assert_eq!(error.kind, QueryErrorKind::BadQuery, "{text}: {error}");
        assert!(error.message.contains(words), "{text}: {error}");
    }
}

#[test]
fn hostile_nesting_and_length_are_refused_before_they_cost() {
    let nested = format!("{}1{}", "(".repeat(8000), ")".repeat(8000));
    assert!(refused(&nested).message.contains("levels of parentheses"));
    let filters = format!("{{a=\"b\"}} | {}x=\"1\"{}", "(".repeat(4000), ")".repeat(4000));
    assert!(refused(&filters).message.contains("levels of parentheses"));
    assert!(refused(&format!("2{}", "^2".repeat(5000))).message.contains("levels of parentheses"));
    assert!(refused(&format!("1{}", "+1".repeat(5000))).message.contains("operators"));
    assert_eq!(parse("1+1", 2).expect_err("too long").kind, QueryErrorKind::Limit);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in r#"[{}()\[\]|=!~<>"`a-z0-9 .,+*/^-]{0,80}"#) {
        let _ = parse(&text, 16_384);
    }
}
