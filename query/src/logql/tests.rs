//! Queries over a set of rows, through plan, leaf and merge.

use std::collections::BTreeSet;
use std::sync::Arc;

use oteld_store::model::identity::stream_id;
use oteld_store::model::{
    AnyValue, Attributes, LogRecord, LogRow, RequestId, Resource, Rows, Scope, Shard, Stream, Tenant,
};
use oteld_store::scan::{RowSet, ScanBudget};
use proptest::prelude::*;

use super::*;
use crate::{LeafContext, Limits, QueryError, QueryErrorKind};

mod metric;

const SECOND: u64 = 1_000_000_000;

/// A row of service `service` at `second`.
fn row(service: &str, second: u64, body: &str, attributes: &[(&str, &str)]) -> LogRow {
    let resource = Resource {
        attributes: [("service.name", service), ("host.name", "h1")].into_iter().collect(),
        ..Resource::default()
    };
    let record = LogRecord {
        time_unix_nano: second * SECOND,
        body: body.into(),
        attributes: attributes.iter().copied().collect(),
        ..LogRecord::default()
    };
    row_of(resource, Scope::default(), record, u128::from(second))
}

fn row_of(resource: Resource, scope: Scope, record: LogRecord, request: u128) -> LogRow {
    let stream = Stream {
        id: stream_id(&Tenant::default(), &resource, &scope),
        resource: Arc::new(resource),
        scope: Arc::new(scope),
    };
    LogRow { stream: Arc::new(stream), request: RequestId(request), ordinal: 0, record }
}

/// Rows dealt out to `leaves` nodes.
fn run_over(
    leaves: u32,
    rows: &[LogRow],
    text: &str,
    parameters: QueryParameters,
    limits: &Limits,
) -> Result<QueryResult, QueryError> {
    let mut set = RowSet::default();
    for (index, row) in rows.iter().enumerate() {
        set.add(&Tenant::default(), Shard(index as u32 % leaves), Rows::Logs(vec![row.clone()]));
    }
    let plan = plan(text, parameters, limits)?;
    let mut replies = Vec::new();
    if let Some(request) = plan.request() {
        for shard in 0..leaves {
            let budget = ScanBudget::unlimited();
            let context = LeafContext {
                scan: &set,
                tenant: Tenant::default(),
                shards: Arc::new(BTreeSet::from([Shard(shard)])),
                budget: &budget,
                limits,
            };
            replies.push(leaf(&context, &request)?);
        }
    }
    plan.finish(replies, limits)
}

fn range(start: u64, end: u64, step: u64) -> QueryParameters {
    let kind = QueryTime::Range {
        start_unix_nano: start * SECOND,
        end_unix_nano: end * SECOND,
        step_nanos: step * SECOND,
    };
    QueryParameters { kind, limit: 100, direction: Direction::Forward }
}

fn instant(second: u64) -> QueryParameters {
    let kind = QueryTime::Instant { time_unix_nano: second * SECOND };
    QueryParameters { kind, limit: 100, direction: Direction::Forward }
}

fn entries(rows: &[LogRow], text: &str) -> Vec<Entry> {
    match run_over(2, rows, text, range(0, 1000, 1), &Limits::default()) {
        Ok(QueryResult::Entries(entries)) => entries,
        other => panic!("{text}: {other:?}"),
    }
}

fn lines(rows: &[LogRow], text: &str) -> Vec<String> {
    entries(rows, text).into_iter().map(|entry| entry.line).collect()
}

