//! How replicas come to hold the same: each tails its peers (PROTOCOL, PULL).

pub mod tail;
pub mod lanes;
pub mod tails;
pub mod snapshots;
pub mod catch_up;
