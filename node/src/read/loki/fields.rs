//! `detected_fields` and the values of one, from a sample of the newest entries.

use axum::extract::{Path, State};
use axum::response::Response;
use oteld_query::logql::{
    self, DetectedField, Direction, QueryParameters, QueryResult, QueryTime, detect_fields,
};
use serde_json::json;

use super::super::ask::ReadState;
use super::error::LokiError;
use super::parameters::{Parameters, QUERY_SINCE_NANOS};
use super::{ask, respond};

/// Entries that are looked at without `line_limit`.
const LINES_DEFAULT: usize = 100;

/// Fields or values that are shown without `limit`.
const LIMIT_DEFAULT: usize = 1000;

/// Names, kinds and cardinalities of the fields in the sample.
pub(super) async fn names(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let limit = parameters.limit_or(LIMIT_DEFAULT)?;
    let (fields, incomplete) = fields(&state, &parameters).await?;
    let fields = fields.into_iter().take(limit).map(|field| {
        let parsers = (!field.parsers.is_empty()).then_some(&field.parsers);
        let mut body = json!({
            "label": field.label,
            "type": field.kind(),
            "cardinality": field.values.len(),
            "parsers": parsers,
        });
        if !field.json_path.is_empty() {
            body["jsonPath"] = json!(field.json_path);
        }
        body
    });
    let body = json!({"fields": fields.collect::<Vec<_>>(), "limit": limit});
    respond::top_level(body, incomplete)
}

/// Values of one field in the sample.
pub(super) async fn values(
    State(state): State<ReadState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let limit = parameters.limit_or(LIMIT_DEFAULT)?;
    let (fields, incomplete) = fields(&state, &parameters).await?;
    let field = fields.into_iter().find(|field| field.label == name).unwrap_or_default();
    let values: Vec<_> = field.values.into_iter().take(limit).collect();
    respond::top_level(json!({"values": values, "limit": limit}), incomplete)
}

async fn fields(
    state: &ReadState,
    parameters: &Parameters,
) -> Result<(Vec<DetectedField>, Vec<String>), LokiError> {
    let times = parameters.times(QUERY_SINCE_NANOS)?;
    let kind = QueryTime::Range {
        start_unix_nano: times.start,
        end_unix_nano: times.end,
        step_nanos: parameters.step_nanos(&times)?,
    };
    let query = QueryParameters {
        kind,
        limit: parameters.count("line_limit")?.unwrap_or(LINES_DEFAULT),
        direction: Direction::Backward,
    };
    let (text, limits) = (parameters.query()?, state.limits.clone());
    let plan = state.env.tasks.blocking(move || logql::plan(&text, query, &limits)).await?;
    let not_logs = || LokiError::bad("fields are detected in log queries only");
    let logql::Plan::Entries(request) = &plan else { return Err(not_logs()) };
    let found = ask(state, parameters, logql::LeafRequest::Entries(request.clone())).await?;
    let limits = state.limits.clone();
    let detect = move || match plan.finish(found.replies, &limits)? {
        QueryResult::Entries(entries) => Ok((detect_fields(&entries), found.incomplete)),
        _ => Err(not_logs()),
    };
    state.env.tasks.blocking(detect).await
}
