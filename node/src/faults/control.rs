//! The Unix socket through which a fault test gives orders: a JSON line each, answered by a line each.

use std::path::Path;

use oteld_env::disk::{Disk, POINTS};
use oteld_env::faults::{FaultCommand, FaultReply, FaultStats};
use oteld_env::{RealDisk, Tasks};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::Faults;

/// Longest command, in bytes: detours of some hundred links.
const LINE_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn listen(faults: &Faults, path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot take fault commands on {}: {error}", path.display());
    // A process that was killed leaves its socket.
    let real = RealDisk::new();
    if real.exists(path).map_err(failed)? {
        real.remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let faults = faults.clone();
    Tasks::threads().spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let faults = faults.clone();
                    Tasks::threads().spawn(async move { converse(&faults, stream).await });
                }
                Err(error) => {
                    tracing::error!(%error, "cannot take fault commands any more");
                    return;
                }
            }
        }
    });
    Ok(())
}

/// Answers the commands of one client until it goes.
async fn converse(faults: &Faults, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        match (&mut read).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(command) => faults.obey(command),
            Err(error) => FaultReply::error(format!("not a command: {error}")),
        };
        let mut reply = serde_json::to_vec(&reply).expect("a reply has nothing that JSON lacks");
        reply.push(b'\n');
        if write.write_all(&reply).await.is_err() {
            return;
        }
    }
}

impl Faults {
    /// Does what a test asks for.
    pub fn obey(&self, command: FaultCommand) -> FaultReply {
        match command {
            FaultCommand::Stats => return FaultReply::stats(self.stats()),
            FaultCommand::Clock { offset_ms, drift_ppm } => {
                self.clock.set_error(offset_ms.saturating_mul(1_000_000), drift_ppm);
            }
            FaultCommand::Disk(fault) => self.disk.inject(fault),
            FaultCommand::Capacity { bytes } => self.disk.set_capacity_bytes(bytes),
            FaultCommand::Dial { map } => self.detours.set(map),
            FaultCommand::CrashAt { point, nth } => match POINTS.iter().find(|name| **name == point) {
                Some(point) if nth > 0 => self.disk.crash_at(point, nth),
                Some(_) => return FaultReply::error("nth counts from 1".to_owned()),
                None => {
                    let known = POINTS.join(", ");
                    return FaultReply::error(format!("there is no point `{point}`; there are {known}"));
                }
            },
            FaultCommand::Heal => {
                self.disk.heal();
                self.clock.set_error(0, 0);
            }
        }
        FaultReply::ok()
    }

    fn stats(&self) -> FaultStats {
        let unsynced = self.disk.unsynced();
        FaultStats {
            unsynced_bytes: unsynced.bytes,
            unsynced_files: unsynced.files,
            unsynced_names: unsynced.names,
            struck: self.disk.struck(),
            clock_offset_ms: self.clock.error_nanos() / 1_000_000,
            detours: self.detours.taken(),
            points: self.disk.points().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}
