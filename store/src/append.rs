//! Appending parts: reserve their ids, queue them for the WAL, answer when they are published (PROTOCOL, A1 to
//! A4).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::batch::{Batch, FormatError};
use crate::engine::{Engine, Frozen, State};
use crate::error::{AppendError, StoreError};
use crate::floors::floor_of;
use crate::ids::{Check, Origin, PartId};
use crate::memtable::MemPart;
use crate::model::{Signal, Window};
use crate::snapshot::Install;
use crate::wal::record::CursorAdvance;

/// What became of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// New, durable and published.
    Applied,
    /// It was durable and published before.
    Duplicate,
    /// All of its rows are below the retention floor: nothing was kept of it.
    BelowFloor,
    /// The request id is known with another body. Never an acknowledgement, and never an answer to a pull.
    Conflict,
}

/// What the WAL task is asked to do, in order.
#[derive(Debug)]
pub(crate) enum Command {
    Append(QueuedAppend),
    Cursor(CursorAdvance),
    /// Start a new WAL file and set the memtable aside, together.
    Freeze(oneshot::Sender<Result<Arc<Frozen>, StoreError>>),
    /// Commit and show segments of a peer, at a position of their own.
    Install(Install),
    /// Refuse what comes later, and end.
    Close(oneshot::Sender<()>),
}

/// Parts whose ids are reserved.
#[derive(Debug)]
pub(crate) struct QueuedAppend {
    pub batch: Batch,
    pub accepted: Vec<usize>,
    pub reservation: Reservation,
    pub reply: oneshot::Sender<Result<(), AppendError>>,
    /// Room in the queue, given back when the parts are published.
    #[expect(dead_code, reason = "held, not used")]
    pub room: OwnedSemaphorePermit,
}

/// Reserved ids. Dropped unpublished, others may take them.
#[derive(Debug)]
pub(crate) struct Reservation {
    engine: Arc<Engine>,
    ids: Vec<PartId>,
    outcome: watch::Sender<bool>,
}

impl Reservation {
    fn new(engine: Arc<Engine>) -> Self {
        Reservation { engine, ids: Vec::new(), outcome: watch::channel(false).0 }
    }

    fn reserve(&mut self, state: &mut State, id: PartId) {
        state.ids.reserve(&id, self.outcome.subscribe());
        self.ids.push(id);
    }

    /// Turns the reserved ids into applied ones, in the critical section that publishes their parts.
    pub(crate) fn publish(&mut self, state: &mut State) {
        for id in self.ids.drain(..) {
            state.ids.apply(&id);
            state.ids.release(&id);
        }
        self.outcome.send_replace(true);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let mut state = self.engine.state.lock();
        for id in &self.ids {
            state.ids.release(id);
        }
    }
}

/// What one look at the ids said.
struct Round {
    /// Places in the answer whose parts were reserved, with the reply to wait for.
    reserved: Vec<usize>,
    reply: Option<oneshot::Receiver<Result<(), AppendError>>>,
    /// Places to ask for again, and when.
    waiting: Vec<(usize, watch::Receiver<bool>)>,
    not_loaded: Vec<(usize, Signal, Window)>,
}

