//! What one scan may use, and what it has used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ScanError;

/// Limits and counters of one query on one node. Shared by the threads that work for it.
#[derive(Debug)]
pub struct ScanBudget {
    rows_max: u64,
    bytes_max: u64,
    series_max: u64,
    used: Arc<Used>,
}

#[derive(Debug, Default)]
struct Used {
    rows: AtomicU64,
    bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl ScanBudget {
    /// At most `rows_max` rows decoded and `bytes_max` stored bytes read.
    pub fn new(rows_max: u64, bytes_max: u64) -> Self {
        ScanBudget { rows_max, bytes_max, series_max: u64::MAX, used: Arc::default() }
    }

    /// No limits.
    pub fn unlimited() -> Self {
        ScanBudget::new(u64::MAX, u64::MAX)
    }

    /// The same budget for a scan that holds points of at most `series_max` series, which it gathers before it shows
    /// the first.
    #[must_use]
    pub fn with_series_max(&self, series_max: usize) -> Self {
        ScanBudget { series_max: series_max as u64, used: self.used.clone(), ..*self }
    }

    /// Accounts for a block of `rows` in `bytes`, before it is decoded.
    pub fn spend(&self, rows: u64, bytes: u64) -> Result<(), ScanError> {
        let used = &self.used;
        if used.cancelled.load(Ordering::Relaxed) {
            return Err(ScanError::Cancelled);
        }
        if used.rows.fetch_add(rows, Ordering::Relaxed).saturating_add(rows) > self.rows_max {
            return Err(ScanError::Limit { what: "rows scanned", limit: self.rows_max });
        }
        if used.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.bytes_max {
            return Err(ScanError::Limit { what: "bytes scanned", limit: self.bytes_max });
        }
        Ok(())
    }

    /// Checks how many series a scan holds.
    pub fn hold_series(&self, count: usize) -> Result<(), ScanError> {
        if count as u64 > self.series_max {
            return Err(ScanError::Limit { what: "series", limit: self.series_max });
        }
        Ok(())
    }

    /// Makes the scan stop at its next block.
    pub fn cancel(&self) {
        self.used.cancelled.store(true, Ordering::Relaxed);
    }

    /// Rows decoded so far.
    pub fn rows(&self) -> u64 {
        self.used.rows.load(Ordering::Relaxed)
    }

    /// Stored bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.used.bytes.load(Ordering::Relaxed)
    }
}