/// An instant query's samples: labels as `a=b,c=d`, and the value.
fn vector(rows: &[LogRow], text: &str, second: u64) -> Vec<(String, f64)> {
    let samples = match run_over(3, rows, text, instant(second), &Limits::default()) {
        Ok(QueryResult::Vector { samples, .. }) => samples,
        other => panic!("{text}: {other:?}"),
    };
    let show = |labels: Labels| {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    samples.into_iter().map(|(labels, value)| (show(labels), value)).collect()
}

fn error(rows: &[LogRow], text: &str, parameters: QueryParameters, limits: &Limits) -> QueryError {
    run_over(1, rows, text, parameters, limits).expect_err(text)
}

fn shop() -> Vec<LogRow> {
    vec![
        row("cart", 10, "added apple", &[("user.id", "7"), ("level", "info")]),
        row("cart", 20, "error: no stock", &[("user.id", "8")]),
        row("pay", 30, r#"{"status":200,"took":"20ms","user":{"name":"eve"},"tags":["a","b"]}"#, &[]),
        row("pay", 40, r#"{"status":500,"took":"1.5s","user":{"name":"bob"},"tags":["c"]}"#, &[]),
        row("ship", 50, r#"method=GET path="/a b" took=3s size=10KB"#, &[]),
    ]
}

#[test]
fn line_filters_and_selectors_choose_lines() {
    let rows = shop();
    for (text, expected) in [
        (r#"{service_name="cart"}"#, vec!["added apple", "error: no stock"]),
        (r#"{service_name=~"ca.*"} |= "apple""#, vec!["added apple"]),
        (r#"{service_name=~"ca"} |= "apple""#, vec![]),
        (r#"{service_name=~".+"} |= "apple" or "stock""#, vec!["added apple", "error: no stock"]),
        (r#"{service_name="cart"} != "apple" or "nothing""#, vec!["error: no stock"]),
        (r#"{service_name="cart"} |~ "^added""#, vec!["added apple"]),
        (r#"{service_name="cart"} !~ "st.ck""#, vec!["added apple"]),
        (r#"{service_name="cart"} |> "<_>: no <_>""#, vec!["error: no stock"]),
        (
            r#"{service_name="cart"} |> "added <_>" or "error<_>stock""#,
            vec!["added apple", "error: no stock"],
        ),
        (r#"{service_name="cart"} !> "<_>apple""#, vec!["error: no stock"]),
        (r#"{service_name="cart"} |> "<_>added apple""#, vec![]),
        (r#"{service_name="cart"} |> "<_> no""#, vec![]),
        (r#"{host_name="h1"}"#, vec![]),
    ] {
        assert_eq!(lines(&rows, text), expected, "{text}");
    }
}

#[test]
fn structured_metadata_is_filtered_behind_the_selector() {
    let rows = shop();
    for (text, expected) in [
        (r#"{service_name="cart"} | user_id="7""#, vec!["added apple"]),
        (r#"{service_name="cart"} | user_id > 7"#, vec!["error: no stock"]),
        (r#"{service_name=~".+"} | host_name="h1" | detected_level="error""#, vec!["error: no stock"]),
        (r#"{service_name="cart"} | detected_level=~"inf.""#, vec!["added apple"]),
        (
            r#"{service_name="cart"} | user_id="7" or detected_level="error""#,
            vec!["added apple", "error: no stock"],
        ),
        (r#"{service_name="cart"} | missing!="x""#, vec!["added apple", "error: no stock"]),
        (r#"{service_name="cart"} | missing > 5"#, vec![]),
    ] {
        assert_eq!(lines(&rows, text), expected, "{text}");
    }
}

#[test]
fn json_fields_become_labels_with_nested_names_joined() {
    let found = entries(&shop(), r#"{service_name="pay"} | json | status >= 500 and took > 1s"#);
    assert_eq!(found.len(), 1);
    let parsed: Vec<_> =
        found[0].parsed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(parsed, [("status", "500"), ("took", "1.5s"), ("user_name", "bob")]);
    let found =
        entries(&shop(), r#"{service_name="pay"} | json first="tags[0]", who="user.name" | who="eve""#);
    assert_eq!(found[0].parsed.get("first").map(String::as_str), Some("a"));
    let found = entries(&shop(), r#"{service_name="cart"} | json"#);
    assert_eq!(found[0].parsed.get("__error__").map(String::as_str), Some("JSONParserErr"));
    assert!(lines(&shop(), r#"{service_name="cart"} | json | __error__="""#).is_empty());
}

#[test]
fn logfmt_pattern_and_regexp_extract_labels() {
    let rows = shop();
    for (text, name, value) in [
        (r#"{service_name="ship"} | logfmt | size > 9KB"#, "path", "/a b"),
        (r#"{service_name="ship"} | logfmt p="path" | took >= 3s or p="/a b""#, "p", "/a b"),
        (r#"{service_name="ship"} | pattern "method=<m> path=<_> took=<t> <_>""#, "m", "GET"),
        (r#"{service_name="ship"} | regexp "took=(?P<n>\\d+)s" | n=3"#, "n", "3"),
        (r#"{service_name="ship"} | logfmt | label_format verb=method"#, "verb", "GET"),
        (r#"{service_name="ship"} | logfmt | label_format x="{{.method}}-{{.took}}""#, "x", "GET-3s"),
    ] {
        let found = entries(&rows, text);
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].parsed.get(name).map(String::as_str), Some(value), "{text}");
    }
    assert_eq!(lines(&rows, r#"{service_name="ship"} | logfmt | line_format "{{.method}}""#), ["GET"]);
    let kept = entries(&rows, r#"{service_name="ship"} | logfmt | keep method"#);
    assert_eq!((kept[0].parsed.len(), kept[0].metadata.len(), kept[0].stream.len()), (1, 0, 0));
}

#[test]
fn a_parsed_name_that_the_stream_has_is_extracted_beside_it() {
    let rows = [row("cart", 1, r#"{"service_name":"other"}"#, &[])];
    let found = entries(&rows, r#"{service_name="cart"} | json"#);
    assert_eq!(found[0].stream.get("service_name").map(String::as_str), Some("cart"));
    assert_eq!(found[0].parsed.get("service_name_extracted").map(String::as_str), Some("other"));
}

#[test]
fn a_record_is_shown_as_loki_shows_it() {
    let nested: Attributes = [("inner.key", "v")].into_iter().collect();
    let resource = Resource {
        attributes: [("k8s.pod.name", "p-1"), ("deployment.environment.name", "prod"), ("os", "linux")]
            .into_iter()
            .collect(),
        ..Resource::default()
    };
    let scope = Scope { name: "lib".into(), version: "1.2".into(), ..Scope::default() };
    let record = LogRecord {
        observed_time_unix_nano: 5 * SECOND,
        severity_number: 13,
        severity_text: "Warning".into(),
        body: AnyValue::KeyValues([("msg", "hi")].into_iter().collect()),
        attributes: Attributes(vec![("http".into(), AnyValue::KeyValues(nested))]),
        flags: 1,
        trace_id: [0xab; 16],
        span_id: [0xcd; 8],
        ..LogRecord::default()
    };
    let found =
        entries(&[row_of(resource, scope, record, 1)], r#"{service_name="unknown_service"}"#).remove(0);
    assert_eq!((found.time_unix_nano, found.line.as_str()), (5 * SECOND, r#"{"msg":"hi"}"#));
    let show = |labels: &Labels| {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        show(&found.stream),
        "deployment_environment_name=prod k8s_pod_name=p-1 service_name=unknown_service"
    );
    let trace_id = "ab".repeat(16);
    assert_eq!(
        show(&found.metadata),
        format!(
            "detected_level=warn flags=1 http_inner_key=v observed_timestamp=5000000000 os=linux scope_name=lib \
             scope_version=1.2 severity_number=13 severity_text=Warning span_id=cdcdcdcdcdcdcdcd trace_id={trace_id}"
        )
    );
}

#[test]
fn the_limit_keeps_the_end_that_the_direction_names() {
    let rows: Vec<_> = (1..=20).map(|second| row("cart", second, &second.to_string(), &[])).collect();
    for (direction, expected) in
        [(Direction::Forward, ["1", "2", "3"]), (Direction::Backward, ["20", "19", "18"])]
    {
        let parameters = QueryParameters { limit: 3, direction, ..range(0, 100, 1) };
        let result = run_over(4, &rows, r#"{service_name="cart"}"#, parameters, &Limits::default());
        let Ok(QueryResult::Entries(entries)) = result else { panic!("{result:?}") };
        let lines: Vec<_> = entries.iter().map(|entry| entry.line.as_str()).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn log_times_include_the_start_and_exclude_the_end() {
    let rows: Vec<_> = (1..=5).map(|second| row("cart", second, &second.to_string(), &[])).collect();
    let result = run_over(1, &rows, r#"{service_name="cart"}"#, range(2, 4, 1), &Limits::default());
    let Ok(QueryResult::Entries(entries)) = result else { panic!("{result:?}") };
    assert_eq!(entries.iter().map(|entry| entry.line.as_str()).collect::<Vec<_>>(), ["2", "3"]);
}

#[test]
fn packed_and_coloured_lines_are_restored() {
    let rows =
        [row("a", 1, r#"{"_entry":"the line","pod":"p"}"#, &[]), row("b", 2, "\u{1b}[31mred\u{1b}[0m", &[])];
    let found = entries(&rows, r#"{service_name="a"} | unpack | pod="p""#);
    assert_eq!(found[0].line, "the line");
    assert_eq!(lines(&rows, r#"{service_name="b"} | decolorize"#), ["red"]);
}

#[test]
fn limits_are_named() {
    let rows: Vec<_> = (1..=5).map(|n| row("cart", n, "x", &[("n", &n.to_string())])).collect();
    let all = Limits::default();
    for (text, parameters, limits, words) in [
        (r#"{a="b"}"#, QueryParameters { limit: 5001, ..range(0, 9, 1) }, all.clone(), "max entries limit"),
        (r#"rate({a="b"}[1m])"#, range(0, 100_000, 1), all.clone(), "maximum resolution"),
        (
            r#"rate({service_name="cart"}[1m])"#,
            instant(9),
            Limits { series_max: 3, ..all.clone() },
            "maximum number of series (3)",
        ),
        (
            r#"rate({service_name="cart"}[1m])"#,
            range(0, 99, 1),
            Limits { samples_max: 20, ..all },
            "limit of 20 samples",
        ),
    ] {
        let found = error(&rows, text, parameters, &limits);
        assert_eq!(found.kind, QueryErrorKind::Limit, "{text}: {found}");
        assert!(found.message.contains(words), "{text}: {found}");
    }
}

#[test]
fn a_log_query_as_an_instant_query_is_refused() {
    let found = error(&[], r#"{a="b"}"#, instant(1), &Limits::default());
    assert!(found.message.contains("not supported as an instant query"), "{found}");
}

proptest! {
    /// How rows are spread over nodes, and which node answers first, does not show in a log query.
    #[test]
    fn the_spread_of_rows_over_leaves_does_not_show(
        times in proptest::collection::vec(0_u64..6, 0..30), limit in 1_usize..12, forward: bool, leaves in 2_u32..5,
    ) {
        let rows: Vec<_> = times.iter().enumerate().map(|(n, second)| {
            LogRow { request: RequestId(n as u128 * 7 % 31), ..row("cart", *second, &n.to_string(), &[]) }
        }).collect();
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let parameters = QueryParameters { limit, direction, ..range(0, 100, 1) };
        let ask = |leaves| run_over(leaves, &rows, r#"{service_name="cart"}"#, parameters, &Limits::default());
        let Ok(QueryResult::Entries(one)) = ask(1) else { panic!("no entries") };
        let Ok(QueryResult::Entries(many)) = ask(leaves) else { panic!("no entries") };
        prop_assert_eq!(&one, &many);
        let mut expected: Vec<_> = rows.iter().collect();
        expected.sort_by_key(|row| {
            let time = row.record.time_unix_nano;
            (if forward { time } else { u64::MAX - time }, row.request)
        });
        let found: Vec<_> = one.iter().map(|entry| entry.line.as_str()).collect();
        let expected: Vec<_> = expected.iter().take(limit).map(|row| super::view::line(&row.record.body)).collect();
        prop_assert_eq!(found, expected);
    }
}
