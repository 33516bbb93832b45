//! `jepsen-lite check DIR`: judges a history that a run has left.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jepsen_lite::report;
use jepsen_lite::verdict::judge;

#[derive(Args)]
pub(crate) struct CheckOptions {
    /// Directory of a run, or of `replay --dir`
    dir: PathBuf,
    /// Write the report to this file too
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Prints what the history comes to; the exit status says it too.
///
/// # Errors
/// When there is no history, or what is there is none, or the report cannot be written.
pub(crate) fn check(options: &CheckOptions) -> Result<ExitCode, String> {
    let verdict = judge(&options.dir)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{verdict}").map_err(|error| format!("cannot print: {error}"))?;
    if let Some(path) = &options.report {
        report::write(&options.dir, path)?;
        let _ = writeln!(out, "report: {}", path.display());
    }
    Ok(ExitCode::from(verdict.result.status()))
}
