//! One seed of the simulation.

#[path = "../simulator.rs"]
mod simulator;

use std::process::ExitCode;

fn main() -> ExitCode {
    simulator::main()
}
