//! How replicas come to hold the same: each tails its peers (PROTOCOL, PULL), and shards move between stores (MOVE).

pub mod tail;
pub mod lanes;
pub mod tails;
pub mod snapshots;
pub mod catch_up;
pub mod moves;
