//! Checkers against histories of a model that keeps every promise, and against the same broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod model;
mod clean;
mod lost;
mod counted;
mod nodes;
mod proven;
mod speed;