impl Engine {
    /// See [`crate::Store::append`] and [`crate::Store::append_pulled`].
    pub(crate) async fn append(
        self: &Arc<Self>,
        batch: &Batch,
        parts: &[usize],
        origin: Origin,
    ) -> Result<Vec<Appended>, AppendError> {
        let resolved = self.definitions.lock().resolve(batch);
        let batch = &resolved.map_err(|error| match error {
            FormatError::MissingDefinitions(hashes) => AppendError::MissingDefinitions(hashes),
            error => AppendError::Format(error.to_string()),
        })?;
        let count = batch.parts().len();
        if let Some(part) = parts.iter().find(|part| **part >= count) {
            return Err(AppendError::Format(format!("part {part} of a batch of {count}")));
        }
        let mut answers: Vec<Option<Appended>> = vec![None; parts.len()];
        let mut open: Vec<usize> = (0..parts.len()).collect();
        while !open.is_empty() {
            self.refuses()?;
            let round = self.reserve_round(batch, parts, &open, origin, &mut answers).await?;
            open.clear();
            if let Some(reply) = round.reply {
                reply.await.map_err(|_| AppendError::Closed)??;
                round.reserved.iter().for_each(|place| answers[*place] = Some(Appended::Applied));
            }
            for (place, mut outcome) in round.waiting {
                // An error means that the original failed; either way the ids say what to do now.
                let _ = outcome.wait_for(|published| *published).await;
                open.push(place);
            }
            for (place, signal, window) in round.not_loaded {
                self.load_ids(signal, window)
                    .await
                    .map_err(|error| AppendError::ReadOnly { reason: error.to_string() })?;
                open.push(place);
            }
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.expect("every part was answered or asked again"))
            .collect())
    }

    /// Looks at the ids of the open parts once and queues those that are new.
    async fn reserve_round(
        self: &Arc<Self>,
        batch: &Batch,
        parts: &[usize],
        open: &[usize],
        origin: Origin,
        answers: &mut [Option<Appended>],
    ) -> Result<Round, AppendError> {
        // Room first: nothing may be awaited between the reservation and the queue.
        let units = self.queue_units(batch.bytes().len());
        let room = self.queue_bytes.clone().acquire_many_owned(units);
        let room = room.await.map_err(|_| AppendError::Closed)?;
        let slot = self.queue.reserve().await.map_err(|_| AppendError::Closed)?;
        let mut round =
            Round { reserved: Vec::new(), reply: None, waiting: Vec::new(), not_loaded: Vec::new() };
        let mut reservation = Reservation::new(self.clone());
        let mut accepted = Vec::new();
        let mut state = self.state.lock();
        let behind = self.is_behind(&state);
        for &place in open {
            let part = MemPart { batch: batch.clone(), index: parts[place] };
            let header = part.header();
            if header.max_time_unix_nano < floor_of(&state.floors, batch.signal(), &header.tenant) {
                answers[place] = Some(Appended::BelowFloor);
                continue;
            }
            let id = part.id();
            match state.ids.check(&id, origin) {
                Check::Applied => answers[place] = Some(Appended::Duplicate),
                Check::Conflict => answers[place] = Some(Appended::Conflict),
                Check::Wait(_) if oteld_env::mutant("duplicate-acknowledged-early") => {
                    answers[place] = Some(Appended::Duplicate);
                }
                Check::Wait(outcome) => round.waiting.push((place, outcome)),
                Check::NotLoaded => round.not_loaded.push((place, id.signal, id.window)),
                Check::New => {
                    reservation.reserve(&mut state, id);
                    accepted.push(part.index);
                    round.reserved.push(place);
                }
            }
        }
        drop(state);
        if accepted.is_empty() {
            return Ok(round);
        }
        if let Some(reason) = behind {
            self.wake_flush.notify_one();
            return Err(AppendError::Busy { reason });
        }
        let (reply, receiver) = oneshot::channel();
        slot.send(Command::Append(QueuedAppend { batch: batch.clone(), accepted, reservation, reply, room }));
        round.reply = Some(receiver);
        Ok(round)
    }

    /// Makes the ids of a window's segments known.
    pub(crate) async fn load_ids(&self, signal: Signal, window: Window) -> Result<(), StoreError> {
        // One at a time, so that a window cannot be flushed and forgotten between the look and the load.
        let _loading = self.loading.lock().await;
        let (segments, left) = {
            let state = self.state.lock();
            if state.ids.is_loaded(signal, window) {
                return Ok(());
            }
            (state.segments.of(signal, window), state.left.clone())
        };
        let read = move || {
            let mut ids = Vec::new();
            for segment in segments {
                let read = segment.ids().map_err(|error| StoreError::Damaged {
                    what: segment.path().display().to_string(),
                    reason: error.to_string(),
                })?;
                ids.extend(left.ids(segment.meta.id, read));
            }
            Ok(ids)
        };
        let ids = self.env.tasks.blocking(read).await?;
        let mut state = self.state.lock();
        let keep = state.unflushed_windows();
        state.ids.evict(self.options.ids_max, &keep);
        state.ids.load(signal, window, &ids);
        Ok(())
    }

    /// The unit of the queue's room is a KiB, since permits are counted in 32 bits.
    fn queue_units(&self, bytes: usize) -> u32 {
        let units = (bytes as u64).div_ceil(1024).clamp(1, queue_units_max(self.options.wal_queue_bytes_max));
        units as u32
    }
}

/// Room of the whole queue, in KiB.
pub(crate) fn queue_units_max(bytes_max: u64) -> u64 {
    (bytes_max / 1024).clamp(1, u64::from(u32::MAX >> 4))
}

/// The queue between appends and the WAL task.
pub(crate) fn queue(appends_max: usize) -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(appends_max.max(1))
}
