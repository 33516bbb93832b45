//! What one query may use. Reaching a limit is an error that names it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub timeout_ms: u64,
    /// Characters of query text.
    pub query_length_max: usize,
    /// Series that a query may select, on each leaf and in all.
    pub series_max: usize,
    /// Samples that a query may hold in memory, on each leaf and in all.
    pub samples_max: usize,
    /// Log lines or traces that a reply may hold.
    pub entries_max: usize,
    /// Steps of a range query.
    pub steps_max: usize,
    /// Rows decoded on each leaf.
    pub rows_scanned_max: u64,
    /// Stored bytes read on each leaf.
    pub bytes_scanned_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout_ms: 60_000,
            query_length_max: 16_384,
            series_max: 100_000,
            samples_max: 50_000_000,
            entries_max: 5_000,
            steps_max: 11_000,
            rows_scanned_max: 200_000_000,
            bytes_scanned_max: 64 << 30,
        }
    }
}
