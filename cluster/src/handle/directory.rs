//! A member's directory: who it is, its log and its snapshot. They belong together: where one of them is lost or
//! damaged, a vote may be lost, so all are set aside and the node joins under a new member id.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::Env;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::options::MetaLog;
use crate::checked_file;
use crate::ids::{Incarnation, MetaId};
use crate::raft::{BackendError, Change, LogBackend, PromiseFile, SledLog};

const INCARNATION: &str = "incarnation";

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    #[error("the directory of the meta member fails: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] BackendError),
}

/// An open directory.
pub(super) struct Directory {
    pub(super) incarnation: Incarnation,
    /// `None` until the group gave one, and while the log is empty: then asking again is safe.
    pub(super) id: Option<MetaId>,
    /// An id was given, even if it was never used.
    pub(super) was_given_id: bool,
    pub(super) log: Arc<dyn LogBackend>,
    _lock: Box<dyn Send + Sync>,
}

/// The file that says who the member is.
#[derive(Serialize, Deserialize)]
struct Identity {
    incarnation: Incarnation,
    id: Option<MetaId>,
}

/// What was found at a start.
enum Found {
    Usable(Incarnation, Option<MetaId>),
    Fresh,
    /// Not to be trusted, for this reason.
    Lost(String),
}

impl Directory {
    /// Opens or makes the directory. Calls block.
    pub(super) fn open(env: &Env, dir: &Path, kind: &MetaLog) -> Result<Self, DirectoryError> {
        env.disk.create_dir_all(dir)?;
        let lock = env.disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DirectoryError::InUse(dir.to_owned()),
            _ => error.into(),
        })?;
        env.disk.remove_interrupted(dir)?;
        let (log, found) = match open_log(env, dir, kind)? {
            Ok(log) => {
                let found = match examine(env, dir, &*log) {
                    Err(DirectoryError::Log(BackendError::Damaged(reason))) => Found::Lost(reason),
                    found => found?,
                };
                (Some(log), found)
            }
            Err(reason) => (None, Found::Lost(reason)),
        };
        let (log, found) = match found {
            Found::Lost(reason) => {
                drop(log);
                tracing::error!(%reason, "the meta member lost its directory and joins again under a new id");
                set_aside(env, dir, kind)?;
                (open_log(env, dir, kind)?.map_err(BackendError::Damaged)?, Found::Fresh)
            }
            found => (log.expect("a log that was examined is open"), found),
        };
        let (incarnation, id) = match found {
            Found::Usable(incarnation, id) => (incarnation, id),
            _ => (found_directory(env, dir, &*log)?, None),
        };
        let was_given_id = id.is_some();
        let id = if log.last()?.is_some() || log.get("vote")?.is_some() { id } else { None };
        Ok(Directory { incarnation, id, was_given_id, log, _lock: lock })
    }

    /// Remembers the id that the group gave; before Raft runs under it. Blocks.
    pub(super) fn remember(env: &Env, dir: &Path, incarnation: Incarnation, id: MetaId) -> io::Result<()> {
        write_identity(env, dir, &Identity { incarnation, id: Some(id) })
    }
}

/// The snapshot's file.
pub(super) fn snapshot_path(dir: &Path) -> PathBuf {
    dir.join("snapshot")
}

fn identity_path(dir: &Path) -> PathBuf {
    dir.join("member")
}

