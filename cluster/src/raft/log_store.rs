//! openraft's log storage over a [`LogBackend`]. A vote and an append are durable before they are acknowledged, and
//! a vote is also kept in a [`PromiseFile`].

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    AnyError, ErrorSubject, ErrorVerb, OptionalSend, RaftLogId, RaftLogReader, StorageError, StorageIOError,
    Vote,
};
use oteld_env::Tasks;
use serde::de::DeserializeOwned;

use super::{BackendError, Change, LogBackend, LogId, PromiseFile, Types, pack};
use crate::ids::MetaId;

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// Most entries that replication reads at once.
const READ_ENTRIES_MAX: u64 = 256;

type Entry = openraft::Entry<Types>;

/// The log of one member. Clones read the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    backend: Arc<dyn LogBackend>,
    promise: PromiseFile,
    tasks: Tasks,
}

impl LogStore {
    pub(crate) fn new(backend: Arc<dyn LogBackend>, promise: PromiseFile, tasks: Tasks) -> Self {
        LogStore { backend, promise, tasks }
    }

    /// Runs `work` on the backend away from the reactor.
    async fn blocking<T, W>(
        &self,
        verb: ErrorVerb,
        subject: ErrorSubject<MetaId>,
        work: W,
    ) -> Result<T, StorageError<MetaId>>
    where
        T: Send + 'static,
        W: FnOnce(&dyn LogBackend) -> Result<T, BackendError> + Send + 'static,
    {
        let backend = self.backend.clone();
        let result = self.tasks.blocking(move || work(&*backend)).await;
        result.map_err(|error| StorageIOError::new(subject, verb, AnyError::new(&error)).into())
    }
}

fn named<T: DeserializeOwned>(log: &dyn LogBackend, name: &str) -> Result<Option<T>, BackendError> {
    log.get(name)?.map(|bytes| unpack(name, &bytes)).transpose()
}

/// The last vote.
pub(super) fn vote(log: &dyn LogBackend) -> Result<Option<Vote<MetaId>>, BackendError> {
    named(log, VOTE)
}

/// The last entry that a snapshot replaces.
pub(super) fn purged(log: &dyn LogBackend) -> Result<Option<LogId>, BackendError> {
    named(log, PURGED)
}

/// The end of the log, which may be in the snapshot.
pub(super) fn last_log_id(log: &dyn LogBackend) -> Result<Option<LogId>, BackendError> {
    let last = log.last()?.map(|(index, bytes)| entry(index, &bytes)).transpose()?;
    Ok(last.map(|entry| *entry.get_log_id()).or(purged(log)?))
}

/// Reads an entry.
pub(super) fn entry(index: u64, bytes: &[u8]) -> Result<Entry, BackendError> {
    unpack(&format!("entry {index}"), bytes)
}

fn unpack<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, BackendError> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| BackendError::Damaged(format!("{what} does not parse: {error}")))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<MetaId>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.blocking(ErrorVerb::Read, ErrorSubject::Logs, move |backend| {
            let entries = backend.read(start..end)?;
            entries.iter().map(|(index, bytes)| entry(*index, bytes)).collect()
        })
        .await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<MetaId>> {
        self.try_get_log_entries(start..end.min(start + READ_ENTRIES_MAX)).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<MetaId>> {
        self.blocking(ErrorVerb::Read, ErrorSubject::Logs, |backend| {
            Ok(LogState { last_purged_log_id: purged(backend)?, last_log_id: last_log_id(backend)? })
        })
        .await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<MetaId>) -> Result<(), StorageError<MetaId>> {
        let (vote, promise) = (*vote, self.promise.clone());
        self.blocking(ErrorVerb::Write, ErrorSubject::Vote, move |backend| {
            backend.write(vec![Change::Set(VOTE, pack(&vote))])?;
            if oteld_env::mutant("vote-not-persisted") {
                return Ok(());
            }
            let last = last_log_id(backend)?;
            backend.sync()?;
            Ok(promise.keep(vote, last)?)
        })
        .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<MetaId>>, StorageError<MetaId>> {
        self.blocking(ErrorVerb::Read, ErrorSubject::Vote, vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError<MetaId>> {
        // Not synced: a lost mark only means that the leader tells it again.
        let bytes = pack(&committed);
        self.blocking(ErrorVerb::Write, ErrorSubject::Store, move |backend| {
            backend.write(vec![Change::Set(COMMITTED, bytes)])
        })
        .await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError<MetaId>> {
        let read = |backend: &dyn LogBackend| named::<Option<LogId>>(backend, COMMITTED);
        Ok(self.blocking(ErrorVerb::Read, ErrorSubject::Store, read).await?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<MetaId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let changes: Vec<Change> =
            entries.into_iter().map(|entry| Change::Put(entry.get_log_id().index, pack(&entry))).collect();
        self.blocking(ErrorVerb::Write, ErrorSubject::Logs, move |backend| {
            backend.write(changes)?;
            if oteld_env::mutant("raft-append-not-durable") {
                return Ok(());
            }
            backend.sync()
        })
        .await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<MetaId>> {
        let promise = self.promise.clone();
        self.blocking(ErrorVerb::Delete, ErrorSubject::Logs, move |backend| {
            promise.lower(log_id.index, backend)?;
            backend.write(vec![Change::TruncateFrom(log_id.index)])?;
            backend.sync()
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<MetaId>> {
        let mark = Change::Set(PURGED, pack(&log_id));
        self.blocking(ErrorVerb::Delete, ErrorSubject::Logs, move |backend| {
            backend.write(vec![Change::PurgeThrough(log_id.index), mark])?;
            backend.sync()
        })
        .await
    }
}
