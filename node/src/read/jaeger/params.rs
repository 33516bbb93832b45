//! The parameters of Jaeger's trace search.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use oteld_query::QueryError;
use oteld_query::traceql::SearchRequest;
use oteld_query::traceql::ast::{AttributeScope, Expr, Field, KIND_NAMES, Op, Spanset, Value};
use oteld_query::traceql::duration::parse_duration;

use super::shape::NO_SERVICE_NAME;
use crate::read::traces::{EVER, Params, trace_id};

/// How far back Jaeger looks when no start is given: two days, in nanoseconds.
const LOOKBACK_NANOS: u64 = 2 * 86_400 * 1_000_000_000;

/// Traces that are found when no limit is given.
const LIMIT: usize = 20;

/// What `/api/traces` is asked.
#[derive(Debug, PartialEq)]
pub(super) enum TracesQuery {
    Find(SearchRequest),
    Get { trace_ids: BTreeSet<[u8; 16]>, time_unix_nano: Range<u64> },
}

/// Reads the parameters of a search; `now` in nanoseconds since the Unix epoch.
pub(super) fn traces_query(params: &Params, now: u64) -> Result<TracesQuery, QueryError> {
    let start = params.read("start", micros)?;
    let end = params.read("end", micros)?;
    let trace_ids = params.all("traceID").map(trace_id).collect::<Result<BTreeSet<_>, _>>()?;
    if !trace_ids.is_empty() {
        // The end is included in Jaeger.
        let time_unix_nano =
            start.unwrap_or(EVER.start)..end.map_or(EVER.end, |end| end.saturating_add(1_000));
        return Ok(TracesQuery::Get { trace_ids, time_unix_nano });
    }
    let end = end.unwrap_or(now);
    // Jaeger's UI sends "custom" beside a start and an end of its own.
    let lookback = match start {
        Some(_) => None,
        None => params.read("lookback", duration)?,
    };
    let start = start.unwrap_or_else(|| end.saturating_sub(lookback.unwrap_or(LOOKBACK_NANOS)));
    let limit = params.read("limit", str::parse::<usize>)?.unwrap_or(LIMIT);
    if limit == 0 {
        return Err(QueryError::bad("invalid parameter limit: it has to be positive"));
    }
    Ok(TracesQuery::Find(SearchRequest {
        query: Spanset::Filter(Expr::And(conditions(params)?)),
        time_unix_nano: start..end.saturating_add(1_000),
        trace_duration_nanos: (0, u64::MAX),
        limit,
        spans_per_trace: 0,
    }))
}

/// What one span of a trace has to fulfil, all of it.
fn conditions(params: &Params) -> Result<Vec<Expr>, QueryError> {
    let Some(service) = params.get("service") else {
        return Err(QueryError::bad("parameter 'service' is required"));
    };
    let mut all = vec![service_is(service)];
    if let Some(operation) = params.get("operation") {
        all.push(compare(Field::Name, Op::Eq, Value::Text(operation.into())));
    }
    // Zero is "not set" in Jaeger.
    let shortest = params.read("minDuration", duration)?.filter(|nanos| *nanos > 0);
    let longest = params.read("maxDuration", duration)?.filter(|nanos| *nanos > 0);
    if let (Some(shortest), Some(longest)) = (shortest, longest)
        && longest < shortest
    {
        return Err(QueryError::bad("'maxDuration' should be greater than 'minDuration'"));
    }
    for (op, nanos) in [(Op::Ge, shortest), (Op::Le, longest)] {
        if let Some(nanos) = nanos {
            all.push(compare(Field::Duration, op, Value::Duration(nanos.try_into().unwrap_or(i64::MAX))));
        }
    }
    all.extend(tags(params)?.into_iter().map(|(key, value)| tag_is(key, value)));
    Ok(all)
}

