//! Fault injection for oteld: workloads whose items verify themselves, faults, histories, and checkers, one file a
//! promise.

pub mod workload;
pub mod history;
pub mod sim;
pub mod checker;
