//! The one task that writes the WAL: gathers what waits into a group, makes it durable, publishes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::append::{Command, QueuedAppend};
use crate::engine::{Engine, Frozen, WriteState};
use crate::error::{AppendError, StoreError};
use crate::manifest::SegmentMeta;
use crate::memtable::{MemPart, Memtable};
use crate::model::{Signal, Window};
use crate::position::Position;
use crate::segment::AppliedId;
use crate::segments::Uncommitted;
use crate::snapshot::Install;
use crate::tail::NewEntry;
use crate::wal::record::{CursorAdvance, Record};
use crate::wal::writer::{WalWriter, WriteFailure};

/// What is written by one fsync.
#[derive(Default)]
struct Group {
    appends: Vec<QueuedAppend>,
    cursors: Vec<CursorAdvance>,
    bytes: u64,
}

/// Runs until [`Command::Close`].
pub(crate) async fn run(engine: Arc<Engine>, mut queue: mpsc::Receiver<Command>, wal: WalWriter) {
    let mut wal = Some(wal);
    let mut next = None;
    loop {
        let command = match next.take() {
            Some(command) => command,
            None => match queue.recv().await {
                Some(command) => command,
                None => return,
            },
        };
        match command {
            Command::Freeze(reply) => {
                let _ = reply.send(freeze(&engine, &mut wal).await);
            }
            Command::Install(Install { segments, ids, loading, reply }) => {
                let installed = install(&engine, &mut wal, segments, ids).await;
                drop(loading);
                let _ = reply.send(installed);
            }
            Command::Close(reply) => {
                engine.state.lock().set_writes(WriteState::Closed);
                let _ = reply.send(());
                return;
            }
            Command::Append(_) | Command::Cursor(_) => {
                let mut group = Group::default();
                group.add(command);
                next = group.fill(&mut queue, engine.options.wal_group_bytes_max);
                write(&engine, &mut wal, group).await;
            }
        }
    }
}

impl Group {
    fn add(&mut self, command: Command) {
        match command {
            Command::Append(append) => {
                self.bytes += append.batch.bytes().len() as u64;
                self.appends.push(append);
            }
            Command::Cursor(cursor) => self.cursors.push(cursor),
            Command::Freeze(_) | Command::Install(_) | Command::Close(_) => {
                unreachable!("fill() stops at these")
            }
        }
    }

    /// Takes what waits already, up to `bytes_max`. Gives back the first command that does not belong.
    fn fill(&mut self, queue: &mut mpsc::Receiver<Command>, bytes_max: u64) -> Option<Command> {
        while self.bytes < bytes_max {
            match queue.try_recv().ok()? {
                Command::Append(append) if self.bytes + append.batch.bytes().len() as u64 > bytes_max => {
                    return Some(Command::Append(append));
                }
                command @ (Command::Append(_) | Command::Cursor(_)) => self.add(command),
                command => return Some(command),
            }
        }
        None
    }

    /// What a batch names comes before it (A3). Cursors come last: what they cover was appended before.
    fn records(&self) -> Vec<Record> {
        let parts = self.appends.iter().flat_map(|append| {
            let named = append.batch.named().cloned().map(Record::Definition);
            named.chain([Record::Parts {
                batch: append.batch.bytes().clone(),
                accepted: append.accepted.iter().map(|part| *part as u32).collect(),
            }])
        });
        parts.chain(self.cursors.iter().cloned().map(Record::Cursor)).collect()
    }
}

/// Writes and syncs a group, and publishes it or refuses it whole.
async fn write(engine: &Arc<Engine>, wal: &mut Option<WalWriter>, group: Group) {
    if let Err(error) = engine.refuses() {
        return refuse(group, &error);
    }
    let has_cursors = !group.cursors.is_empty();
    if has_cursors {
        engine.env.disk.reach("cursor.before_write");
    }
    let records = group.records();
    let starts = with_wal(engine, wal, move |wal| wal.write(&records)).await;
    match starts {
        Ok(starts) => {
            if has_cursors {
                engine.env.disk.reach("cursor.written");
            }
            publish(engine, wal, group, &starts);
        }
        Err(WriteFailure::Full(reason)) => {
            {
                let mut state = engine.state.lock();
                if state.writes == WriteState::Open {
                    tracing::warn!(reason, "appends are refused until there is space");
                    state.set_writes(WriteState::Full(reason.clone()));
                }
            }
            refuse(group, &AppendError::ReadOnly { reason });
        }
        Err(WriteFailure::Failed(reason)) => {
            engine.state.lock().fail(&reason);
            refuse(group, &AppendError::ReadOnly { reason });
        }
    }
}

fn refuse(group: Group, error: &AppendError) {
    for append in group.appends {
        drop(append.reservation);
        let _ = append.reply.send(Err(error.clone()));
    }
}

/// Runs `work` on the WAL in the blocking pool. It keeps the engine, and so the lock of the directory, until it
/// is done: the task that asked may be gone before, with its store.
async fn with_wal<T: Send + 'static>(
    engine: &Arc<Engine>,
    wal: &mut Option<WalWriter>,
    work: impl FnOnce(&mut WalWriter) -> T + Send + 'static,
) -> T {
    let mut writer = wal.take().expect("one use of the WAL at a time");
    let held = engine.clone();
    let run = move || {
        let result = work(&mut writer);
        drop(held);
        (writer, result)
    };
    let (writer, result) = engine.env.tasks.blocking(run).await;
    *wal = Some(writer);
    result
}

