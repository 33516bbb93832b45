//! Loki's HTTP API over the logs (grafana.com/docs/loki, "Loki HTTP API").
//!
//! Paths, parameters, shapes and status codes are Loki's. Push is not here but on the write path. Where a result is
//! partial, the body has `warnings` at its top (Loki 3 has them there for queries; elsewhere they are an addition
//! that its clients skip) and may not be cached. Errors are JSON with `code`, `status` and `message`.

mod time;
mod parameters;
mod query;
mod labels;
mod fields;
mod index;
mod drilldown;
mod respond;
mod error;

use axum::Router;
use axum::routing::{MethodRouter, get};
use oteld_query::QueryError;
use oteld_query::logql::{LeafReply, LeafRequest};

use super::ask::{Answer, AskOptions, ReadState};
use error::LokiError;

/// What every path begins with.
const PREFIX: &str = "/loki/api/v1";

/// In Loki's API, and not built: an error that names it instead of an empty answer.
const NOT_BUILT: [&str; 8] = [
    "format_query",
    "index/shards",
    "index/volume_range",
    "patterns",
    "rules",
    "rules/{namespace}",
    "rules/{namespace}/{group}",
    "tail",
];

/// All of Loki's query paths.
pub fn router() -> Router<ReadState> {
    let mut router = Router::new();
    let built: [(&str, MethodRouter<ReadState>); 12] = [
        ("query", get(query::instant).post(query::instant)),
        ("query_range", get(query::range).post(query::range)),
        ("label", get(labels::names).post(labels::names)),
        ("labels", get(labels::names).post(labels::names)),
        ("label/{name}/values", get(labels::values).post(labels::values)),
        ("series", get(labels::series).post(labels::series)),
        ("detected_labels", get(labels::detected).post(labels::detected)),
        ("detected_fields", get(fields::names).post(fields::names)),
        ("detected_field/{name}/values", get(fields::values).post(fields::values)),
        ("index/stats", get(index::stats).post(index::stats)),
        ("index/volume", get(index::volume).post(index::volume)),
        ("drilldown-limits", get(drilldown::limits)),
    ];
    for (path, methods) in built {
        router = router.route(&format!("{PREFIX}/{path}"), methods);
    }
    for path in NOT_BUILT {
        let refuse =
            move || async move { LokiError::from(QueryError::not_supported(format!("{PREFIX}/{path}"))) };
        router = router.route(&format!("{PREFIX}/{path}"), get(refuse).post(refuse));
    }
    router
}

/// What the leaves said, with how much they looked at.
struct Found {
    replies: Vec<LeafReply>,
    incomplete: Vec<String>,
    rows_scanned: u64,
    bytes_scanned: u64,
}

/// Asks all leaves.
async fn ask(
    state: &ReadState,
    parameters: &parameters::Parameters,
    request: LeafRequest,
) -> Result<Found, LokiError> {
    let request = oteld_query::LeafRequest::Log(request);
    let Answer { replies, incomplete, rows_scanned, bytes_scanned } =
        state.ask.ask(&parameters.tenant, request, AskOptions::default()).await?;
    let replies = replies.into_iter().map(|reply| match reply {
        oteld_query::LeafReply::Log(reply) => Ok(reply),
        _ => Err(wrong_reply()),
    });
    Ok(Found { replies: replies.collect::<Result<_, _>>()?, incomplete, rows_scanned, bytes_scanned })
}

fn wrong_reply() -> LokiError {
    LokiError::internal("a leaf gave a reply of another kind than it was asked for")
}

#[cfg(test)]
mod tests;
