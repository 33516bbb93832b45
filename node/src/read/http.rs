//! The query APIs of a front, each under its own prefix.

use axum::Router;

use super::ask::ReadState;
use super::{jaeger, loki, prometheus, tempo};

/// All query APIs.
pub fn router(state: ReadState) -> Router {
    Router::new()
        .merge(prometheus::router())
        .merge(loki::router())
        .merge(jaeger::router())
        .merge(tempo::router())
        .with_state(state)
}
