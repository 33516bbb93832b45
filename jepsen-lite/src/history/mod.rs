//! What happened, as the clients saw it: the only thing that checkers look at.

pub mod event;
pub mod ranges;
pub mod file;
pub mod recorder;
