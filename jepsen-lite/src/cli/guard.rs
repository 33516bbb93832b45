//! The hidden command through which the local driver starts processes: they end when the tool does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jepsen_lite::local::process;

#[derive(Args)]
pub(super) struct GuardOptions {
    /// The process that must be the parent
    parent: u32,
    program: PathBuf,
    arguments: Vec<OsString>,
}

pub(super) fn guard(options: &GuardOptions) -> Result<ExitCode, String> {
    let error = process::guard(options.parent, &options.program, &options.arguments);
    Err(format!("cannot become {}: {error}", options.program.display()))
}
