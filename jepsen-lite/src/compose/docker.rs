//! The `docker` command: what it prints, or why it failed in words that help whoever runs the tool.

#![allow(clippy::disallowed_methods, reason = "commands containers, and is part of no node")]

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long an engine may take for anything but starting a cluster.
pub(super) const WAIT: Duration = Duration::from_secs(60);

/// Runs a command and waits for it, blocking; what it prints on its standard output.
///
/// # Errors
/// When it cannot be run or fails: what it says.
pub(super) fn now(arguments: &[String]) -> Result<String, String> {
    output(arguments).map(|(out, _)| out)
}

/// As [`now`], with what it prints on its standard error.
///
/// # Errors
/// As [`now`].
pub(super) fn output(arguments: &[String]) -> Result<(String, String), String> {
    started(arguments).and_then(|child| ended(child, arguments))
}

fn started(arguments: &[String]) -> Result<Child, String> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // An interrupt from the terminal is for the tool, which ends the run in order.
    command.process_group(0).spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "there is no `docker` command: the compose driver needs Docker and its Compose plugin".to_owned()
        }
        _ => format!("cannot run docker: {error}"),
    })
}

fn ended(child: Child, arguments: &[String]) -> Result<(String, String), String> {
    let what = arguments.join(" ");
    let output =
        child.wait_with_output().map_err(|error| format!("cannot wait for `docker {what}`: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok((text(&output.stdout), text(&output.stderr)));
    }
    let said = text(&output.stderr);
    Err(format!("`docker {what}` failed with {}: {}", output.status, said.trim()))
}

/// A command that runs. Dropped before its end it is killed, so that it does nothing any more to what comes after it.
struct Job {
    group: Pid,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if !thread.is_finished() {
            // The command and its plugins. Fails only where they ended meanwhile.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
        let _ = thread.join();
    }
}

/// As [`output`], without holding up the thread.
///
/// # Errors
/// As [`output`], and after `wait`.
pub(super) async fn within(wait: Duration, arguments: Vec<String>) -> Result<(String, String), String> {
    let what = arguments.join(" ");
    let child = started(&arguments)?;
    let group = Pid::from_child(&child);
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("docker".into());
    let thread = thread.spawn(move || drop(tell.send(ended(child, &arguments))));
    let thread = thread.map_err(|error| format!("cannot start a thread for `docker {what}`: {error}"))?;
    let _job = Job { group, thread: Some(thread) };
    match timeout(wait, told).await {
        Ok(Ok(output)) => output,
        Ok(Err(_)) => Err(format!("the thread of `docker {what}` broke")),
        Err(_) => Err(format!("`docker {what}` takes more than {} s", wait.as_secs())),
    }
}

/// Runs `docker COMMAND... NAMES...`.
///
/// # Errors
/// As [`within`].
pub(super) async fn run(command: &[&str], names: &[String]) -> Result<String, String> {
    within(WAIT, words(command, names)).await.map(|(out, _)| out)
}

/// The words of a command line.
pub(super) fn words(command: &[&str], more: &[String]) -> Vec<String> {
    command.iter().map(ToString::to_string).chain(more.iter().cloned()).collect()
}

/// Whether there is an engine with Compose.
///
/// # Errors
/// What to do about what is missing.
pub(super) fn check() -> Result<(), String> {
    now(&words(&["version", "--format", "{{.Server.Version}}"], &[])).map_err(|error| {
        if error.starts_with("there is no") {
            return error;
        }
        format!("no Docker engine answers; start one, or say in DOCKER_HOST where it is. {error}")
    })?;
    let version = now(&words(&["compose", "version", "--short"], &[]));
    version.map_err(|error| format!("docker has no Compose plugin (docker-compose-plugin): {error}"))?;
    Ok(())
}

/// What an image says of its version, by its own binary.
///
/// # Errors
/// What to do where the engine does not have it.
pub(super) fn version_of(image: &str, files: &str) -> Result<String, String> {
    let id = now(&words(&["image", "inspect", "--format", "{{.Id}}", image], &[])).map_err(|error| {
        format!(
            "the engine does not have the image {image}; make it with `docker compose {files} build`, or with \
             `docker/image.sh {image}` from binaries, or name another in OTELD_IMAGE. {error}"
        )
    })?;
    let run = ["run", "--rm", "--pull", "never", "--network", "none", image, "--version"];
    let version = now(&words(&run, &[])).map_err(|error| format!("{image} does not run: {error}"))?;
    let id: String = id.trim().chars().take("sha256:".len() + 12).collect();
    Ok(format!("{} (image {image}, {id})", version.trim()))
}

/// Whether nothing has the project's name yet: whatever has it is removed at the end.
///
/// # Errors
/// What there is, and what to do about it.
pub(super) fn check_is_free(project: &str) -> Result<(), String> {
    let of_project = format!("label=com.docker.compose.project={project}");
    for (what, list) in [
        ("containers", ["ps", "--all", "--quiet", "--filter"].as_slice()),
        ("volumes", &["volume", "ls", "--quiet", "--filter"]),
        ("networks", &["network", "ls", "--quiet", "--filter"]),
    ] {
        let found = now(&words(list, std::slice::from_ref(&of_project)))?;
        if !found.trim().is_empty() {
            return Err(format!(
                "project {project} has {what} already, of another run or of one that was kept. Give another --project, or \
                 remove all of it, if that is meant: docker compose -p {project} down --volumes"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_command_that_nobody_waits_for_is_killed_with_what_it_started() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & wait"]).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let (group, mut out) = (Pid::from_child(&child), child.stdout.take().unwrap());
        let thread = std::thread::Builder::new().spawn(move || drop(child.wait())).unwrap();
        drop(Job { group, thread: Some(thread) });
        // It ends when nobody is left who could write.
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}