/// Shows a durable group: parts, ids and position in one step.
fn publish(engine: &Arc<Engine>, wal: &Option<WalWriter>, mut group: Group, starts: &[u64]) {
    let wal = wal.as_ref().expect("with_wal() gave it back");
    let now = engine.env.clock.now_unix_nanos();
    let mut state = engine.state.lock();
    if let WriteState::Full(_) = state.writes {
        tracing::info!("there is space again: appends are taken");
        state.set_writes(WriteState::Open);
    }
    if state.tail.newest_seq() != Some(wal.end().seq) {
        let n = state.position.n;
        state.tail.start_file(wal.current(n));
    }
    for (append, start) in group.appends.iter_mut().zip(starts) {
        let batch_offset = start + Record::batch_offset(append.accepted.len()) as u64;
        for part in &append.accepted {
            let part = MemPart { batch: append.batch.clone(), index: *part };
            state.tail.push(NewEntry::new(&part, batch_offset));
        }
        state.memtable.insert(&append.batch, &append.accepted, now);
        append.reservation.publish(&mut state);
    }
    state.position = Position { boot: engine.boot.counter, n: wal.last_n() };
    assert_eq!(state.position, state.tail.end(), "every position has an entry");
    state.wal_end = wal.end();
    state.counters.wal_groups += 1;
    let position = state.position;
    let is_large = engine.is_memtable_full(&state);
    drop(state);
    engine.position.send_replace(position);
    if is_large {
        engine.wake_flush.notify_one();
    }
    for append in group.appends {
        let _ = append.reply.send(Ok(()));
    }
}

/// Sets the memtable aside, with all of its parts in WAL files that get no more of others.
async fn freeze(engine: &Arc<Engine>, wal: &mut Option<WalWriter>) -> Result<Arc<Frozen>, StoreError> {
    engine.refuses().map_err(|error| StoreError::ReadOnly { reason: error.to_string() })?;
    match with_wal(engine, wal, |wal| wal.rotate(0)).await {
        Ok(()) => {}
        Err(WriteFailure::Full(reason)) => return Err(StoreError::ReadOnly { reason }),
        Err(WriteFailure::Failed(reason)) => {
            engine.state.lock().fail(&reason);
            return Err(StoreError::ReadOnly { reason });
        }
    }
    let wal = wal.as_ref().expect("with_wal() gave it back");
    let mut state = engine.state.lock();
    let n = state.position.n;
    state.tail.start_file(wal.current(n));
    state.wal_end = wal.end();
    let memtable: Memtable = std::mem::take(&mut state.memtable);
    let frozen = Arc::new(Frozen { memtable, wal_floor: wal.end().seq, written: Mutex::default() });
    state.frozen.push(frozen.clone());
    Ok(frozen)
}

/// Commits segments and shows them with their ids, at a position that no part has, and with a log that starts there;
/// crate::snapshot::install argues why.
async fn install(
    engine: &Arc<Engine>,
    wal: &mut Option<WalWriter>,
    segments: Uncommitted,
    ids: Vec<(Signal, Window, Vec<AppliedId>)>,
) -> Result<Position, StoreError> {
    let refused = |reason: String| Err(StoreError::ReadOnly { reason });
    if let Err(error) = engine.refuses() {
        return refused(error.to_string());
    }
    let n = match with_wal(engine, wal, WalWriter::skip_position).await {
        Ok(n) => n,
        Err(WriteFailure::Full(reason)) => return refused(reason),
        Err(WriteFailure::Failed(reason)) => {
            engine.state.lock().fail(&reason);
            return refused(reason);
        }
    };
    let start = Position { boot: engine.boot.counter, n };
    let is_announced = !oteld_env::mutant("installed-rows-not-announced");
    let segments = segments.into_kept();
    let metas: Vec<SegmentMeta> = segments.iter().map(|segment| segment.meta.clone()).collect();
    let (file, wal_end) = {
        let wal = wal.as_ref().expect("with_wal() gave it back");
        (wal.current(n), wal.end())
    };
    engine.env.disk.reach("install.before_commit");
    let committed = engine.commit(
        move |manifest| {
            for meta in metas {
                manifest.next_segment = manifest.next_segment.max(meta.id + 1);
                manifest.segments.push(meta);
            }
            if is_announced {
                manifest.log_start = start;
            }
            true
        },
        move |state| {
            state.counters.segments_installed += segments.len() as u64;
            state.segments = Arc::new(state.segments.replace(&BTreeSet::new(), segments));
            for (signal, window, ids) in ids {
                state.ids.extend_loaded(signal, window, &ids);
            }
            state.tail.start_file(file);
            if is_announced {
                state.tail.install(start);
            }
            state.position = start;
            state.wal_end = wal_end;
        },
    );
    if let Err(error) = committed.await {
        // It is not known whether the manifest with the segments counts after a restart, and the log already
        // left their position: no position after it may be shown.
        engine.state.lock().fail(&format!("segments of a peer could not be installed: {error}"));
        return Err(error);
    }
    engine.env.disk.reach("install.after_commit");
    engine.position.send_replace(start);
    Ok(start)
}

/// Asks the task to set the memtable aside.
pub(crate) async fn request_freeze(engine: &Engine) -> Result<Arc<Frozen>, StoreError> {
    let (reply, receiver) = oneshot::channel();
    engine.queue.send(Command::Freeze(reply)).await.map_err(|_| StoreError::Closed)?;
    receiver.await.map_err(|_| StoreError::Closed)?
}
