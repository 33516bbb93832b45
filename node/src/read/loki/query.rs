//! `query` and `query_range`.

use axum::extract::State;
use axum::response::Response;
use oteld_query::logql::{self, QueryParameters, QueryTime};
use tokio::time::Instant;

use super::super::ask::ReadState;
use super::error::LokiError;
use super::parameters::{Parameters, QUERY_SINCE_NANOS};
use super::{Found, ask, respond};

/// A metric query at one time.
pub(super) async fn instant(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let kind = QueryTime::Instant { time_unix_nano: parameters.instant()? };
    run(state, parameters, kind).await
}

/// A log query, or a metric query at many times.
pub(super) async fn range(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    parameters.refuse("interval")?;
    let times = parameters.times(QUERY_SINCE_NANOS)?;
    let kind = QueryTime::Range {
        start_unix_nano: times.start,
        end_unix_nano: times.end,
        step_nanos: parameters.step_nanos(&times)?,
    };
    run(state, parameters, kind).await
}

async fn run(state: ReadState, parameters: Parameters, kind: QueryTime) -> Result<Response, LokiError> {
    let started = Instant::now();
    let text = parameters.query()?;
    let (limit, direction) = (parameters.limit()?, parameters.direction()?);
    let limits = state.limits.clone();
    // Compiling the expressions of a hostile query takes a while.
    let planned = state.env.tasks.blocking(move || {
        let plan = logql::plan(&text, QueryParameters { kind, limit, direction }, &limits)?;
        Ok::<_, LokiError>((plan.request(), plan))
    });
    let (request, plan) = planned.await?;
    let found = match request {
        Some(request) => ask(&state, &parameters, request).await?,
        None => Found { replies: Vec::new(), incomplete: Vec::new(), rows_scanned: 0, bytes_scanned: 0 },
    };
    let (limits, categorized) = (state.limits.clone(), parameters.categorized);
    let respond = move || {
        let Found { replies, mut incomplete, rows_scanned, bytes_scanned } = found;
        if !incomplete.is_empty() && oteld_env::mutant("partial-flag-swallowed-by-loki") {
            incomplete.clear();
        }
        let result = plan.finish(replies, &limits)?;
        let spent = respond::Spent { rows_scanned, bytes_scanned, elapsed: started.elapsed() };
        respond::query(result, categorized, spent, incomplete)
    };
    state.env.tasks.blocking(respond).await
}
