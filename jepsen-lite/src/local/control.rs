//! What the tool says to a process that runs with faults, over its Unix socket: a JSON line each, answered by a line
//! each.

use std::path::Path;
use std::time::Duration;

use oteld_env::disk::On;
use oteld_env::faults::{DiskFault, DiskFaultKind, FaultCommand, FaultReply, FaultStats, Struck};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::nemesis::fault::{DiskHow, DiskOp};

/// How long a process may take to answer.
const WAIT: Duration = Duration::from_secs(2);

/// Why a process was not told.
#[derive(Debug)]
pub(super) enum ControlError {
    /// It said that it cannot, and why.
    Refused(String),
    /// No answer: it may start, be stopped, or be gone.
    Silent(String),
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ControlError::Refused(reason) | ControlError::Silent(reason)) = self;
        f.write_str(reason)
    }
}

/// How often faults of the disk struck.
pub(super) fn disk_struck(struck: Struck) -> u64 {
    struck.eio + struck.no_space + struck.slow
}

/// `None` for what is done to files of a process that does not run.
pub(super) fn disk(how: DiskHow) -> Option<FaultCommand> {
    let (fault, on, count, ms) = match how {
        DiskHow::Eio { on } => (DiskFaultKind::Eio, operation(on), None, 0),
        DiskHow::FailedSync => (DiskFaultKind::Eio, On::Sync, Some(1), 0),
        DiskHow::NoSpace => (DiskFaultKind::NoSpace, On::Write, None, 0),
        DiskHow::Slow { ms } => (DiskFaultKind::Slow, On::Sync, None, ms),
        DiskHow::FlipBits { .. } => return None,
    };
    Some(FaultCommand::Disk(DiskFault { fault, on, after: 0, count, ms }))
}

fn operation(on: DiskOp) -> On {
    match on {
        DiskOp::Read => On::Read,
        DiskOp::Write => On::Write,
        DiskOp::Sync => On::Sync,
    }
}

/// Says all commands in order.
///
/// # Errors
/// When the process refuses one, or does not answer in time.
pub(super) async fn tell(socket: &Path, commands: &[FaultCommand]) -> Result<(), ControlError> {
    converse(socket, commands).await.map(drop)
}

/// What the process has felt so far.
///
/// # Errors
/// As [`tell`].
pub(super) async fn stats(socket: &Path) -> Result<FaultStats, ControlError> {
    let reply = converse(socket, &[FaultCommand::Stats]).await?;
    let missing = || ControlError::Refused(format!("{}: no stats in the answer", socket.display()));
    reply.and_then(|reply| reply.stats).ok_or_else(missing)
}

async fn converse(socket: &Path, commands: &[FaultCommand]) -> Result<Option<FaultReply>, ControlError> {
    let failed = |error: std::io::Error| {
        ControlError::Silent(format!("cannot command the process at {}: {error}", socket.display()))
    };
    let talk = async {
        let stream = UnixStream::connect(socket).await.map_err(failed)?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut last = None;
        for command in commands {
            let mut line = serde_json::to_vec(command).map_err(|error| failed(error.into()))?;
            line.push(b'\n');
            write.write_all(&line).await.map_err(failed)?;
            let line = lines.next_line().await.map_err(failed)?;
            let line = line.ok_or_else(|| failed(std::io::Error::other("it hung up")))?;
            let reply: FaultReply = serde_json::from_str(&line).map_err(|error| failed(error.into()))?;
            if !reply.ok {
                let why = reply.error.unwrap_or_else(|| "it does not say why".into());
                return Err(ControlError::Refused(format!("{command:?}: {why}")));
            }
            last = Some(reply);
        }
        Ok(last)
    };
    let late = || failed(std::io::Error::other(format!("no answer within {} s", WAIT.as_secs())));
    timeout(WAIT, talk).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn with_answers(answers: &'static str, talk: impl AsyncFnOnce(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut heard = Vec::new();
            for answer in answers.lines() {
                heard.push(lines.next_line().await.unwrap().unwrap());
                write.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
            heard
        };
        tokio::join!(serve, talk(&path)).0
    }

    #[tokio::test]
    async fn commands_are_lines_in_order() {
        let heard = with_answers("{\"ok\":true}\n{\"ok\":true}", async |path| {
            let commands = [FaultCommand::Heal, disk(DiskHow::FailedSync).unwrap()];
            tell(path, &commands).await.unwrap();
        })
        .await;
        assert_eq!(heard[0], r#"{"do":"heal"}"#);
        let second: FaultCommand = serde_json::from_str(&heard[1]).unwrap();
        let FaultCommand::Disk(fault) = second else { panic!("{second:?}") };
        assert_eq!((fault.fault, fault.on, fault.count), (DiskFaultKind::Eio, On::Sync, Some(1)));
    }

    #[tokio::test]
    async fn stats_are_read_and_refusals_are_errors() {
        let answer = concat!(
            r#"{"ok":true,"unsynced_bytes":7,"unsynced_files":1,"unsynced_names":0,"clock_offset_ms":-5,"#,
            r#""struck":{"eio":1,"no_space":0,"slow":2},"detours":3,"points":{}}"#
        );
        with_answers(answer, async |path| {
            let stats = stats(path).await.unwrap();
            assert_eq!((stats.unsynced_bytes, disk_struck(stats.struck), stats.clock_offset_ms), (7, 3, -5));
        })
        .await;
        with_answers(r#"{"ok":false,"error":"no such point"}"#, async |path| {
            let crash = FaultCommand::CrashAt { point: "x".into(), nth: 1 };
            let Err(ControlError::Refused(error)) = tell(path, &[crash]).await else { panic!() };
            assert!(error.contains("no such point") && error.contains("CrashAt"), "{error}");
        })
        .await;
        let error = stats(Path::new("/nowhere/socket")).await.unwrap_err();
        assert!(
            matches!(&error, ControlError::Silent(reason) if reason.contains("/nowhere/socket")),
            "{error}"
        );
    }
}
