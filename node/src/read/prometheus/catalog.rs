//! What there is: `labels`, `label/…/values`, `series`, `metadata`.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use oteld_query::QueryError;
use oteld_query::promql::{Catalog, CatalogWhat, LeafRequest, Matcher, merge_catalogs};

use super::super::ask::ReadState;
use super::error::ApiError;
use super::params::{Params, parse_selectors, unescape_label_name};
use super::query::{TRUNCATED, ask, now_ms, prom_replies, within};
use super::respond::{Answered, Success, series_data, strings_data};

/// Metadata are of the metrics that reported in this time: there is no scrape that would know them.
const METADATA_MS: i64 = 6 * 3600 * 1000;

pub(super) async fn labels(State(state): State<ReadState>, params: Params) -> Answered {
    look_up(&state, &params, CatalogWhat::LabelNames).await
}

pub(super) async fn label_values(
    State(state): State<ReadState>,
    Path(name): Path<String>,
    params: Params,
) -> Answered {
    look_up(&state, &params, CatalogWhat::LabelValues(unescape_label_name(&name))).await
}

pub(super) async fn series(State(state): State<ReadState>, params: Params) -> Answered {
    look_up(&state, &params, CatalogWhat::Series).await
}

pub(super) async fn metadata(State(state): State<ReadState>, params: Params) -> Answered {
    let only = params.get("metric").map(str::to_owned);
    look_up(&state, &params, CatalogWhat::Metadata(only)).await
}

async fn look_up(state: &ReadState, params: &Params, what: CatalogWhat) -> Answered {
    let (start_ms, end_ms) = match &what {
        CatalogWhat::Metadata(_) => (now_ms(state) - METADATA_MS, now_ms(state)),
        // Without a time everything is meant.
        _ => (params.time_ms("start")?.unwrap_or(0), params.time_ms("end")?.unwrap_or(i64::MAX)),
    };
    if end_ms < start_ms {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let limit = Limit { entries: params.limit("limit")?, per_metric: params.limit("limit_per_metric")? };
    let options = params.ask_options(&state.limits)?;
    let selectors: Vec<Vec<Matcher>> = {
        let limits = state.limits.clone();
        let texts = params.matches();
        state.env.tasks.blocking(move || parse_selectors(&texts, &limits)).await?
    };
    if what == CatalogWhat::Series && selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    within(options, async {
        let request = LeafRequest::Catalog { selectors, start_ms: start_ms - 1, end_ms, what: what.clone() };
        let (replies, warnings) = prom_replies(ask(state, params, request, options).await?)?;
        let limits = state.limits.clone();
        let merged = state.env.tasks.blocking(move || {
            let catalog = merge_catalogs(replies, &what, &limits)?;
            Ok::<_, QueryError>(render(catalog, limit, warnings))
        });
        merged.await.map_err(ApiError::execution)
    })
    .await
}

#[derive(Clone, Copy)]
struct Limit {
    entries: Option<usize>,
    per_metric: Option<usize>,
}

fn render(catalog: Catalog, limit: Limit, mut warnings: BTreeSet<String>) -> Success {
    let entries = limit.entries.unwrap_or(usize::MAX);
    let mut truncated = |length: usize| {
        if length > entries {
            warnings.insert(TRUNCATED.to_owned());
        }
    };
    let data = match catalog {
        Catalog::Strings(strings) => {
            truncated(strings.len());
            strings_data(strings.iter().take(entries))
        }
        Catalog::Series(series) => {
            truncated(series.len());
            series_data(series.iter().take(entries))
        }
        Catalog::Metadata(families) => {
            let per_metric = limit.per_metric.unwrap_or(usize::MAX);
            let kept = families.into_iter().take(entries).map(|(family, entries)| {
                let entries: Vec<_> = entries
                    .iter()
                    .take(per_metric)
                    .map(|entry| {
                        serde_json::json!({ "type": entry.kind, "help": entry.help, "unit": entry.unit })
                    })
                    .collect();
                (family, serde_json::Value::from(entries))
            });
            serde_json::Value::Object(kept.collect()).to_string()
        }
    };
    Success::new(&data, &warnings, &BTreeSet::new())
}
