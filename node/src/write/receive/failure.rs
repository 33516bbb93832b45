//! Failures of a request, and how OTLP says them: a gRPC status or an HTTP status, which tell the client whether to
//! send the request again (OTLP specification 1.x, "Failures").

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::write::admit::{AdmitError, RETRY_AFTER};
use crate::write::decode::DecodeError;
use crate::write::request::WriteError;

/// Where a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Receive,
    Admit,
    Write,
}

/// Why a request was not acknowledged, in the terms of both protocols.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) code: Code,
    pub(super) http: StatusCode,
    pub(super) message: String,
    /// Set where sending the same request again can help.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// What was received cannot be used.
    pub(super) fn receive(code: Code, http: StatusCode, message: impl Into<String>) -> Self {
        Failure { stage: Stage::Receive, code, http, message: message.into(), retry_after: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Failure::receive(Code::InvalidArgument, StatusCode::BAD_REQUEST, message)
    }

    /// Whether more of the body may still come.
    pub(super) fn leaves_a_body(&self) -> bool {
        !matches!(self.code, Code::DeadlineExceeded | Code::Cancelled)
    }

    /// As a gRPC status, with `google.rpc.RetryInfo` where a retry can help: OTLP clients give up on
    /// RESOURCE_EXHAUSTED without it.
    pub(super) fn to_status(&self) -> Status {
        let details = match self.retry_after {
            Some(delay) => ErrorDetails::with_retry_info(Some(delay)),
            None => ErrorDetails::new(),
        };
        Status::with_error_details(self.code, &self.message, details)
    }

    /// `google.rpc.Status` in the protobuf JSON form.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut status = json!({ "code": self.code as i32, "message": self.message });
        if let Some(delay) = self.retry_after {
            status["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{}s", delay.as_secs_f64()),
            }]);
        }
        status
    }
}

impl From<AdmitError> for Failure {
    fn from(error: AdmitError) -> Self {
        let (http, retry_after) = match error {
            AdmitError::Overloaded { .. } => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_AFTER)),
            AdmitError::TooLarge { .. } | AdmitError::TooLargeDecoded { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, None)
            }
        };
        Failure {
            stage: Stage::Admit,
            code: Code::ResourceExhausted,
            http,
            message: error.to_string(),
            retry_after,
        }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Admit(error) => error.into(),
            error => Failure::invalid(error.to_string()),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        let (code, http, retry_after) = match error {
            WriteError::Overloaded { retry_after, .. } => {
                (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, Some(retry_after))
            }
            WriteError::Unavailable { retry_after, .. } | WriteError::ReadOnly { retry_after, .. } => {
                (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some(retry_after))
            }
            WriteError::Conflict { .. } => (Code::AlreadyExists, StatusCode::CONFLICT, None),
            WriteError::Internal { .. } => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Failure { stage: Stage::Write, code, http, message, retry_after }
    }
}
