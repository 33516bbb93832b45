//! The local driver: real `oteld` processes on loopback, a proxy for every directed link between them, and faults that
//! are carried out on both.

pub mod link;
mod proxy;
pub mod mesh;
pub mod process;
mod node;
pub mod cluster;
mod control;
mod flip;
pub mod nemesis;
mod ask;
pub mod sample;
mod run;

pub use self::run::{Progress, Settings, Stage, Work, Worked, run};
