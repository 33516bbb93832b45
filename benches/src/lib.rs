//! Load generator and null server: what a node costs, as a ratio to a server that only decodes.
//!
//! In the order of a run: requests are generated and encoded once ([`generate`], [`pool`]), sent ([`send`],
//! [`load`]), and measured ([`latency`], [`cpu`], [`report`]).
#![allow(
    clippy::disallowed_methods,
    reason = "measuring tools run on the real clock and network, never in simulation"
)]

pub mod cpu;
pub mod generate;
pub mod latency;
pub mod load;
pub mod pool;
pub mod report;
pub mod send;
pub mod signal;
