//! The Prometheus HTTP API through its router, over rows in memory.

mod catalog;
mod query;
mod world;
