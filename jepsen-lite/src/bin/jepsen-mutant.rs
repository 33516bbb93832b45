//! One seed of the simulation, built with planted bugs of which one can be switched on: a binary of another name, so
//! that nobody takes it for the other.

#[path = "../simulator.rs"]
mod simulator;

use std::process::ExitCode;

fn main() -> ExitCode {
    simulator::main()
}
