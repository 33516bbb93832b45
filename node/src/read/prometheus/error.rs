//! Errors as the Prometheus API gives them: `{"status":"error","errorType":…,"error":…}`.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use oteld_query::{QueryError, QueryErrorKind};

/// nginx's status for a client that went away, which Prometheus uses for a cancelled query.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// An error with Prometheus' type and HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    kind: &'static str,
    status: u16,
    message: String,
}

impl ApiError {
    /// A parameter is wrong.
    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        ApiError { kind: "bad_data", status: 400, message: message.into() }
    }

    pub(super) fn bad_parameter(name: &str, message: impl std::fmt::Display) -> Self {
        ApiError::bad_data(format!("invalid parameter {name:?}: {message}"))
    }

    pub(super) fn timeout() -> Self {
        let message = "query timed out in expression evaluation".to_owned();
        ApiError { kind: "timeout", status: 503, message }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        ApiError { kind: "internal", status: 500, message: message.into() }
    }

    /// An error of parsing and planning.
    pub(super) fn planning(error: QueryError) -> Self {
        match error.kind {
            QueryErrorKind::BadQuery => ApiError::bad_data(error.message),
            _ => ApiError::execution(error),
        }
    }

    /// An error of evaluation: the query was right, and the data or the limits did not allow it.
    pub(super) fn execution(error: QueryError) -> Self {
        let (kind, status) = match error.kind {
            QueryErrorKind::BadQuery | QueryErrorKind::NotSupported | QueryErrorKind::Limit => {
                ("execution", 422)
            }
            QueryErrorKind::Timeout => ("timeout", 503),
            QueryErrorKind::Cancelled => ("canceled", CLIENT_CLOSED_REQUEST),
            QueryErrorKind::Unavailable => ("unavailable", 503),
            QueryErrorKind::Internal => ("internal", 500),
        };
        ApiError { kind, status, message: error.message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "status": "error", "errorType": self.kind, "error": self.message });
        let status = StatusCode::from_u16(self.status).expect("the statuses above are valid");
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}
