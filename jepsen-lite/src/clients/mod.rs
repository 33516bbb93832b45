//! What puts load on a cluster and records what it was answered.

pub mod meta;
