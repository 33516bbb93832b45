//! `index/stats` and `index/volume`. There is no index to ask: both count the rows in range.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use oteld_query::logql::{Labels, LeafReply, LeafRequest, Matcher, QueryResult};
use serde_json::json;
use tokio::time::Instant;

use super::super::ask::ReadState;
use super::error::LokiError;
use super::parameters::{LABELS_SINCE_NANOS, Parameters, QUERY_SINCE_NANOS};
use super::{Found, ask, respond, wrong_reply};

/// Entries and bytes of each stream.
type Volumes = BTreeMap<Labels, (u64, u64)>;

/// Streams, entries and bytes of lines. `chunks` is 0: oteld has none.
pub(super) async fn stats(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let selector = parameters.selector()?.unwrap_or_default();
    let (volumes, found) = volumes(&state, &parameters, selector, QUERY_SINCE_NANOS).await?;
    let entries: u64 = volumes.values().map(|(entries, _)| entries).sum();
    let bytes: u64 = volumes.values().map(|(_, bytes)| bytes).sum();
    let body = json!({"streams": volumes.len(), "chunks": 0, "bytes": bytes, "entries": entries});
    respond::top_level(body, found.incomplete)
}

/// Bytes by label set: of the labels that `targetLabels` names, else of those that the selector names; with
/// `aggregateBy=labels` by label name.
pub(super) async fn volume(
    State(state): State<ReadState>,
    parameters: Parameters,
) -> Result<Response, LokiError> {
    let started = Instant::now();
    let selector = parameters.selector()?.unwrap_or_default();
    let by_name = match parameters.get("aggregateBy") {
        None | Some("series") => false,
        Some("labels") => true,
        Some(other) => return Err(LokiError::bad(format!("invalid aggregateBy '{other}'"))),
    };
    let targets: Vec<String> = parameters
        .get("targetLabels")
        .into_iter()
        .flat_map(|names| names.split(','))
        .map(str::to_owned)
        .collect();
    let limit = parameters.limit()?;
    let end = parameters.times(LABELS_SINCE_NANOS)?.end;
    let shown = if targets.is_empty() && !by_name {
        selector.iter().map(|matcher| matcher.name.clone()).collect()
    } else {
        targets.clone()
    };
    let (volumes, found) = volumes(&state, &parameters, selector, LABELS_SINCE_NANOS).await?;
    let mut bytes: BTreeMap<Labels, u64> = BTreeMap::new();
    for (labels, (_, size)) in volumes {
        if !targets.iter().all(|name| labels.contains_key(name)) {
            continue;
        }
        let shown = labels.into_iter().filter(|(name, _)| shown.is_empty() || shown.contains(name));
        if by_name {
            for (name, _) in shown {
                *bytes.entry(Labels::from([(name, String::new())])).or_default() += size;
            }
        } else {
            *bytes.entry(shown.collect()).or_default() += size;
        }
    }
    let mut samples: Vec<_> = bytes.into_iter().map(|(labels, bytes)| (labels, bytes as f64)).collect();
    // A stable sort: equal volumes stay in order of labels.
    samples.sort_by_key(|(_, bytes)| Reverse(*bytes as u64));
    samples.truncate(limit);
    let spent = respond::Spent {
        rows_scanned: found.rows_scanned,
        bytes_scanned: found.bytes_scanned,
        elapsed: started.elapsed(),
    };
    respond::query(QueryResult::Vector { time_unix_nano: end, samples }, false, spent, found.incomplete)
}

async fn volumes(
    state: &ReadState,
    parameters: &Parameters,
    selector: Vec<Matcher>,
    since_nanos: u64,
) -> Result<(Volumes, Found), LokiError> {
    let request = LeafRequest::Volumes { selector, time_unix_nano: parameters.times(since_nanos)? };
    let mut found = ask(state, parameters, request).await?;
    let mut volumes = Volumes::new();
    for reply in std::mem::take(&mut found.replies) {
        let LeafReply::Volumes(streams) = reply else { return Err(wrong_reply()) };
        for stream in streams {
            let volume = volumes.entry(stream.labels).or_default();
            *volume = (volume.0 + stream.entries, volume.1 + stream.bytes);
        }
    }
    Ok((volumes, found))
}
