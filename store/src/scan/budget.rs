//! What one scan may use, and what it has used.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ScanError;

/// Limits and counters of one query on one node. Shared by the threads that work for it.
#[derive(Debug)]
pub struct ScanBudget {
    rows_max: u64,
    bytes_max: u64,
    rows: AtomicU64,
    bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl ScanBudget {
    /// At most `rows_max` rows decoded and `bytes_max` stored bytes read.
    pub fn new(rows_max: u64, bytes_max: u64) -> Self {
        ScanBudget {
            rows_max,
            bytes_max,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }

    /// No limits.
    pub fn unlimited() -> Self {
        ScanBudget::new(u64::MAX, u64::MAX)
    }

    /// Accounts for a block of `rows` in `bytes`, before it is decoded.
    pub fn spend(&self, rows: u64, bytes: u64) -> Result<(), ScanError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(ScanError::Cancelled);
        }
        if self.rows.fetch_add(rows, Ordering::Relaxed).saturating_add(rows) > self.rows_max {
            return Err(ScanError::Limit { what: "rows scanned", limit: self.rows_max });
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.bytes_max {
            return Err(ScanError::Limit { what: "bytes scanned", limit: self.bytes_max });
        }
        Ok(())
    }

    /// Makes the scan stop at its next block.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Rows decoded so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Stored bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