/// The file of the member's last promise.
pub(super) fn promise_path(dir: &Path) -> PathBuf {
    dir.join("promise")
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

fn write_identity(env: &Env, dir: &Path, identity: &Identity) -> io::Result<()> {
    let bytes = serde_json::to_vec(identity).map_err(io::Error::other)?;
    checked_file::write(&*env.disk, &identity_path(dir), &bytes)
}

/// The log, or why it is lost.
fn open_log(
    env: &Env,
    dir: &Path,
    kind: &MetaLog,
) -> Result<Result<Arc<dyn LogBackend>, String>, DirectoryError> {
    let path = match kind {
        MetaLog::Simulated(log) => return Ok(Ok(Arc::new(log.clone()))),
        MetaLog::Sled => log_path(dir),
    };
    env.disk.create_dir_all(&path)?;
    env.disk.sync_dir(dir)?;
    // sled panics on some damaged files.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| SledLog::open(&*env.disk, &path)));
    match opened {
        Ok(Ok(log)) => Ok(Ok(Arc::new(log))),
        Ok(Err(error)) => match error.into_io() {
            Ok(error) if is_lock(&error) => Err(DirectoryError::InUse(path)),
            Ok(error) if !is_damage(&error) => Err(error.into()),
            Ok(error) => Ok(Err(error.to_string())),
            Err(error) => Ok(Err(error.to_string())),
        },
        Err(_) => Ok(Err("sled panicked on its files".to_owned())),
    }
}

/// sled lets go of its lock some time after it was closed, and says so in words only.
fn is_lock(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn examine(env: &Env, dir: &Path, log: &dyn LogBackend) -> Result<Found, DirectoryError> {
    let lost = |reason: &str| Ok(Found::Lost(reason.to_owned()));
    let voted = log.get("vote")?.is_some();
    let used = voted || log.last()?.is_some();
    match PromiseFile::new(env.disk.clone(), promise_path(dir)).broken_by(log) {
        Ok(None) => {}
        Ok(Some(reason)) => return Ok(Found::Lost(reason)),
        Err(BackendError::Io(error)) if is_damage(&error) => return lost(&error.to_string()),
        Err(error) => return Err(error.into()),
    }
    let identity = match checked_file::read(&*env.disk, &identity_path(dir)) {
        Ok(identity) => identity,
        Err(error) if is_damage(&error) => return lost(&error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let Some(identity) = identity else {
        return if used { lost("its log has no identity") } else { Ok(Found::Fresh) };
    };
    let Ok(identity) = serde_json::from_slice::<Identity>(&identity) else {
        return lost("its identity does not parse");
    };
    if log.get(INCARNATION)? != Some(identity.incarnation.0.to_be_bytes().to_vec()) {
        return lost("its log is not the one of its identity");
    }
    if used && identity.id.is_none() {
        return lost("its log was used without an id");
    }
    match checked_file::read(&*env.disk, &snapshot_path(dir)) {
        Ok(None) if log.get("purged")?.is_some() => lost("the snapshot behind its log is gone"),
        Ok(Some(_)) if !voted => lost("the log behind its snapshot is gone"),
        Ok(_) => Ok(Found::Usable(identity.incarnation, identity.id)),
        Err(error) if is_damage(&error) => lost(&error.to_string()),
        Err(error) => Err(error.into()),
    }
}

fn found_directory(env: &Env, dir: &Path, log: &dyn LogBackend) -> Result<Incarnation, DirectoryError> {
    let incarnation = Incarnation(env.random.next_u128());
    log.write(vec![Change::Set(INCARNATION, incarnation.0.to_be_bytes().to_vec())])?;
    log.sync()?;
    write_identity(env, dir, &Identity { incarnation, id: None })?;
    Ok(incarnation)
}

/// Renames what is there, so that somebody can look at it.
fn set_aside(env: &Env, dir: &Path, kind: &MetaLog) -> io::Result<()> {
    let suffix = format!("lost-{:016x}", env.random.next_u64());
    if let MetaLog::Simulated(log) = kind {
        log.clear();
    }
    // The log goes last: with it, whatever is left after a crash in between is set aside too.
    for path in [identity_path(dir), snapshot_path(dir), promise_path(dir), log_path(dir)] {
        if env.disk.exists(&path)? {
            env.disk.rename(&path, &path.with_extension(&suffix))?;
        }
    }
    env.disk.sync_dir(dir)
}
