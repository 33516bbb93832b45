//! The APIs of Jaeger and Tempo through their routers, over rows in memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod jaeger;
mod shop;
mod tempo;
