//! Between nodes: who may say what to whom, connections, and the service that answers.

pub mod fence;
pub mod peers;
pub mod service;
