//! The binaries end to end: real processes, sockets and disks, with SIGKILL for faults.

#![allow(clippy::disallowed_methods, reason = "drives real processes from outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod dev;
mod faults;
mod moves;
mod power;
mod restart;
mod retries;
mod signals;
mod status;

mod harness;
mod load;
#[path = "../ports/mod.rs"]
mod ports;
mod process;
mod send;
mod show;
