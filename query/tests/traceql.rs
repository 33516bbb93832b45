//! The trace engine over the reference scan: what is found, in which order, and within which bounds.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use oteld_query::traceql::ast::{AttributeScope, Spanset};
use oteld_query::traceql::parser::parse_field;
use oteld_query::traceql::{
    self, DependenciesRequest, LeafReply, LeafRequest, Name, NamesOf, NamesRequest, SearchReply,
    SearchRequest, TracesRequest, ValueKind, by_id, dependencies, names, search,
};
use oteld_query::{LeafContext, Limits, QueryError, QueryErrorKind};
use oteld_store::model::{
    AnyValue, Attributes, Resource, Rows, Scope, Shard, Span, SpanEvent, SpanRow, Stream, Tenant,
    identity::stream_id,
};
use oteld_store::scan::{RowSet, ScanBudget};

const SECOND: u64 = 1_000_000_000;
const EVER: Range<u64> = 0..u64::MAX;

fn stream(service: &str) -> Arc<Stream> {
    let resource = Resource {
        attributes: [("service.name", service), ("zone", "z1")].into_iter().collect(),
        ..Resource::default()
    };
    let scope = Scope { name: "lib".into(), version: "1.2".into(), ..Scope::default() };
    let id = stream_id(&Tenant::default(), &resource, &scope);
    Arc::new(Stream { id, resource: Arc::new(resource), scope: Arc::new(scope) })
}

/// A span of trace `trace`, from second `start` to second `end`.
fn span(trace: u8, id: u8, parent: u8, service: &str, name: &str, seconds: Range<u64>) -> SpanRow {
    let span = Span {
        trace_id: [trace; 16],
        span_id: [id; 8],
        parent_span_id: [parent; 8],
        name: name.into(),
        kind: 2,
        start_time_unix_nano: seconds.start * SECOND,
        end_time_unix_nano: seconds.end * SECOND,
        ..Span::default()
    };
    SpanRow { stream: stream(service), span }
}

fn with(mut row: SpanRow, attributes: Vec<(&str, AnyValue)>) -> SpanRow {
    row.span.attributes = attributes.into_iter().collect();
    row
}

/// Two shops' traces: 1 is GET / (10 s to 14 s) with a failing query, 2 is POST /buy (20 s to 21 s), 3 is a lone
/// child whose parent is not stored (30 s to 31 s).
fn shop() -> RowSet {
    let mut query = with(
        span(1, 2, 1, "db", "SELECT", 11..13),
        vec![("db.rows", AnyValue::Int(7)), ("tags", AnyValue::Array(vec!["a".into(), "b".into()]))],
    );
    query.span.status_code = 2;
    query.span.status_message = "timeout".into();
    query.span.kind = 3;
    query.span.events = vec![SpanEvent {
        name: "exception".into(),
        attributes: [("exception.type", "Timeout")].into_iter().collect(),
        ..SpanEvent::default()
    }];
    let rows = vec![
        with(span(1, 1, 0, "shop", "GET /", 10..14), vec![("http.status_code", AnyValue::Int(200))]),
        query,
        with(
            span(2, 1, 0, "shop", "POST /buy", 20..21),
            vec![("http.status_code", AnyValue::Int(503)), ("ratio", AnyValue::Double(0.5))],
        ),
        with(span(3, 1, 9, "mail", "send", 30..31), vec![("urgent", AnyValue::Bool(true))]),
    ];
    row_set(rows)
}

fn row_set(rows: Vec<SpanRow>) -> RowSet {
    let mut set = RowSet::default();
    for row in rows {
        let shard = Shard(u32::from(row.span.trace_id[0] % 2));
        set.add(&Tenant::default(), shard, Rows::Traces(vec![row]));
    }
    set
}

