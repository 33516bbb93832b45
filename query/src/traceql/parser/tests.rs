//! Tables of queries and the trees, or refusals, that they give.

use proptest::prelude::*;

use super::*;
use crate::QueryErrorKind;

const LENGTH_MAX: usize = 16_384;

fn attribute(scope: AttributeScope, key: &str) -> Field {
    Field::Attribute { scope, key: key.into() }
}

fn compares(field: Field, op: Op, value: Value) -> Expr {
    Expr::Compare { field, op, value }
}

fn eq(key: &str, value: Value) -> Expr {
    compares(attribute(AttributeScope::Any, key), Op::Eq, value)
}

#[test]
fn conditions_parse_to_their_tree() {
    use AttributeScope::{Any, Event, Instrumentation, Link, Resource, Span};
    let text = |t: &str| Value::Text(t.into());
    let table = [
        (r#"name = "GET /""#, compares(Field::Name, Op::Eq, text("GET /"))),
        (r#"span:name != "a""#, compares(Field::Name, Op::Ne, text("a"))),
        ("status = error", compares(Field::Status, Op::Eq, Value::Status(2))),
        ("status != unset", compares(Field::Status, Op::Ne, Value::Status(0))),
        ("kind = server", compares(Field::Kind, Op::Eq, Value::Kind(2))),
        ("duration > 1.5s", compares(Field::Duration, Op::Gt, Value::Duration(1_500_000_000))),
        ("100ms <= duration", compares(Field::Duration, Op::Ge, Value::Duration(100_000_000))),
        ("traceDuration<1m", compares(Field::TraceDuration, Op::Lt, Value::Duration(60_000_000_000))),
        (r#"rootName =~ "a.*""#, compares(Field::RootName, Op::Regex, text("a.*"))),
        ("rootServiceName !~ `b|c`", compares(Field::RootServiceName, Op::NotRegex, text("b|c"))),
        (
            r#"resource.service.name="shop""#,
            compares(attribute(Resource, "service.name"), Op::Eq, text("shop")),
        ),
        ("span.http.status_code >= 500", {
            compares(attribute(Span, "http.status_code"), Op::Ge, Value::Int(500))
        }),
        ("event.n = 1", compares(attribute(Event, "n"), Op::Eq, Value::Int(1))),
        ("link.n = 1", compares(attribute(Link, "n"), Op::Eq, Value::Int(1))),
        ("instrumentation.n = 1", compares(attribute(Instrumentation, "n"), Op::Eq, Value::Int(1))),
        (".a-b/c = -1.5", compares(attribute(Any, "a-b/c"), Op::Eq, Value::Float(-1.5))),
        (r#"span."with space" = true"#, {
            compares(attribute(Span, "with space"), Op::Eq, Value::Bool(true))
        }),
        (r#".a = "\"\\\n\u00e9""#, eq("a", text("\"\\\né"))),
        (".a = 1e3", eq("a", Value::Float(1000.0))),
        (".a", eq("a", Value::Bool(true))),
        (".a != nil", Expr::Exists(attribute(Any, "a"))),
        (".a = nil", Expr::Not(Box::new(Expr::Exists(attribute(Any, "a"))))),
        ("!.a", Expr::Not(Box::new(eq("a", Value::Bool(true))))),
        ("true", Expr::Const(true)),
        ("nestedSetParent < 0", compares(Field::IsRoot, Op::Eq, Value::Bool(true))),
        (".a = 1 && .b = 2 && .c = 3", {
            Expr::And(vec![eq("a", Value::Int(1)), eq("b", Value::Int(2)), eq("c", Value::Int(3))])
        }),
        (".a = 1 && (.b = 2 || .c = 3)", {
            let or = Expr::Or(vec![eq("b", Value::Int(2)), eq("c", Value::Int(3))]);
            Expr::And(vec![eq("a", Value::Int(1)), or])
        }),
        (".a = 1 || .b = 2 && .c = 3", {
            let or = Expr::Or(vec![eq("a", Value::Int(1)), eq("b", Value::Int(2))]);
            Expr::And(vec![or, eq("c", Value::Int(3))])
        }),
    ];
    for (condition, expr) in table {
        let parsed = parse(&format!("{{ {condition} }}"), LENGTH_MAX);
        assert_eq!(parsed, Ok(Spanset::Filter(expr)), "{condition}");
    }
}

#[test]
fn spansets_combine() {
    let filter = |key: &str| Spanset::Filter(eq(key, Value::Bool(true)));
    let table = [
        ("{}", Spanset::all()),
        ("  { }  ", Spanset::all()),
        ("{.a} && {.b}", Spanset::And(vec![filter("a"), filter("b")])),
        ("({.a} || {.b}) && {.c}", {
            Spanset::And(vec![Spanset::Or(vec![filter("a"), filter("b")]), filter("c")])
        }),
        ("{.a} with (most_recent=true)", filter("a")),
    ];
    for (query, spanset) in table {
        assert_eq!(parse(query, LENGTH_MAX), Ok(spanset), "{query}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let table = [
        ("{.a} >> {.b}", ">>"),
        ("{.a} &>> {.b}", "&>>"),
        ("{.a} !~ {.b}", "!~"),
        ("{.a} ~ {.b}", "~"),
        ("{.a} | rate() by (.b)", "rate()"),
        ("{.a} | select(.b)", "select()"),
        ("{.a} | count() > 2", "count()"),
        ("{parent.a = 1}", "parent.a"),
        ("{.a + 1 = 2}", "(+)"),
        ("{1 = .a * 2}", "(*)"),
        ("{.a = .b}", "two fields"),
        ("{childCount > 1}", "childCount"),
        ("{nestedSetParent = 3}", "nestedSetParent"),
        ("{} with (sample=true)", "sample"),
    ];
    for (query, name) in table {
        let error = parse(query, LENGTH_MAX).expect_err(query);
        assert_eq!(error.kind, QueryErrorKind::NotSupported, "{query}: {error}");
        assert!(error.message.contains(name), "{query}: {error}");
    }
}

#[test]
fn wrong_queries_are_refused_with_their_place() {
    let table = [
        ("", "expected \"{\""),
        ("{", "expected a condition"),
        ("{.a = }", "character 7"),
        ("{.a = 1", "expected \"}\", found the end"),
        ("{.a = 1} {.b}", "expected &&, ||"),
        ("{a = 1}", ".a"),
        ("{foo.a = 1}", "unknown attribute scope \"foo\""),
        ("{. = 1}", "attribute name is missing"),
        (r#"{.a = "x}"#, "not closed"),
        ("{name = 5}", "types differ"),
        (r#"{status = "error"}"#, "types differ"),
        ("{status > ok}", "= and != only"),
        ("{kind = ok}", "types differ"),
        (r#"{.a =~ "("}"#, "invalid regular expression"),
        ("{.a =~ 5}", "has to be a string"),
        ("{.a > nil}", "nil"),
        ("{5}", "not a boolean"),
        ("{.a = 5zz}", "invalid number or duration"),
        ("{.a # 5}", "unexpected character"),
    ];
    for (query, message) in table {
        let error = parse(query, LENGTH_MAX).expect_err(query);
        assert_eq!(error.kind, QueryErrorKind::BadQuery, "{query}: {error}");
        assert!(error.message.contains(message), "{query}: {error}");
    }
}

#[test]
fn long_and_deep_queries_are_refused() {
    let deep = format!("{{{}true{}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(parse(&deep, LENGTH_MAX).expect_err("too deep").message.contains("nested deeper"));
    let nots = format!("{{{}true}}", "!".repeat(5000));
    assert!(parse(&nots, LENGTH_MAX).expect_err("too deep").message.contains("nested deeper"));
    assert!(parse("{}    ", 4).expect_err("too long").message.contains("query_length_max"));
}

#[test]
fn a_long_chain_of_operators_is_no_deep_tree() {
    let chain = vec![".a"; 2000].join(" || ");
    let Ok(Spanset::Filter(Expr::Or(parts))) = parse(&format!("{{{chain}}}"), LENGTH_MAX) else {
        panic!("a flat list of alternatives");
    };
    assert_eq!(parts.len(), 2000);
}

#[test]
fn operators_that_alternate_too_often_are_refused() {
    for (open, close) in [("{.a", "}"), ("{.a}", "")] {
        let part = if close.is_empty() { " || {.a} && {.a}" } else { " || .a && .a" };
        let error = parse(&format!("{open}{}{close}", part.repeat(200)), LENGTH_MAX);
        assert!(error.expect_err("too deep").message.contains("alternate"), "{open}");
    }
}

#[test]
fn names_of_fields_are_read_with_or_without_scope() {
    let any = |key: &str| attribute(AttributeScope::Any, key);
    let table = [
        ("status", Field::Status),
        ("span:name", Field::Name),
        ("resource.service.name", attribute(AttributeScope::Resource, "service.name")),
        ("span.a b", any("span.a b")),
        (".foo", any("foo")),
        ("service.name", any("service.name")),
        ("http.method", any("http.method")),
    ];
    for (name, field) in table {
        assert_eq!(parse_field(name), field, "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_a_tree_or_an_error(text in r#"[{}()=!~<>&|." a-z0-9\\`:,µ+-]{0,60}"#) {
        let _ = parse(&text, LENGTH_MAX);
    }
}
