//! Why a query has no answer.

use std::fmt;

use oteld_store::scan::ScanError;
use serde::{Deserialize, Serialize};

/// What a caller can do about it; each API maps it to its own status and error type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryErrorKind {
    /// The query or a parameter is wrong.
    BadQuery,
    /// The query is right, and oteld cannot answer it yet.
    NotSupported,
    /// A limit stopped it; the message names the limit.
    Limit,
    Timeout,
    Cancelled,
    /// Nobody who could answer was reached.
    Unavailable,
    Internal,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryError {
    pub kind: QueryErrorKind,
    pub message: String,
}

impl QueryError {
    pub fn new(kind: QueryErrorKind, message: impl Into<String>) -> Self {
        QueryError { kind, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        QueryError::new(QueryErrorKind::BadQuery, message)
    }

    /// For what is valid in the language and not built: names it, never answers empty.
    pub fn not_supported(what: impl fmt::Display) -> Self {
        QueryError::new(QueryErrorKind::NotSupported, format!("{what} is not supported yet"))
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for QueryError {}

impl From<ScanError> for QueryError {
    fn from(error: ScanError) -> Self {
        let kind = match &error {
            ScanError::Cancelled => QueryErrorKind::Cancelled,
            ScanError::Limit { .. } => QueryErrorKind::Limit,
            ScanError::Damaged { .. } => QueryErrorKind::Internal,
        };
        QueryError::new(kind, error.to_string())
    }
}
