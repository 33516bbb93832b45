//! Moves, carried from their first step to their last (PROTOCOL, MOVE), and the stores that a move leaves behind.

pub mod steps;
pub mod ask;
pub mod driver;
pub mod leaver;
