//! Faults: which kinds there are, and which strike when.

pub mod fault;
