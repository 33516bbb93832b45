//! Tempo's attribute names and values, in both versions of its API.

use std::collections::{BTreeMap, BTreeSet};

use oteld_query::traceql::ast::{AttributeScope, Field, Spanset};
use oteld_query::traceql::parser::parse_field;
use oteld_query::traceql::{self, Name, NamesOf, NamesReply, NamesRequest, ValueKind};
use oteld_query::{Limits, QueryError};
use serde_json::{Value as Json, json};

use super::search;
use crate::read::traces::Params;

/// Intrinsics that can be searched by, as Tempo lists them.
const INTRINSICS: [&str; 19] = [
    "duration",
    "event:name",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:kind",
    "span:name",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// Scopes by their names in the API, in the order of its answers.
const SCOPES: [(&str, AttributeScope); 5] = [
    ("resource", AttributeScope::Resource),
    ("span", AttributeScope::Span),
    ("event", AttributeScope::Event),
    ("link", AttributeScope::Link),
    ("instrumentation", AttributeScope::Instrumentation),
];

const INTRINSIC: &str = "intrinsic";

/// What is asked of the names of attributes.
pub(super) struct TagsQuery {
    /// `None` when only intrinsics are wanted, which need no asking.
    pub(super) request: Option<NamesRequest>,
    pub(super) with_intrinsics: bool,
}

/// The most names that the request wants.
pub(super) fn limit(params: &Params) -> Result<usize, QueryError> {
    let limit = params.read("limit", str::parse::<usize>)?;
    Ok(limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX))
}

/// Reads the parameters of `search/tags`.
pub(super) fn tags_query(params: &Params) -> Result<TagsQuery, QueryError> {
    let scopes: BTreeSet<AttributeScope> = match params.get("scope") {
        None | Some("none") => SCOPES.iter().map(|(_, scope)| *scope).collect(),
        Some(INTRINSIC) => BTreeSet::new(),
        Some(name) => match SCOPES.iter().find(|(known, _)| *known == name) {
            Some((_, scope)) => [*scope].into(),
            None => return Err(QueryError::bad(format!("invalid scope: {name}"))),
        },
    };
    let time_unix_nano = search::time(params)?;
    Ok(TagsQuery {
        with_intrinsics: scopes.len() != 1,
        request: (!scopes.is_empty())
            .then_some(NamesRequest { of: NamesOf::Attributes { scopes }, time_unix_nano }),
    })
}

/// `tempopb.SearchTagsResponse`: names of all scopes, each once. Intrinsics only where they were asked for.
pub(super) fn tags_v1(reply: NamesReply, only_intrinsics: bool) -> Json {
    if only_intrinsics {
        return json!({ "tagNames": INTRINSICS });
    }
    let key = |name| match name {
        Name::Attribute { key, .. } => Some(key),
        _ => None,
    };
    let names: BTreeSet<String> = reply.names.into_iter().filter_map(key).collect();
    json!({ "tagNames": names })
}

/// `tempopb.SearchTagsV2Response`
pub(super) fn tags_v2(reply: NamesReply, with_intrinsics: bool) -> Json {
    let mut keys: BTreeMap<AttributeScope, Vec<String>> = BTreeMap::new();
    for name in reply.names {
        if let Name::Attribute { scope, key } = name {
            keys.entry(scope).or_default().push(key);
        }
    }
    let named = SCOPES.iter().filter_map(|(name, scope)| Some((*name, keys.remove(scope)?)));
    let mut scopes: Vec<Json> = named.map(|(name, tags)| json!({ "name": name, "tags": tags })).collect();
    if with_intrinsics {
        scopes.push(json!({ "name": INTRINSIC, "tags": INTRINSICS }));
    }
    json!({ "scopes": scopes })
}

/// Reads the parameters of `search/tag/{tag}/values`. While a query is being typed, its text is often none yet:
/// then values of all spans are listed, as Tempo does.
pub(super) fn values_request(
    tag: &str,
    params: &Params,
    limits: &Limits,
) -> Result<NamesRequest, QueryError> {
    let field = match tag {
        "root.name" => Field::RootName,
        "root.service.name" => Field::RootServiceName,
        "status.code" => Field::Status,
        _ => parse_field(tag),
    };
    let query = params.get("q").and_then(|q| traceql::parse(q, limits.query_length_max).ok());
    let query = query.unwrap_or_else(Spanset::all);
    Ok(NamesRequest { of: NamesOf::Values { field, query }, time_unix_nano: search::time(params)? })
}

/// `tempopb.SearchTagValuesResponse`
pub(super) fn values_v1(reply: NamesReply) -> Json {
    let texts: BTreeSet<String> = values(reply).map(|(_, text)| text).collect();
    json!({ "tagValues": texts })
}

/// `tempopb.SearchTagValuesV2Response`
pub(super) fn values_v2(reply: NamesReply) -> Json {
    let kind_name = |kind| match kind {
        ValueKind::String => "string",
        ValueKind::Int => "int",
        ValueKind::Float => "float",
        ValueKind::Bool => "bool",
        ValueKind::Duration => "duration",
        ValueKind::Keyword => "keyword",
    };
    let values: Vec<Json> =
        values(reply).map(|(kind, text)| json!({ "type": kind_name(kind), "value": text })).collect();
    json!({ "tagValues": values })
}

/// Texts with their kinds. An empty one is no help to who completes a query, and stands for "none" in root names.
fn values(reply: NamesReply) -> impl Iterator<Item = (ValueKind, String)> {
    reply.names.into_iter().filter_map(|name| match name {
        Name::Value { kind, text } if !text.is_empty() => Some((kind, text)),
        _ => None,
    })
}
