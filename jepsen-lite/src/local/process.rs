//! One process of a cluster: its log, its signals, and its end, which comes with the end of the process that started it.

#![allow(clippy::disallowed_methods, reason = "starts what is tested, and is part of no node")]

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

/// Name of the hidden command through which processes are started; see [`guard`].
pub const GUARD: &str = "guard";

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Where its output goes, after what is there.
    pub log: PathBuf,
    /// Whether this binary has the command [`GUARD`].
    pub guarded: bool,
}

/// A running process, or one that ended and was not asked yet. Killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where in the log this run begins.
    log_start: u64,
}

impl Process {
    /// # Errors
    /// When the log or the program cannot be opened.
    pub fn start(launch: &Launch) -> io::Result<Process> {
        let output = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let log_start = output.metadata()?.len();
        let mut command = if launch.guarded {
            // This very binary, even where its file was replaced meanwhile.
            let mut command = Command::new("/proc/self/exe");
            command.arg(GUARD).arg(std::process::id().to_string()).arg("--").arg(&launch.program);
            command
        } else {
            Command::new(&launch.program)
        };
        command.args(&launch.arguments).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // An interrupt from the terminal is for the tool, which ends the run in order.
        command.process_group(0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTELD_"))
        {
            command.env_remove(name);
        }
        Ok(Process { child: command.spawn()?, log_start })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_start(&self) -> u64 {
        self.log_start
    }

    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL, and waits until it is gone; says whether it ran until then.
    pub fn kill(mut self) -> bool {
        let ran = matches!(self.ended(), Ok(None));
        drop(self);
        ran
    }

    /// What the kernel says it does: `R`, `S`, `D`, `T`, ...
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes `program`, which the kernel kills when the thread that started this process ends, whatever ends it: a tool
/// that is killed leaves no cluster behind. Returns only where that fails.
pub fn guard(parent: u32, program: &Path, arguments: &[OsString]) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before it could be watched.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if now != i32::try_from(parent).ok() {
        return io::Error::other(format!("process {parent}, which started this one, is gone"));
    }
    Command::new(program).args(arguments).exec()
}

/// Bytes that a process has resident; 0 where it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn launch(dir: &Path, script: &str) -> Launch {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Launch { program: "/bin/sh".into(), arguments, log: dir.join("log"), guarded: false }
    }

    fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
        let begun = std::time::Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(begun.elapsed().as_secs() < 20, "it happens in time");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_stopped_goes_on_and_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start(&launch(dir.path(), "echo here; read line < /dev/zero")).unwrap();
        until(|| (std::fs::read_to_string(dir.path().join("log")).unwrap() == "here\n").then_some(()));
        assert!(resident_bytes(process.pid()) > 0);
        process.signal(Signal::STOP).unwrap();
        until(|| process.state().filter(|state| *state == 'T'));
        process.signal(Signal::CONT).unwrap();
        until(|| process.state().filter(|state| *state != 'T'));
        assert_eq!(process.ended().unwrap(), None);
        assert!(process.kill());
    }

    #[test]
    fn an_end_is_seen_with_its_reason_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Process::start(&launch(dir.path(), "echo one; kill -9 $$")).unwrap();
        let status = until(|| first.ended().unwrap());
        assert_eq!(status.signal(), Some(9));
        assert!(!first.kill());
        let mut second = Process::start(&launch(dir.path(), "echo two; exit 3")).unwrap();
        assert_eq!(until(|| second.ended().unwrap()).code(), Some(3));
        assert_eq!(second.log_start(), 4);
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "one\ntwo\n");
    }
}
