//! The read path of a front: http → parse → plan → fan out → leaf → merge → respond.

pub mod http;
pub mod prometheus;
pub mod loki;
pub mod jaeger;
pub mod tempo;
mod traces;
pub mod ask;
pub mod fan_out;
pub mod leaf;
pub mod complete;
