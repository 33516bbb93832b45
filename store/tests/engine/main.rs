//! The store as its callers see it, on a disk that crashes, fills up and fails.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod gate;
mod world;

mod appends;
mod damage;
mod histories;
mod leave;
mod overlaps;
mod points;
mod races;
mod scans;
mod snapshots;
mod tasks;