/// `tag=key:value`, repeated, and `tags={"key":"value"}`.
fn tags(params: &Params) -> Result<BTreeMap<String, String>, QueryError> {
    let mut tags = BTreeMap::new();
    for tag in params.all("tag") {
        let Some((key, value)) = tag.split_once(':') else {
            return Err(QueryError::bad(format!(
                "malformed 'tag' parameter, expecting key:value, received: {tag}"
            )));
        };
        tags.insert(key.to_owned(), value.to_owned());
    }
    for json in params.all("tags") {
        let parsed: BTreeMap<String, String> = serde_json::from_str(json).map_err(|error| {
            QueryError::bad(format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}"))
        })?;
        tags.extend(parsed);
    }
    Ok(tags)
}

fn compare(field: Field, op: Op, value: Value) -> Expr {
    Expr::Compare { field, op, value }
}

fn service_is(service: &str) -> Expr {
    let field = Field::Attribute { scope: AttributeScope::Resource, key: "service.name".into() };
    let named = |name: &str| compare(field.clone(), Op::Eq, Value::Text(name.into()));
    if service == NO_SERVICE_NAME {
        let unnamed = Expr::Not(Box::new(Expr::Exists(field.clone())));
        Expr::Or(vec![unnamed, named(""), named(service)])
    } else {
        named(service)
    }
}

/// A tag by its text. Tags that Jaeger's view makes out of a span's own fields are looked for there too.
fn tag_is(key: String, value: String) -> Expr {
    let text = |field| Some(compare(field, Op::Eq, Value::Text(value.clone())));
    let own = match key.as_str() {
        "error" if value == "true" => Some(compare(Field::Status, Op::Eq, Value::Status(2))),
        "otel.status_code" => match value.as_str() {
            "OK" => Some(compare(Field::Status, Op::Eq, Value::Status(1))),
            "ERROR" => Some(compare(Field::Status, Op::Eq, Value::Status(2))),
            _ => None,
        },
        "span.kind" => (1..KIND_NAMES.len())
            .find(|kind| KIND_NAMES[*kind] == value)
            .map(|kind| compare(Field::Kind, Op::Eq, Value::Kind(kind as u8))),
        "otel.status_description" => text(Field::StatusMessage),
        "otel.scope.name" => text(Field::ScopeName),
        "otel.scope.version" => text(Field::ScopeVersion),
        "w3c.tracestate" => text(Field::TraceState),
        "event" => text(Field::EventName),
        _ => None,
    };
    let stored = Expr::Text { key, value };
    match own {
        Some(own) => Expr::Or(vec![stored, own]),
        None => stored,
    }
}

/// The time range of `/api/traces/{id}`. Jaeger's own UI sends microseconds and Grafana milliseconds: a number
/// below 10^14 (the year 5138 in milliseconds, 1973 in microseconds) is the latter.
pub(super) fn time_of_trace(params: &Params) -> Result<Range<u64>, QueryError> {
    let read = |text: &str| {
        let number: u64 = text.parse()?;
        let nanos_a_unit = if number < 100_000_000_000_000 { 1_000_000 } else { 1_000 };
        Ok::<_, std::num::ParseIntError>((number.saturating_mul(nanos_a_unit), nanos_a_unit))
    };
    let start = params.read("start", read)?.map_or(EVER.start, |(start, _)| start);
    let end = params.read("end", read)?.map_or(EVER.end, |(end, unit)| end.saturating_add(unit));
    Ok(start..end)
}

/// The time range of `/api/dependencies`: `lookback` (a day, when not given) up to `endTs` (now), in milliseconds.
pub(super) fn dependencies_time(params: &Params, now: u64) -> Result<Range<u64>, QueryError> {
    let nanos = |text: &str| text.parse::<u64>().map(|millis| millis.saturating_mul(1_000_000));
    let end = params.read("endTs", nanos)?.map_or(now, |end| end.saturating_add(1_000_000));
    let lookback = params.read("lookback", nanos)?.unwrap_or(LOOKBACK_NANOS / 2);
    Ok(end.saturating_sub(lookback)..end)
}

/// Nanoseconds of a time in microseconds.
fn micros(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.parse::<u64>().map(|micros| micros.saturating_mul(1_000))
}

/// Nanoseconds of a duration that is not negative.
fn duration(text: &str) -> Result<u64, QueryError> {
    let nanos = parse_duration(text)?;
    u64::try_from(nanos).map_err(|_| QueryError::bad("a duration cannot be negative"))
}
