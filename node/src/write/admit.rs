//! Admission: a fixed memory budget for the requests in flight, in bytes. What does not fit is refused whole, with
//! a retry delay, and never waits in a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;

/// How long an overloaded front asks its senders to wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Memory is taken from the budget in steps of this many bytes, so that small charges stay off the shared counter.
const STEP: usize = 16 << 10;

/// How many bytes of decoded rows a byte of a request may become. Telemetry from SDKs stays below 6; messages made
/// of empty elements reach 50.
const EXPANSION_MAX: usize = 8;

/// Bounds of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmitOptions {
    /// Largest request, uncompressed, in bytes.
    pub message_bytes_max: usize,
    /// Memory of all requests in flight: bodies as received, uncompressed, and decoded.
    pub memory_bytes_max: usize,
}

impl Default for AdmitOptions {
    fn default() -> Self {
        AdmitOptions { message_bytes_max: 64 << 20, memory_bytes_max: 512 << 20 }
    }
}

/// Why a request was refused whole.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AdmitError {
    #[error(
        "the front's memory budget of {memory_bytes_max} bytes for requests in flight is used up; try again later"
    )]
    Overloaded { memory_bytes_max: usize },
    #[error("the request is larger than the limit of {message_bytes_max} uncompressed bytes")]
    TooLarge { message_bytes_max: usize },
    #[error(
        "the request needs more than {request_bytes_max} bytes of memory once decoded; send smaller batches"
    )]
    TooLargeDecoded { request_bytes_max: usize },
}

/// The budget. One for all receivers of a front.
#[derive(Debug)]
pub struct Admission {
    options: AdmitOptions,
    used: AtomicUsize,
    admitted: AtomicU64,
    overloaded: AtomicU64,
    too_large: AtomicU64,
}

/// What admission has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionSnapshot {
    /// Bytes that requests in flight hold now.
    pub used_bytes: u64,
    /// Requests that were given a ticket.
    pub admitted: u64,
    /// Requests refused because the budget was used up.
    pub overloaded: u64,
    /// Requests refused for their size.
    pub too_large: u64,
}

impl Admission {
    pub fn new(options: AdmitOptions) -> Arc<Self> {
        Arc::new(Admission {
            options,
            used: AtomicUsize::new(0),
            admitted: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
        })
    }

    pub fn options(&self) -> AdmitOptions {
        self.options
    }

    /// A ticket for one request, which holds nothing yet.
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        Ticket { admission: self.clone(), held: 0, unspent: 0 }
    }

    pub fn snapshot(&self) -> AdmissionSnapshot {
        AdmissionSnapshot {
            used_bytes: self.used.load(Ordering::Relaxed) as u64,
            admitted: self.admitted.load(Ordering::Relaxed),
            overloaded: self.overloaded.load(Ordering::Relaxed),
            too_large: self.too_large.load(Ordering::Relaxed),
        }
    }

    /// Most bytes that one request may hold: never more than the whole budget, so that what is refused as
    /// overload would fit on an idle node.
    fn request_bytes_max(&self) -> usize {
        self.options.message_bytes_max.saturating_mul(EXPANSION_MAX).min(self.options.memory_bytes_max)
    }

    fn take(&self, bytes: usize) -> Result<(), AdmitError> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let fits = |used: &usize| {
                *used <= self.options.memory_bytes_max || oteld_env::mutant("admission-skipped")
            };
            used.checked_add(bytes).filter(fits)
        });
        if taken.is_ok() {
            return Ok(());
        }
        self.overloaded.fetch_add(1, Ordering::Relaxed);
        Err(AdmitError::Overloaded { memory_bytes_max: self.options.memory_bytes_max })
    }
}

/// The memory of one request in flight; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    held: usize,
    unspent: usize,
}

impl Ticket {
    /// Charges `bytes` to the budget.
    ///
    /// # Errors
    /// [`AdmitError::Overloaded`] when others hold too much, [`AdmitError::TooLargeDecoded`] when this request does.
    #[inline]
    pub fn charge(&mut self, bytes: usize) -> Result<(), AdmitError> {
        if bytes <= self.unspent {
            self.unspent -= bytes;
            return Ok(());
        }
        self.charge_step(bytes)
    }

    #[cold]
    fn charge_step(&mut self, bytes: usize) -> Result<(), AdmitError> {
        let request_bytes_max = self.admission.request_bytes_max();
        let missing = bytes - self.unspent;
        let room = request_bytes_max.saturating_sub(self.held);
        if missing > room {
            self.admission.too_large.fetch_add(1, Ordering::Relaxed);
            return Err(AdmitError::TooLargeDecoded { request_bytes_max });
        }
        let step = missing.max(STEP).min(room);
        self.admission.take(step)?;
        self.held += step;
        self.unspent = self.unspent + step - bytes;
        Ok(())
    }

    /// Fails when a message of `bytes` uncompressed bytes is over the limit.
    pub fn check_message(&self, bytes: usize) -> Result<(), AdmitError> {
        let message_bytes_max = self.message_bytes_max();
        if bytes <= message_bytes_max || oteld_env::mutant("bomb-not-limited") {
            return Ok(());
        }
        self.admission.too_large.fetch_add(1, Ordering::Relaxed);
        Err(AdmitError::TooLarge { message_bytes_max })
    }

    /// Largest message, uncompressed, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.admission.options.message_bytes_max
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Admission::new(AdmitOptions { message_bytes_max: 100_000, memory_bytes_max: 1_000_000 })
    }

    #[test]
    fn a_dropped_ticket_gives_its_memory_back() {
        let admission = admission();
        let mut ticket = admission.ticket();
        ticket.charge(500_000).unwrap();
        assert!(admission.snapshot().used_bytes >= 500_000);
        drop(ticket);
        assert_eq!(admission.snapshot().used_bytes, 0);
    }

    #[test]
    fn what_others_hold_is_overload_and_what_one_holds_is_too_large() {
        let admission = admission();
        let (mut one, mut other) = (admission.ticket(), admission.ticket());
        one.charge(700_000).unwrap();
        assert_eq!(other.charge(400_000), Err(AdmitError::Overloaded { memory_bytes_max: 1_000_000 }));
        assert_eq!(one.charge(200_000), Err(AdmitError::TooLargeDecoded { request_bytes_max: 800_000 }));
        drop(one);
        other.charge(400_000).unwrap();
        assert_eq!((admission.snapshot().overloaded, admission.snapshot().too_large), (1, 1));
    }

    #[test]
    fn what_is_left_of_a_step_is_spent_before_more_is_taken() {
        let admission = admission();
        let mut ticket = admission.ticket();
        ticket.charge(1).unwrap();
        ticket.charge(STEP).unwrap();
        ticket.charge(STEP - 1).unwrap();
        assert_eq!(admission.snapshot().used_bytes, 2 * STEP as u64);
        ticket.charge(5 * STEP).unwrap();
        assert_eq!(admission.snapshot().used_bytes, 7 * STEP as u64);
    }

    #[test]
    fn small_charges_never_exceed_what_is_held() {
        let admission = admission();
        let mut ticket = admission.ticket();
        for charged in 1..200_u64 {
            ticket.charge(1000).unwrap();
            assert!(admission.snapshot().used_bytes >= charged * 1000);
        }
    }
}
