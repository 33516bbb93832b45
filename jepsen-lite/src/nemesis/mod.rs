//! Faults: which kinds there are, and which strike when. Pure; the drivers carry them out.

pub mod fault;
pub mod topology;
pub mod partition;
pub mod schedule;
mod pick;
