//! The oteld node: fronts, storage nodes and meta members in one binary.

pub mod config;
pub mod dev;
pub mod faults;
pub mod server;
pub mod telemetry;
pub mod tenancy;
pub mod view;
pub mod rpc;
pub mod write;
pub mod repair;
pub mod read;
pub mod admin;