fn ask_with(
    rows: &RowSet,
    request: &LeafRequest,
    budget: &ScanBudget,
    shards: &[u32],
) -> Result<LeafReply, QueryError> {
    let context = LeafContext {
        scan: rows,
        tenant: Tenant::default(),
        shards: Arc::new(shards.iter().copied().map(Shard).collect()),
        budget,
        limits: &Limits::default(),
    };
    traceql::leaf(&context, request)
}

fn ask(rows: &RowSet, request: &LeafRequest) -> Result<LeafReply, QueryError> {
    ask_with(rows, request, &ScanBudget::unlimited(), &[0, 1])
}

fn request(query: &str) -> SearchRequest {
    SearchRequest {
        query: traceql::parse(query, 16_384).unwrap(),
        time_unix_nano: EVER,
        trace_duration_nanos: (0, u64::MAX),
        limit: 20,
        spans_per_trace: 3,
    }
}

fn search(rows: &RowSet, request: SearchRequest) -> SearchReply {
    let limit = request.limit;
    let reply = ask(rows, &LeafRequest::Search(request)).unwrap().into_search().unwrap();
    search::merge(vec![reply], limit)
}

fn found(rows: &RowSet, request: SearchRequest) -> Vec<u8> {
    search(rows, request).traces.iter().map(|trace| trace.trace_id[0]).collect()
}

