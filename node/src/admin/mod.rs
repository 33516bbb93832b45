//! The admin API: what `otelctl` shows. Its types are those of the client crate.

pub mod http;
pub mod gather;
pub mod own;
pub mod verdict;
