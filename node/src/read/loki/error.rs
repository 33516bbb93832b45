//! Errors as Loki sends them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use oteld_query::{QueryError, QueryErrorKind};
use serde_json::json;

/// What Loki answers with when the client has gone away.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A status and what it is about.
#[derive(Debug)]
pub(super) struct LokiError {
    status: StatusCode,
    message: String,
}

impl LokiError {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        LokiError::status(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        LokiError::status(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn status(status: StatusCode, message: impl Into<String>) -> Self {
        LokiError { status, message: message.into() }
    }
}

impl From<QueryError> for LokiError {
    fn from(error: QueryError) -> Self {
        let status = match error.kind {
            // Loki's limits are the query's fault too.
            QueryErrorKind::BadQuery | QueryErrorKind::Limit => StatusCode::BAD_REQUEST,
            QueryErrorKind::NotSupported => StatusCode::NOT_IMPLEMENTED,
            QueryErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            QueryErrorKind::Cancelled => {
                StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
            }
            QueryErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            QueryErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        LokiError { status, message: error.message }
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        let LokiError { status, message } = self;
        let body = json!({"code": status.as_u16(), "status": "error", "message": message});
        (status, Json(body)).into_response()
    }
}