#[test]
fn queries_find_the_traces_that_match() {
    let table: [(&str, &[u8]); 41] = [
        ("{}", &[3, 2, 1]),
        (r#"{ name = "GET /" }"#, &[1]),
        (r#"{ name =~ "GET|POST.*" }"#, &[2]),
        (r#"{ name !~ "GET.*|SELECT" }"#, &[3, 2]),
        ("{ status = error }", &[1]),
        ("{ kind = client }", &[1]),
        (r#"{ statusMessage = "timeout" }"#, &[1]),
        ("{ duration >= 2s }", &[1]),
        ("{ duration < 2s }", &[3, 2]),
        ("{ traceDuration > 3s }", &[1]),
        (r#"{ rootName = "POST /buy" }"#, &[2]),
        (r#"{ rootServiceName = "shop" }"#, &[2, 1]),
        (r#"{ rootServiceName != "shop" }"#, &[]),
        ("{ nestedSetParent < 0 }", &[2, 1]),
        (r#"{ resource.service.name = "db" }"#, &[1]),
        (r#"{ .service.name = "db" }"#, &[1]),
        (r#"{ span.service.name = "db" }"#, &[]),
        ("{ .http.status_code >= 500 }", &[2]),
        ("{ .http.status_code = 200 }", &[1]),
        ("{ .http.status_code != 200 }", &[2]),
        (r#"{ .http.status_code = "200" }"#, &[]),
        ("{ .http.status_code = 200.0 }", &[1]),
        ("{ .ratio < 1 }", &[2]),
        ("{ .urgent }", &[3]),
        ("{ !.urgent }", &[2, 1]),
        ("{ .db.rows != nil }", &[1]),
        ("{ .db.rows = nil }", &[3, 2, 1]),
        (r#"{ .tags = "b" }"#, &[1]),
        (r#"{ .tags != "b" }"#, &[]),
        (r#"{ .tags != "c" }"#, &[1]),
        (r#"{ event:name = "exception" }"#, &[1]),
        (r#"{ event.exception.type =~ "Time.*" }"#, &[1]),
        (r#"{ instrumentation:name = "lib" }"#, &[3, 2, 1]),
        (r#"{ span:id = "0202020202020202" }"#, &[1]),
        (r#"{ trace:id = "02020202020202020202020202020202" }"#, &[2]),
        (r#"{ status = error && resource.service.name = "shop" }"#, &[]),
        (r#"{ status = error } && { resource.service.name = "shop" }"#, &[1]),
        ("{ status = error } || { .urgent }", &[3, 1]),
        (r#"{ (status = error || .urgent) && kind = server }"#, &[3]),
        ("{ true }", &[3, 2, 1]),
        ("{ false }", &[]),
    ];
    let rows = shop();
    for (query, traces) in table {
        assert_eq!(found(&rows, request(query)), traces, "{query}");
    }
}

#[test]
fn a_summary_tells_of_the_whole_trace_and_shows_what_was_asked() {
    let reply = search(&shop(), request("{ status = error && span.db.rows > 1 && .zone != nil }"));
    assert_eq!(reply.traces.len(), 1);
    let trace = &reply.traces[0];
    let root = trace.root.as_ref().unwrap();
    assert_eq!((root.service_name.as_str(), root.name.as_str()), ("shop", "GET /"));
    assert_eq!((trace.start_unix_nano, trace.duration_nanos), (10 * SECOND, 4 * SECOND));
    assert_eq!((trace.matched, trace.spans.len()), (1, 1));
    let span = &trace.spans[0];
    assert_eq!((span.span_id, span.name.as_str()), ([2; 8], "SELECT"));
    assert_eq!((span.start_unix_nano, span.duration_nanos), (11 * SECOND, 2 * SECOND));
    let mut shown = span.attributes.clone();
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        shown,
        [
            ("db.rows".to_owned(), AnyValue::Int(7)),
            ("status".to_owned(), AnyValue::from("error")),
            ("zone".to_owned(), AnyValue::from("z1")),
        ]
    );
}

#[test]
fn a_trace_without_its_root_says_so() {
    let reply = search(&shop(), request("{ .urgent }"));
    assert_eq!(reply.traces[0].root, None);
}

#[test]
fn a_trace_that_reaches_out_of_the_range_is_judged_and_shown_as_a_whole() {
    let rows = shop();
    let within = |query: &str, seconds: Range<u64>| SearchRequest {
        time_unix_nano: seconds.start * SECOND..seconds.end * SECOND,
        ..request(query)
    };
    // Of trace 1 only the child starts in range, and its root is what the condition is about.
    assert_eq!(found(&rows, within(r#"{ rootName = "GET /" }"#, 11..12)), [1]);
    assert_eq!(found(&rows, within("{ traceDuration = 4s }", 11..12)), [1]);
    assert_eq!(found(&rows, within(r#"{ status = error } && { name = "GET /" }"#, 11..12)), [1]);
    // Only the root is in range, and it does not match by itself.
    assert_eq!(found(&rows, within(r#"{ name = "SELECT" }"#, 10..11)), [0_u8; 0]);
    assert_eq!(found(&rows, within("{}", 10..20)), [1]);
    assert_eq!(found(&rows, within("{}", 20..31)), [3, 2]);
    let reply = search(&rows, within("{}", 11..12));
    assert_eq!((reply.traces[0].start_unix_nano, reply.traces[0].matched), (10 * SECOND, 2));
}

#[test]
fn durations_bound_the_whole_trace() {
    let rows = shop();
    let bounded = |bounds| SearchRequest { trace_duration_nanos: bounds, ..request("{}") };
    assert_eq!(found(&rows, bounded((2 * SECOND, u64::MAX))), [1]);
    assert_eq!(found(&rows, bounded((0, SECOND))), [3, 2]);
    assert_eq!(found(&rows, bounded((4 * SECOND, 4 * SECOND))), [1]);
}

#[test]
fn the_newest_traces_within_the_limit_are_found() {
    let rows = shop();
    let limited = |limit| SearchRequest { limit, ..request("{}") };
    assert_eq!(found(&rows, limited(2)), [3, 2]);
    assert_eq!(search(&rows, limited(1)).inspected_traces, 1);
    assert_eq!(found(&rows, limited(0)), [0_u8; 0]);
    let error = ask(&rows, &LeafRequest::Search(limited(1_000_000))).unwrap_err();
    assert_eq!(error.kind, QueryErrorKind::Limit);
    assert!(error.message.contains("entries_max"), "{error}");
}

#[test]
fn traces_of_one_time_are_chosen_by_id_whatever_the_order_of_rows() {
    let row = |trace| span(trace, 1, 0, "s", "n", 5..6);
    let expected = vec![1, 2];
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let rows = row_set(order.map(row).to_vec());
        assert_eq!(found(&rows, SearchRequest { limit: 2, ..request("{}") }), expected);
    }
}

#[test]
fn leaves_together_give_what_one_would() {
    let rows = shop();
    let whole = search(&rows, request("{}"));
    let part = |shard| {
        let request = LeafRequest::Search(request("{}"));
        ask_with(&rows, &request, &ScanBudget::unlimited(), &[shard]).unwrap().into_search().unwrap()
    };
    assert_eq!(search::merge(vec![part(0), part(1)], 20), whole);
    assert_eq!(search::merge(vec![part(1), part(0)], 1).traces, whole.traces[..1]);
}

#[test]
fn spans_shown_are_the_earliest_and_few() {
    let spans = (1..=9).map(|id| span(1, id, u8::from(id > 1), "s", "n", u64::from(id)..10)).collect();
    let reply = search(&row_set(spans), SearchRequest { spans_per_trace: 2, ..request("{}") });
    let ids: Vec<u8> = reply.traces[0].spans.iter().map(|span| span.span_id[0]).collect();
    assert_eq!((reply.traces[0].matched, ids), (9, vec![1, 2]));
}

#[test]
fn a_cancelled_query_stops() {
    let budget = ScanBudget::unlimited();
    budget.cancel();
    let ever = EVER;
    let requests = [
        LeafRequest::Search(request("{}")),
        LeafRequest::Traces(TracesRequest { trace_ids: [[1; 16]].into(), time_unix_nano: ever.clone() }),
        LeafRequest::Names(NamesRequest {
            of: NamesOf::Operations { service: "shop".into() },
            time_unix_nano: ever,
        }),
    ];
    for request in requests {
        let error = ask_with(&shop(), &request, &budget, &[0, 1]).unwrap_err();
        assert_eq!(error.kind, QueryErrorKind::Cancelled, "{request:?}");
    }
}

#[test]
fn traces_come_back_as_they_were_stored() {
    let rows = shop();
    let get = |time: Range<u64>, shard| {
        let request = LeafRequest::Traces(TracesRequest {
            trace_ids: BTreeSet::from([[1; 16], [3; 16], [77; 16]]),
            time_unix_nano: time,
        });
        ask_with(&rows, &request, &ScanBudget::unlimited(), shard).unwrap().into_traces().unwrap()
    };
    // A reply passes through serde on its way.
    let reply = serde_json::to_string(&get(EVER, &[0, 1])).unwrap();
    let reply = serde_json::from_str(&reply).unwrap();
    let traces = by_id::merge(vec![reply, get(EVER, &[1])]).unwrap();
    let names = |id: u8| traces[&[id; 16]].iter().map(|row| &*row.span.name).collect::<Vec<_>>();
    assert_eq!(traces.keys().map(|id| id[0]).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(names(1), ["GET /", "SELECT"]);
    let query = &traces[&[1; 16]][1];
    assert_eq!(query.span.events[0].attributes.get_str("exception.type"), Some("Timeout"));
    assert_eq!(*query.stream, *stream("db"));

    let traces = by_id::merge(vec![get(11 * SECOND..12 * SECOND, &[0, 1])]).unwrap();
    assert_eq!(traces[&[1; 16]].len(), 1);
}

fn names_of(of: NamesOf) -> Vec<Name> {
    let request = LeafRequest::Names(NamesRequest { of, time_unix_nano: EVER });
    let reply = ask(&shop(), &request).unwrap().into_names().unwrap();
    assert_eq!(reply.incomplete, None);
    names::merge(vec![reply], usize::MAX).names.into_iter().collect()
}

#[test]
fn services_and_operations_are_listed() {
    let services = ["db", "mail", "shop"].map(|name| Name::Service(name.into()));
    assert_eq!(names_of(NamesOf::Services), services);
    let operations = ["GET /", "POST /buy"].map(|name| Name::Operation { name: name.into(), kind: 2 });
    assert_eq!(names_of(NamesOf::Operations { service: "shop".into() }), operations);
    assert_eq!(names_of(NamesOf::Operations { service: "nobody".into() }), []);
}

#[test]
fn calls_between_services_are_counted() {
    let mut spans = vec![span(1, 1, 0, "web", "a", 1..9)];
    spans.extend((2..5).map(|id| span(1, id, 1, "db", "b", 2..3)));
    spans.push(span(1, 5, 2, "db", "within the service", 2..3));
    spans.push(span(2, 1, 0, "web", "of another trace", 1..2));
    spans.push(span(2, 2, 9, "db", "its parent is not stored", 1..2));
    let request = LeafRequest::Dependencies(DependenciesRequest { time_unix_nano: EVER });
    let reply = || ask(&row_set(spans.clone()), &request).unwrap().into_dependencies().unwrap();
    let pair = ("web".to_owned(), "db".to_owned());
    assert_eq!(reply().calls, [(pair.clone(), 3)].into());
    assert_eq!(dependencies::merge(vec![reply(), reply()]).unwrap().calls, [(pair, 6)].into());
}

#[test]
fn attribute_names_are_listed_by_scope() {
    let of = |scopes: &[AttributeScope]| {
        let names = names_of(NamesOf::Attributes { scopes: scopes.iter().copied().collect() });
        let key = |name| match name {
            Name::Attribute { scope, key } => (scope, key),
            other => panic!("{other:?}"),
        };
        names.into_iter().map(key).collect::<Vec<_>>()
    };
    let resource = ["service.name", "zone"].map(|key| (AttributeScope::Resource, key.to_owned()));
    assert_eq!(of(&[AttributeScope::Resource]), resource);
    let span = ["db.rows", "http.status_code", "ratio", "tags", "urgent"];
    assert_eq!(of(&[AttributeScope::Span]), span.map(|key| (AttributeScope::Span, key.to_owned())));
    assert_eq!(of(&[AttributeScope::Event]), [(AttributeScope::Event, "exception.type".to_owned())]);
}

#[test]
fn values_are_listed_with_their_kinds() {
    let of = |field: &str, query: &str| {
        let query = traceql::parse(query, 16_384).unwrap();
        let names = names_of(NamesOf::Values { field: parse_field(field), query });
        let text = |name| match name {
            Name::Value { kind, text } => (kind, text),
            other => panic!("{other:?}"),
        };
        names.into_iter().map(text).collect::<Vec<_>>()
    };
    let table = [
        ("resource.service.name", "{}", ValueKind::String, vec!["db", "mail", "shop"]),
        ("service.name", "{}", ValueKind::String, vec!["db", "mail", "shop"]),
        ("resource.service.name", "{ status = error }", ValueKind::String, vec!["db"]),
        ("span.http.status_code", "{}", ValueKind::Int, vec!["200", "503"]),
        ("ratio", "{}", ValueKind::Float, vec!["0.5"]),
        ("urgent", "{}", ValueKind::Bool, vec!["true"]),
        ("status", "{}", ValueKind::Keyword, vec!["error", "unset"]),
        ("rootName", "{}", ValueKind::String, vec!["GET /", "POST /buy"]),
        ("nothing", "{}", ValueKind::String, vec![]),
    ];
    for (field, query, kind, texts) in table {
        let expected: Vec<_> = texts.into_iter().map(|text| (kind, text.to_owned())).collect();
        assert_eq!(of(field, query), expected, "{field} in {query}");
    }
}

#[test]
fn too_many_names_are_cut_and_said() {
    let attributes: Attributes = (0..names::NAMES_MAX + 5).map(|n| (format!("key-{n}"), 1_i64)).collect();
    let mut row = span(1, 1, 0, "s", "n", 1..2);
    row.span.attributes = attributes;
    let of = NamesOf::Attributes { scopes: [AttributeScope::Span].into() };
    let request = LeafRequest::Names(NamesRequest { of, time_unix_nano: EVER });
    let reply = ask(&row_set(vec![row]), &request).unwrap().into_names().unwrap();
    assert_eq!(reply.names.len(), names::NAMES_MAX);
    assert!(reply.incomplete.is_some());
    assert_eq!(names::merge(vec![reply], 3).names.len(), 3);
}

#[test]
fn text_conditions_look_at_span_resource_and_events() {
    use oteld_query::traceql::ast::Expr;
    let rows = shop();
    let table: [(&str, &str, &[u8]); 5] = [
        ("http.status_code", "200", &[1]),
        ("zone", "z1", &[3, 2, 1]),
        ("exception.type", "Timeout", &[1]),
        ("tags", r#"["a","b"]"#, &[1]),
        ("urgent", "false", &[]),
    ];
    for (key, value, traces) in table {
        let query = Spanset::Filter(Expr::Text { key: key.into(), value: value.into() });
        assert_eq!(found(&rows, SearchRequest { query, ..request("{}") }), traces, "{key}");
    }
}

/// A trace of nested spans: each starts and ends within its parent, so that a range that cuts it shows that.
fn nested_trace(trace: u8) -> impl Strategy<Value = Vec<SpanRow>> {
    let step = (0_u64..3, 0_u64..3, any::<bool>(), any::<bool>());
    (0_u64..40, prop::collection::vec(step, 1..5)).prop_map(move |(first, steps)| {
        let (mut start, mut end) = (first, first + 20);
        let mut rows = Vec::new();
        for (index, (later, earlier, a, b)) in steps.into_iter().enumerate() {
            (start, end) = (start + later, (end - earlier).max(start + later));
            let id = index as u8 + 1;
            let row = span(trace, id, id - 1, "s", "n", start..end);
            rows.push(with(row, vec![("a", a.into()), ("b", b.into())]));
        }
        rows
    })
}

proptest! {
    /// Against the definition: a trace is found when, as a whole, it has spans of both kinds, and one of these
    /// spans starts in range; the newest are those whose latest span in range is newest.
    #[test]
    fn a_search_finds_what_its_definition_says(
        traces in (1_u8..7).prop_flat_map(|count| (1..=count).map(nested_trace).collect::<Vec<_>>()),
        start in 0_u64..60,
        length in 1_u64..60,
        limit in 1_usize..5,
        both in any::<bool>(),
    ) {
        let range = start * SECOND..(start + length) * SECOND;
        let is = |row: &SpanRow, key| row.span.attributes.get(key) == Some(&AnyValue::Bool(true));
        let in_range = |row: &&SpanRow| range.contains(&row.span.start_time_unix_nano);
        let mut expected: Vec<(std::cmp::Reverse<u64>, u8)> = traces
            .iter()
            .filter(|rows| {
                let has = |key| rows.iter().any(|row| is(row, key));
                let whole = if both { has("a") && has("b") } else { has("a") || has("b") };
                whole && rows.iter().filter(in_range).any(|row| is(row, "a") || is(row, "b"))
            })
            .map(|rows| {
                let latest = rows.iter().filter(in_range).map(|row| row.span.start_time_unix_nano).max();
                (std::cmp::Reverse(latest.unwrap()), rows[0].span.trace_id[0])
            })
            .collect();
        expected.sort();
        expected.truncate(limit);

        let rows = row_set(traces.into_iter().flatten().collect());
        let query = if both { "{ .a } && { .b }" } else { "{ .a } || { .b }" };
        let request = SearchRequest { time_unix_nano: range, limit, ..request(query) };
        let leaf = |shard| {
            let request = LeafRequest::Search(request.clone());
            ask_with(&rows, &request, &ScanBudget::unlimited(), &[shard]).unwrap().into_search().unwrap()
        };
        let merged = search::merge(vec![leaf(0), leaf(1)], limit);
        let found: Vec<u8> = merged.traces.iter().map(|trace| trace.trace_id[0]).collect();
        prop_assert_eq!(found, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    }
}
