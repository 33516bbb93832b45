//! A place in the cluster: what its process is started with, and the process where there is one.

#![allow(
    clippy::disallowed_methods,
    reason = "reads and removes files of what is tested, and is part of no node"
)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::Signal;

use super::process::{Launch, Process, resident_bytes};
use crate::driver::Addresses;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 20;

#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub addresses: Addresses,
    /// Socket for commands.
    pub control: PathBuf,
    pub data: PathBuf,
    /// Whether it has a store.
    pub is_storage: bool,
    pub(super) launch: Launch,
    process: Option<Process>,
    /// How many times it was started.
    pub boot: u32,
    paused: bool,
}

impl Node {
    pub(super) fn new(
        name: &str,
        addresses: Addresses,
        control: PathBuf,
        data: PathBuf,
        is_storage: bool,
        launch: Launch,
    ) -> Self {
        let name = name.to_owned();
        Node { name, addresses, control, data, is_storage, launch, process: None, boot: 0, paused: false }
    }

    /// # Errors
    /// When there is no process to be had.
    pub fn start(&mut self) -> Result<(), String> {
        if self.process.is_some() {
            return Ok(());
        }
        let process = Process::start(&self.launch);
        let process = process.map_err(|error| {
            format!("cannot start {} for {}: {error}", self.launch.program.display(), self.name)
        })?;
        self.process = Some(process);
        self.boot += 1;
        self.paused = false;
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether it has a process that is not stopped.
    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    /// SIGKILL without waiting: several nodes can be hit at the same moment. [`Node::reap`] has to follow.
    pub fn strike(&self) {
        if let Some(process) = &self.process {
            // Fails only where it has ended already.
            let _ = process.signal(Signal::KILL);
        }
    }

    /// SIGKILL, and waits until it is gone; says whether it ran until then.
    pub fn kill(&mut self) -> bool {
        self.paused = false;
        self.process.take().is_some_and(Process::kill)
    }

    /// Waits for the end of a process that was struck.
    pub fn reap(&mut self) {
        self.kill();
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn pause(&mut self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    /// Whether the kernel says that it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.process.as_ref().and_then(Process::state) == Some('T')
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn go_on(&mut self) -> Result<(), String> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn terminate(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(process) = &self.process else { return Err(format!("{} does not run", self.name)) };
        process.signal(signal).map_err(|error| format!("cannot signal {}: {error}", self.name))
    }

    /// The status of a process that ended since it was asked last; there is none afterwards.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.ended().ok().flatten()?;
        self.process = None;
        self.paused = false;
        Some(status)
    }

    pub fn resident_bytes(&self) -> u64 {
        self.pid().map_or(0, resident_bytes)
    }

    /// What the running process printed so far.
    pub fn output(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        read_from(&self.launch.log, process.log_start()).unwrap_or_default()
    }

    /// The last lines that it printed, running or not.
    pub fn tail(&self) -> String {
        let text = read_from(&self.launch.log, 0).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Files of its store: of the one in use, and of those that it set aside.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn store_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for store in self.stores()? {
            list(&store, &mut files)?;
        }
        files.sort();
        Ok(files)
    }

    /// Removes the store, as a new disk would; says how many bytes it held. What its meta member knows stays: that is
    /// another disk.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn wipe(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for file in self.store_files()? {
            bytes += std::fs::metadata(file)?.len();
        }
        for store in self.stores()? {
            std::fs::remove_dir_all(store)?;
        }
        Ok(bytes)
    }

    /// `store`, `store-2`, ...
    fn stores(&self) -> io::Result<Vec<PathBuf>> {
        let mut stores = Vec::new();
        for entry in std::fs::read_dir(&self.data)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "store" || name.starts_with("store-") {
                stores.push(entry.path());
            }
        }
        Ok(stores)
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn read_from(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
