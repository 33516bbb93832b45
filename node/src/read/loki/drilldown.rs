//! `drilldown-limits`: what Grafana's app for logs may ask for, by which it decides what to show.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::ask::ReadState;

/// Names as in Loki's configuration, `limits_config`. Patterns are not built, and the app does not ask for them then.
pub(super) async fn limits(State(state): State<ReadState>) -> Json<Value> {
    Json(json!({
        "limits": {
            "discover_log_levels": true,
            "max_entries_limit_per_query": state.limits.entries_max,
            "max_query_series": state.limits.series_max,
            "query_timeout": format!("{}ms", state.limits.timeout_ms),
            "volume_enabled": true,
        },
        "pattern_ingester_enabled": false,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
