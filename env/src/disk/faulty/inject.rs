//! Faults that a test asked for, and how many of them really struck: one that struck nothing proves nothing.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::disk::On;
use crate::faults::{DiskFault, DiskFaultKind, Struck};

/// What is armed, and what has struck.
#[derive(Debug, Default)]
pub(super) struct Injections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    armed: Vec<DiskFault>,
    /// Bytes that can still be written; `None` is as many as the file system has.
    capacity_bytes: Option<u64>,
    struck: Struck,
}

impl Injections {
    pub(super) fn arm(&self, fault: DiskFault) {
        self.0.lock().armed.push(fault);
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.armed.clear();
        state.capacity_bytes = None;
    }

    pub(super) fn struck(&self) -> Struck {
        self.0.lock().struck
    }

    pub(super) fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.0.lock().capacity_bytes = bytes;
    }

    pub(super) fn capacity_bytes(&self) -> Option<u64> {
        self.0.lock().capacity_bytes
    }

    /// Takes `bytes` of what can still be written.
    pub(super) fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        match state.capacity_bytes {
            Some(left) if left < bytes => {
                state.struck.no_space += 1;
                Err(Errno::NOSPC.into())
            }
            Some(left) => {
                state.capacity_bytes = Some(left - bytes);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Gives the bytes of a file that is gone back.
    pub(super) fn release(&self, bytes: u64) {
        if let Some(left) = &mut self.0.lock().capacity_bytes {
            *left = left.saturating_add(bytes);
        }
    }

    /// Counts an operation, makes it wait where the disk is slow, and says what it fails with.
    pub(super) fn strike(&self, on: On) -> io::Result<()> {
        let (failure, wait_ms) = self.0.lock().strike(on);
        if wait_ms > 0 {
            wait(Duration::from_millis(wait_ms));
        }
        failure.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl State {
    fn strike(&mut self, on: On) -> (Option<Errno>, u64) {
        let (mut failure, mut wait_ms) = (None, 0);
        let struck = &mut self.struck;
        self.armed.retain_mut(|fault| {
            if fault.on != on && !(fault.on == On::AnyChange && on != On::Read) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            match fault.fault {
                DiskFaultKind::Slow => {
                    struck.slow += 1;
                    wait_ms = fault.ms.max(wait_ms);
                }
                DiskFaultKind::Eio if failure.is_none() => {
                    struck.eio += 1;
                    failure = Some(Errno::IO);
                }
                DiskFaultKind::NoSpace if failure.is_none() => {
                    struck.no_space += 1;
                    failure = Some(Errno::NOSPC);
                }
                // Another fault struck this operation; this one is for a later one.
                DiskFaultKind::Eio | DiskFaultKind::NoSpace => return true,
            }
            match &mut fault.count {
                None => true,
                Some(left) => {
                    *left = left.saturating_sub(1);
                    *left > 0
                }
            }
        });
        (failure, wait_ms)
    }
}

#[allow(clippy::disallowed_methods, reason = "a slow disk blocks its thread, and the simulation has none")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
