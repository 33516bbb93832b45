//! What a member promised, in a file beside its log: a log that came back older than it must not be used. sled
//! cannot say so itself, as it opens what is left of its files without a word. Calls block.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::{RaftLogId, Vote};
use oteld_env::Disk;
use serde::{Deserialize, Serialize};

use super::log_store::{entry, last_log_id, purged, vote};
use super::{BackendError, LogBackend, LogId, pack};
use crate::checked_file;
use crate::ids::MetaId;

/// The last vote, and the end of the log when it was given.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Promise {
    vote: Vote<MetaId>,
    last: Option<LogId>,
}

/// The file. It is never ahead of the log: written after the log's sync, lowered before the log is cut.
#[derive(Clone)]
pub(crate) struct PromiseFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl PromiseFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        PromiseFile { disk, path }
    }

    /// Keeps a vote; `last` and the vote itself are durable in the log.
    pub(super) fn keep(&self, vote: Vote<MetaId>, last: Option<LogId>) -> io::Result<()> {
        self.write(Promise { vote, last })
    }

    /// Takes back what was said of the log from `index` on, which is about to be cut.
    pub(super) fn lower(&self, index: u64, log: &dyn LogBackend) -> Result<(), BackendError> {
        let Some(promise) =
            self.read()?.filter(|promise| promise.last.is_some_and(|last| last.index >= index))
        else {
            return Ok(());
        };
        let before = match index.checked_sub(1) {
            Some(before) => log.read(before..index)?.pop(),
            None => None,
        };
        let last = match before {
            Some((before, bytes)) => Some(*entry(before, &bytes)?.get_log_id()),
            None => purged(log)?,
        };
        Ok(self.write(Promise { last, ..promise })?)
    }

    /// Why the log is not the one that the promises were made with; `None` where nothing is known to be lost.
    /// There is no file before the first vote.
    ///
    /// # Errors
    /// When the file or the log cannot be read, or is damaged.
    pub(crate) fn broken_by(&self, log: &dyn LogBackend) -> Result<Option<String>, BackendError> {
        let vote = vote(log)?;
        // A founder's first entry is older than any vote.
        if vote.is_none() && log.last()?.is_some_and(|(index, _)| index > 0) {
            return Ok(Some("its log has entries and no vote".to_owned()));
        }
        let Some(promise) = self.read()? else { return Ok(None) };
        let last = last_log_id(log)?;
        if !vote.is_some_and(|vote| vote >= promise.vote) {
            return Ok(Some(format!("its log has the vote {vote:?} and not {}", promise.vote)));
        }
        if last < promise.last {
            return Ok(Some(format!("its log ends at {last:?} and not at {:?}", promise.last)));
        }
        Ok(None)
    }

    fn read(&self) -> Result<Option<Promise>, BackendError> {
        let bytes = checked_file::read(&*self.disk, &self.path)?;
        let parsed = bytes.map(|bytes| rmp_serde::from_slice(&bytes)).transpose();
        parsed.map_err(|error| BackendError::Damaged(format!("the promise does not parse: {error}")))
    }

    fn write(&self, promise: Promise) -> io::Result<()> {
        checked_file::write(&*self.disk, &self.path, &pack(&promise))
    }
}
