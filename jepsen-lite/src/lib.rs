//! Fault injection for oteld: workloads whose items verify themselves, faults, histories, and checkers, one file a
//! promise.

pub mod timeline;
pub mod workload;
pub mod clients;
pub mod nemesis;
pub mod history;
pub mod sim;
pub mod simulations;
pub mod planted;
pub mod shrink;
pub mod driver;
pub mod local;
pub mod compose;
pub mod coverage;
pub mod checker;
pub mod verdict;
pub mod report;
