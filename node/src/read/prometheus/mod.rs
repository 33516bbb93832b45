//! The Prometheus HTTP API (prometheus.io/docs/prometheus/latest/querying/api), under `/prometheus/api/v1` and
//! `/api/v1`, by GET and by form POST.
//!
//! One thing is oteld's own: `consistency=eventual` skips the completeness check. An answer that may miss rows says so
//! in `warnings`.

mod catalog;
mod error;
mod params;
mod query;
mod respond;
mod status;

use axum::Router;
use axum::routing::{MethodRouter, get};

use super::ask::ReadState;

/// All routes, with their full paths.
pub fn router() -> Router<ReadState> {
    let routes: [(&str, MethodRouter<ReadState>); 12] = [
        ("query", get(query::query).post(query::query)),
        ("query_range", get(query::query_range).post(query::query_range)),
        ("query_exemplars", get(query::query_exemplars).post(query::query_exemplars)),
        ("format_query", get(query::format_query).post(query::format_query)),
        ("labels", get(catalog::labels).post(catalog::labels)),
        ("label/{name}/values", get(catalog::label_values)),
        ("series", get(catalog::series).post(catalog::series)),
        ("metadata", get(catalog::metadata)),
        ("status/buildinfo", get(status::buildinfo)),
        ("rules", get(status::rules)),
        ("alerts", get(status::alerts)),
        ("alertmanagers", get(status::alertmanagers)),
    ];
    let mut router = Router::new();
    for (path, handler) in routes {
        for prefix in ["/prometheus/api/v1", "/api/v1"] {
            router = router.route(&format!("{prefix}/{path}"), handler.clone());
        }
    }
    router
}
