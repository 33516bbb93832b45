//! Metric queries over a set of rows.

use super::*;

#[test]
fn range_windows_exclude_their_start_and_include_their_end() {
    let rows: Vec<_> = [10, 20, 30].map(|second| row("cart", second, "12345", &[])).into();
    for (text, at, expected) in [
        (r#"sum(count_over_time({service_name="cart"}[10s]))"#, 20, 1.0),
        (r#"sum(count_over_time({service_name="cart"}[20s]))"#, 30, 2.0),
        (r#"sum(count_over_time({service_name="cart"}[20s] offset 10s))"#, 30, 2.0),
        (r#"sum(rate({service_name="cart"}[20s]))"#, 30, 0.1),
        (r#"sum(bytes_over_time({service_name="cart"}[1m]))"#, 30, 15.0),
        (r#"sum(bytes_rate({service_name="cart"}[10s]))"#, 30, 0.5),
    ] {
        assert_eq!(vector(&rows, text, at), [(String::new(), expected)], "{text} at {at}");
    }
    assert!(vector(&rows, r#"sum(count_over_time({service_name="cart"}[5s]))"#, 19).is_empty());
}

#[test]
fn aggregations_group_and_choose() {
    let rows = shop();
    let count = r#"count_over_time({service_name=~".+"}[10m])"#;
    for (text, expected) in [
        (
            format!("sum by (service_name) ({count})"),
            vec![("service_name=cart", 2.0), ("service_name=pay", 2.0), ("service_name=ship", 1.0)],
        ),
        (
            format!("sum({count}) by (detected_level)"),
            vec![
                ("detected_level=error", 1.0),
                ("detected_level=info", 1.0),
                ("detected_level=unknown", 3.0),
            ],
        ),
        (format!("topk(1, sum by (service_name) ({count}))"), vec![("service_name=cart", 2.0)]),
        (format!("bottomk(1, sum by (service_name) ({count}))"), vec![("service_name=ship", 1.0)]),
        (format!("count(sum by (service_name) ({count}))"), vec![("", 3.0)]),
        (format!("max(sum by (service_name) ({count}))"), vec![("", 2.0)]),
        (format!("avg(sum by (service_name) ({count}))"), vec![("", 5.0 / 3.0)]),
        (
            format!("sum by (service_name) ({count}) > 1"),
            vec![("service_name=cart", 2.0), ("service_name=pay", 2.0)],
        ),
        (
            format!("sum by (service_name) ({count}) == bool 1"),
            vec![("service_name=cart", 0.0), ("service_name=pay", 0.0), ("service_name=ship", 1.0)],
        ),
        (
            format!("sum without (detected_level, host_name, user_id, level) ({count}) * 10"),
            vec![("service_name=cart", 20.0), ("service_name=pay", 20.0), ("service_name=ship", 10.0)],
        ),
        (format!("sum({count}) / sum({count})"), vec![("", 1.0)]),
        (
            format!("sum by (service_name) ({count}) unless sum by (service_name) ({count}) > 1"),
            vec![("service_name=ship", 1.0)],
        ),
    ] {
        let found = vector(&rows, &text, 100);
        let found: Vec<_> = found.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn results_are_sorted_relabelled_and_missed() {
    let rows = shop();
    let count = r#"sum by (service_name) (count_over_time({service_name=~".+"}[10m]))"#;
    let names =
        |text: &str| vector(&rows, text, 100).into_iter().map(|(labels, _)| labels).collect::<Vec<_>>();
    assert_eq!(
        names(&format!("sort({count})")),
        ["service_name=ship", "service_name=cart", "service_name=pay"]
    );
    let text = format!(r#"label_replace({count}, "short", "$1!", "service_name", "(..).*")"#);
    assert_eq!(names(&text)[0], "service_name=cart,short=ca!");
    let text = format!(r#"label_replace({count}, "service_name", "x", "service_name", ".*")"#);
    assert!(error(&rows, &text, instant(100), &Limits::default()).message.contains("same labels"));
    let text = r#"absent_over_time({service_name="nobody", x=~".+"}[1m])"#;
    assert_eq!(vector(&rows, text, 100), [("service_name=nobody".to_owned(), 1.0)]);
    assert!(vector(&rows, r#"absent_over_time({service_name="cart"}[10m])"#, 100).is_empty());
}

#[test]
fn unwrapped_samples_are_summed_averaged_and_compared() {
    let rows = shop();
    for (text, expected) in [
        (r#"sum(sum_over_time({service_name="pay"} | json | unwrap status [10m]))"#, 700.0),
        (r#"avg_over_time({service_name="pay"} | json | unwrap status [10m]) by (service_name)"#, 350.0),
        (
            r#"quantile_over_time(0.25, {service_name="pay"} | json | unwrap status [10m]) by (service_name)"#,
            275.0,
        ),
        (r#"stddev_over_time({service_name="pay"} | json | unwrap status [10m]) by (service_name)"#, 150.0),
        (r#"first_over_time({service_name="pay"} | json | unwrap status [10m]) by (service_name)"#, 200.0),
        (r#"last_over_time({service_name="pay"} | json | unwrap status [10m]) by (service_name)"#, 500.0),
        (
            r#"max_over_time({service_name="pay"} | json | unwrap duration(took) [10m]) by (service_name)"#,
            1.5,
        ),
        (
            r#"min_over_time({service_name="ship"} | logfmt | unwrap bytes(size) [10m]) by (service_name)"#,
            10_000.0,
        ),
    ] {
        let found = vector(&rows, text, 100);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].1, expected, "{text}");
    }
}

#[test]
fn a_row_that_does_not_parse_stops_a_metric_query_unless_it_is_filtered() {
    let rows = shop();
    let text = r#"sum(count_over_time({service_name=~".+"} | json [10m]))"#;
    let found = error(&rows, text, instant(100), &Limits::default());
    assert!(found.message.contains("JSONParserErr"), "{found}");
    let text = r#"sum(count_over_time({service_name=~".+"} | json | __error__="" [10m]))"#;
    assert_eq!(vector(&rows, text, 100), [(String::new(), 2.0)]);
}

#[test]
fn reducing_at_the_leaf_changes_no_sum() {
    let rows = shop();
    for query in [
        r#"{service_name=~".+"}"#,
        r#"{service_name=~".+"} |= "o" | drop __error__"#,
        r#"{service_name=~".+"} | user_id > 7 or detected_level="unknown""#,
        r#"{service_name=~".+"} | json | drop __error__, __error_details__"#,
        r#"{service_name=~".+"} | json | logfmt | drop __error__ | label_format level=user_id"#,
        r#"{service_name=~".+"} | json level="user.name" | __error__="" or user_id="8""#,
        r#"{service_name=~".+"} | label_format service_name="{{.user_id}}{{.host_name}}""#,
        r#"{service_name=~".+"} | keep level, detected_level | line_format "{{.level}}{{.user_id}}" |~ "^$""#,
    ] {
        let query = match query.contains("user.name") {
            true => format!("{query} | drop __error__, __error_details__"),
            false => query.to_owned(),
        };
        for grouping in ["by (detected_level, level)", "by (service_name)", "without (user_id)", ""] {
            let range = format!("count_over_time({query} [10m])");
            let reduced = vector(&rows, &format!("sum {grouping} ({range})"), 100);
            let whole = vector(&rows, &format!("sum {grouping} ({range} * 1)"), 100);
            assert_eq!(reduced, whole, "{grouping} of {query}");
            assert!(!whole.is_empty(), "{query}");
        }
    }
}

#[test]
fn grafanas_health_check_is_one_sample_of_two() {
    assert_eq!(vector(&[], "vector(1)+vector(1)", 5), [(String::new(), 2.0)]);
    let scalar = run_over(1, &[], "2 ^ 3 ^ 2 - 12", instant(5), &Limits::default());
    assert_eq!(scalar, Ok(QueryResult::Scalar { time_unix_nano: 5 * SECOND, value: 500.0 }));
}

proptest! {
    /// Counting by changes at a step gives what counting every window by itself does.
    #[test]
    fn counts_equal_a_plain_count_of_each_window(
        times in proptest::collection::vec(0_u64..100, 0..40),
        start in 0_u64..100, length in 0_u64..60, step in 1_u64..20, range_seconds in 1_u64..50, offset in 0_u64..30,
        leaves in 1_u32..4,
    ) {
        let rows: Vec<_> = times.iter().enumerate().map(|(n, second)| {
            LogRow { request: RequestId(n as u128), ..row("cart", *second, "x", &[]) }
        }).collect();
        let text = format!("sum(count_over_time({{service_name=\"cart\"}}[{range_seconds}s] offset {offset}s))");
        let result = run_over(leaves, &rows, &text, range(start, start + length, step), &Limits::default());
        let mut expected = Vec::new();
        for at in (start..=start + length).step_by(step as usize) {
            let inside = |time: &&u64| {
                let (time, end) = (**time as i64, at as i64 - offset as i64);
                end - (range_seconds as i64) < time && time <= end
            };
            let count = times.iter().filter(inside).count();
            if count > 0 {
                expected.push((at * SECOND, count as f64));
            }
        }
        let Ok(QueryResult::Matrix(series)) = result else { panic!("{result:?}") };
        let found = series.into_iter().next().map(|samples| samples.values).unwrap_or_default();
        prop_assert_eq!(found, expected);
    }
}
