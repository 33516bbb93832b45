//! Label names and values, series, detected labels: all from the label sets of the streams in range.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use oteld_query::logql::{Labels, LeafReply, LeafRequest, Matcher};
use serde_json::json;

use super::super::ask::ReadState;
use super::error::LokiError;
use super::parameters::{LABELS_SINCE_NANOS, Parameters};
use super::{Found, ask, respond, wrong_reply};

/// Names of stream labels.
pub(super) async fn names(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let selectors = parameters.selector()?.into_iter().collect();
    let (streams, incomplete) = streams(&state, &parameters, selectors).await?;
    let names: BTreeSet<_> = streams.into_iter().flat_map(Labels::into_keys).collect();
    respond::data(&names, incomplete)
}

/// Values of one stream label.
pub(super) async fn values(
    State(state): State<ReadState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let selectors = parameters.selector()?.into_iter().collect();
    let (streams, incomplete) = streams(&state, &parameters, selectors).await?;
    let values: BTreeSet<_> = streams.into_iter().filter_map(|mut labels| labels.remove(&name)).collect();
    respond::data(&values, incomplete)
}

/// Label sets of the streams that fit one of `match[]`.
pub(super) async fn series(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let selectors = parameters.selectors()?;
    let (streams, incomplete) = streams(&state, &parameters, selectors).await?;
    respond::data(&streams, incomplete)
}

/// Stream labels with the number of their values.
pub(super) async fn detected(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let selectors = parameters.selector()?.into_iter().collect();
    let (streams, incomplete) = streams(&state, &parameters, selectors).await?;
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in streams.into_iter().flatten() {
        values.entry(name).or_default().insert(value);
    }
    let labels = values.into_iter().map(|(name, values)| json!({"label": name, "cardinality": values.len()}));
    respond::top_level(json!({"detectedLabels": labels.collect::<Vec<_>>()}), incomplete)
}

/// Label sets over all leaves, each once.
async fn streams(
    state: &ReadState,
    parameters: &Parameters,
    selectors: Vec<Vec<Matcher>>,
) -> Result<(BTreeSet<Labels>, Vec<String>), LokiError> {
    let time_unix_nano = parameters.times(LABELS_SINCE_NANOS)?;
    let request = LeafRequest::Streams { selectors, time_unix_nano };
    let Found { replies, incomplete, .. } = ask(state, parameters, request).await?;
    let mut streams = BTreeSet::new();
    for reply in replies {
        let LeafReply::Streams(found) = reply else { return Err(wrong_reply()) };
        streams.extend(found);
    }
    Ok((streams, incomplete))
}
