//! One process of the binaries under test: its ports, its log, and its end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that a busy machine does in a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`], naming `what` and what was seen last.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = match ask().await {
            Ok(answer) => return answer,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; last seen: {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where the binaries are: `OTELD_BINARIES`, or where cargo built them.
pub(crate) fn oteld() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_oteld"));
    let directory = std::env::var_os("OTELD_BINARIES");
    directory.map_or_else(|| built.to_owned(), |directory| Path::new(&directory).join("oteld"))
}

/// otelctl lies beside oteld when the workspace was built; a test of this package alone does not build it.
pub(crate) fn otelctl() -> Option<PathBuf> {
    Some(oteld().with_file_name("otelctl")).filter(|path| path.exists())
}

/// A running process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Where in the log this run begins.
    log_start: u64,
}

impl Process {
    /// Runs oteld with its output appended to `log`.
    pub(crate) fn start(arguments: &[&str], log: &Path) -> Process {
        let output = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let log_start = output.metadata().unwrap().len();
        let mut command = Command::new(oteld());
        command.args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTELD_"))
        {
            command.env_remove(name);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {:?}: {error}", oteld()));
        Process { child, log: log.to_owned(), log_start }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What this run printed so far.
    pub(crate) fn output(&self) -> String {
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.log_start)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
