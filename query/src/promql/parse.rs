//! Text to syntax tree, by the promql-parser crate, behind limits that keep a hostile query cheap.

use std::panic::catch_unwind;

use promql_parser::label::Matchers;
use promql_parser::parser::{Expr, parse as parse_promql};

use super::labels::{MatchOp, Matcher};
use crate::{Limits, QueryError, QueryErrorKind};

/// Operators in one query. The parser's time grows with their square, and the depth of a chain with their number.
const OPERATORS_MAX: usize = 256;

/// Nested brackets of any kind.
const NESTING_MAX: usize = 64;

/// Parses an expression. May take milliseconds: not for the reactor.
pub(crate) fn parse(query: &str, limits: &Limits) -> Result<Expr, QueryError> {
    let over = |what: &str, limit: usize| {
        Err(QueryError::new(QueryErrorKind::Limit, format!("the query has more than {limit} {what}")))
    };
    if query.len() > limits.query_length_max {
        return over("bytes", limits.query_length_max);
    }
    let shape = shape_of(query);
    if shape.operators > OPERATORS_MAX {
        return over("operators", OPERATORS_MAX);
    }
    if shape.depth > NESTING_MAX {
        return over("nested brackets", NESTING_MAX);
    }
    // The parser panics on some durations that overflow.
    let parsed = catch_unwind(|| parse_promql(query))
        .map_err(|_| QueryError::bad("parse error: the query has a number or a duration out of range"))?;
    parsed.map_err(|error| QueryError::bad(format!("parse error: {error}")))
}

/// A query as Prometheus' formatter lays it out. Errors as of [`super::Plan::instant`].
pub fn format_query(query: &str, limits: &Limits) -> Result<String, QueryError> {
    parse(query, limits).map(|expr| expr.prettify())
}

/// Parses a series selector as in `match[]`.
pub fn parse_selector(text: &str, limits: &Limits) -> Result<Vec<Matcher>, QueryError> {
    match parse(text, limits)? {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => {
            matchers(selector.name.as_deref(), &selector.matchers)
        }
        _ => Err(QueryError::bad(format!("parse error: {text:?} is not a series selector"))),
    }
}

/// The matchers of a selector, its name included.
pub(crate) fn matchers(name: Option<&str>, parsed: &Matchers) -> Result<Vec<Matcher>, QueryError> {
    use promql_parser::label::MatchOp as Parsed;
    if !parsed.or_matchers.is_empty() {
        return Err(QueryError::bad("parse error: unexpected \"or\" in label matching"));
    }
    let name = name.map(|name| Matcher {
        name: super::labels::METRIC_NAME.to_owned(),
        op: MatchOp::Equal,
        value: name.to_owned(),
    });
    let rest = parsed.matchers.iter().map(|matcher| {
        let (op, value) = match &matcher.op {
            Parsed::Equal => (MatchOp::Equal, matcher.value.as_str()),
            Parsed::NotEqual => (MatchOp::NotEqual, matcher.value.as_str()),
            Parsed::Re(regex) => (MatchOp::Regex, regex.as_str()),
            Parsed::NotRe(regex) => (MatchOp::NotRegex, regex.as_str()),
        };
        Matcher { name: matcher.name.clone(), op, value: value.to_owned() }
    });
    Ok(name.into_iter().chain(rest).collect())
}

struct Shape {
    operators: usize,
    depth: usize,
}

/// Counts what costs, without parsing: everything outside strings and comments. What stands in braces are matchers,
/// not operators.
fn shape_of(query: &str) -> Shape {
    let mut shape = Shape { operators: 0, depth: 0 };
    let (mut depth, mut braces) = (0_usize, 0_usize);
    let mut word = String::new();
    let mut chars = query.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' || c == ':' {
            word.push(c.to_ascii_lowercase());
            continue;
        }
        if ["and", "or", "unless", "atan2"].contains(&word.as_str()) {
            shape.operators += 1;
        }
        word.clear();
        match c {
            '"' | '\'' | '`' => {
                while let Some(inner) = chars.next() {
                    if inner == c {
                        break;
                    }
                    if inner == '\\' && c != '`' {
                        chars.next();
                    }
                }
            }
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '(' | '[' | '{' => {
                depth += 1;
                braces += usize::from(c == '{');
                shape.depth = shape.depth.max(depth);
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                braces = braces.saturating_sub(usize::from(c == '}'));
            }
            '+' | '-' | '*' | '/' | '%' | '^' | '=' | '!' | '<' | '>' if braces == 0 => {
                chars.next_if(|next| *next == '=');
                shape.operators += 1;
            }
            _ => {}
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> QueryError {
        parse(query, &Limits::default()).expect_err(query)
    }

    #[test]
    fn a_query_that_would_cost_too_much_is_not_parsed() {
        let limits = [
            ("1+".repeat(300) + "1", "256 operators"),
            ("x or ".repeat(300) + "x", "256 operators"),
            ("(".repeat(100) + "1" + &")".repeat(100), "64 nested brackets"),
            (format!("x{{a={:?}}}", "b".repeat(20_000)), "16384 bytes"),
        ];
        for (query, limit) in limits {
            let error = refused(&query);
            assert_eq!(error.kind, QueryErrorKind::Limit);
            assert!(error.message.contains(limit), "{}", error.message);
        }
    }

    #[test]
    fn operators_in_strings_and_matchers_do_not_count() {
        let many = "+-*/".repeat(200);
        let shape = shape_of(&format!("x{{a=~\"{many}\",b!='{many}'}} # {many}\n > 1"));
        assert_eq!((shape.operators, shape.depth), (1, 1));
    }

    #[test]
    fn what_prometheus_refuses_is_refused() {
        for query in
            ["{a=\"b\" or c=\"d\"}", "{}", "{a=~\".*\"}", "sum(", "1 +", "", "x[5m] offset", "x[1e300]"]
        {
            let error = parse(query, &Limits::default()).and_then(|expr| match expr {
                Expr::VectorSelector(selector) => matchers(None, &selector.matchers),
                _ => Ok(Vec::new()),
            });
            assert_eq!(error.expect_err(query).kind, QueryErrorKind::BadQuery, "{query}");
        }
    }
}
