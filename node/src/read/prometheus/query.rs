//! Queries: `query`, `query_range`, `query_exemplars`, `format_query`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use oteld_query::promql::{self, Data, Plan, Timeline};
use oteld_query::{LeafReply, LeafRequest, Limits, QueryError};
use oteld_store::scan::ScanBudget;

use super::super::ask::{Answer, AskOptions, ReadState};
use super::error::ApiError;
use super::params::Params;
use super::respond::{Answered, Success, exemplar_data, query_data};

/// The warning of an answer that `limit` cut, in Prometheus' words.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

pub(super) async fn query(State(state): State<ReadState>, params: Params) -> Answered {
    let time_ms = match params.time_ms("time")? {
        Some(time_ms) => time_ms,
        None => now_ms(&state),
    };
    let text = params.query();
    evaluate(&state, &params, move |limits| Plan::instant(&text, time_ms, limits)).await
}

pub(super) async fn query_range(State(state): State<ReadState>, params: Params) -> Answered {
    let (start_ms, end_ms) = (params.required_time_ms("start")?, params.required_time_ms("end")?);
    let step_ms = params
        .duration_ms("step")?
        .ok_or_else(|| ApiError::bad_parameter("step", "cannot parse \"\" to a valid duration"))?;
    let text = params.query();
    let timeline = Timeline { start_ms, end_ms, step_ms };
    evaluate(&state, &params, move |limits| Plan::range(&text, timeline, limits)).await
}

pub(super) async fn query_exemplars(State(state): State<ReadState>, params: Params) -> Answered {
    let end_ms = params.time_ms("end")?.unwrap_or_else(|| now_ms(&state));
    let start_ms = params.time_ms("start")?.unwrap_or(0);
    if end_ms < start_ms {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let (text, limits) = (params.query(), state.limits.clone());
    let plan = state.env.tasks.blocking(move || Plan::instant(&text, 0, &limits)).await;
    let selectors = plan.map_err(ApiError::planning)?.selectors();
    let options = params.ask_options(&state.limits)?;
    within(options, async {
        let mut answer = Answer::default();
        if !selectors.is_empty() {
            let request = promql::LeafRequest::Exemplars { selectors, start_ms: start_ms - 1, end_ms };
            answer = ask(&state, &params, request, options).await?;
        }
        let (replies, incomplete) = prom_replies(answer)?;
        let limits = state.limits.clone();
        let merged = state.env.tasks.blocking(move || {
            let merged = promql::merge_exemplars(replies, &limits)?;
            Ok::<_, QueryError>(Success::new(&exemplar_data(&merged), &incomplete, &BTreeSet::new()))
        });
        merged.await.map_err(ApiError::execution)
    })
    .await
}

pub(super) async fn format_query(State(state): State<ReadState>, params: Params) -> Answered {
    let (text, limits) = (params.query(), state.limits.clone());
    let formatted = state.env.tasks.blocking(move || promql::format_query(&text, &limits)).await;
    Ok(Success::plain(&formatted.map_err(ApiError::planning)?.into()))
}

pub(super) fn now_ms(state: &ReadState) -> i64 {
    (state.env.clock.now_unix_nanos() / 1_000_000) as i64
}

/// Plans, asks and evaluates; parsing and evaluation away from the reactor.
async fn evaluate(
    state: &ReadState,
    params: &Params,
    plan: impl FnOnce(&Limits) -> Result<Plan, QueryError> + Send + 'static,
) -> Answered {
    let options = params.ask_options(&state.limits)?;
    let limit = params.limit("limit")?.unwrap_or(usize::MAX);
    if params.get("lookback_delta").is_some() {
        return Err(ApiError::execution(QueryError::not_supported("the parameter lookback_delta")));
    }
    within(options, async {
        let limits = state.limits.clone();
        let plan = state.env.tasks.blocking(move || plan(&limits)).await.map_err(ApiError::planning)?;
        let answer = match plan.leaf_request() {
            Some(request) => ask(state, params, request, options).await?,
            None => Answer::default(),
        };
        let (replies, incomplete) = prom_replies(answer)?;
        let budget = CancelledOnDrop(Arc::new(ScanBudget::unlimited()));
        let (limits, for_work) = (state.limits.clone(), budget.0.clone());
        let work = state.env.tasks.blocking(move || {
            let mut answer = promql::evaluate(&plan, replies, &limits, &for_work)?;
            let mut warnings = answer.warnings;
            warnings.extend(incomplete);
            if truncate(&mut answer.data, limit) {
                warnings.insert(TRUNCATED.to_owned());
            }
            Ok::<_, QueryError>(Success::new(&query_data(&answer.data), &warnings, &answer.infos))
        });
        work.await.map_err(ApiError::execution)
    })
    .await
}

/// Keeps the first series; whether there were more.
fn truncate(data: &mut Data, series_max: usize) -> bool {
    let before = match data {
        Data::Vector { samples, .. } => {
            let before = samples.len();
            samples.truncate(series_max);
            before
        }
        Data::Matrix(matrix) => {
            let before = matrix.len();
            matrix.truncate(series_max);
            before
        }
        Data::Scalar { .. } | Data::String { .. } => 0,
    };
    before > series_max
}

/// Ends the evaluation when nobody waits for it any more.
struct CancelledOnDrop(Arc<ScanBudget>);

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The answer, unless the request's time is over.
pub(super) async fn within(options: AskOptions, work: impl Future<Output = Answered>) -> Answered {
    match options.timeout_ms {
        None => work.await,
        Some(timeout_ms) => match tokio::time::timeout(Duration::from_millis(timeout_ms), work).await {
            Ok(answered) => answered,
            Err(_) => Err(ApiError::timeout()),
        },
    }
}

pub(super) async fn ask(
    state: &ReadState,
    params: &Params,
    request: promql::LeafRequest,
    options: AskOptions,
) -> Result<Answer, ApiError> {
    state.ask.ask(&params.tenant, LeafRequest::Prom(request), options).await.map_err(ApiError::execution)
}

/// The replies, and why they may not be all.
pub(super) fn prom_replies(answer: Answer) -> Result<(Vec<promql::LeafReply>, BTreeSet<String>), ApiError> {
    let replies = answer.replies.into_iter().map(|reply| match reply {
        LeafReply::Prom(reply) => Ok(reply),
        LeafReply::Log(_) | LeafReply::Trace(_) => {
            Err(ApiError::internal("a leaf answered another question"))
        }
    });
    Ok((replies.collect::<Result<_, _>>()?, answer.incomplete.into_iter().collect()))
}
