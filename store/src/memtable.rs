//! What is durable in the WAL and in no segment yet: the batches' own bytes, by signal and window.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::batch::{Batch, PartHeader};
use crate::ids::PartId;
use crate::model::{Signal, Window};

/// What a part costs in memory beside the bytes of its batch: its place here, in the ids and in the tail.
const PART_OVERHEAD_BYTES: u64 = 256;

/// One part of a batch.
#[derive(Clone, Debug)]
pub(crate) struct MemPart {
    pub batch: Batch,
    pub index: usize,
}

impl MemPart {
    pub(crate) fn header(&self) -> &PartHeader {
        &self.batch.parts()[self.index]
    }

    /// The window of the first row: where the part and its id are kept.
    pub(crate) fn window(&self) -> Window {
        Window::of(self.header().min_time_unix_nano)
    }

    pub(crate) fn id(&self) -> PartId {
        let header = self.header();
        PartId {
            signal: self.batch.signal(),
            window: self.window(),
            request: header.request,
            digest: header.digest,
            shard: header.shard,
        }
    }

    pub(crate) fn row_count(&self) -> u64 {
        u64::from(self.header().rows.end - self.header().rows.start)
    }

    /// The share of the batch's bytes, roughly.
    pub(crate) fn byte_count(&self) -> u64 {
        MemParts { batch: self.batch.clone(), parts: vec![self.index] }.byte_count()
    }
}

/// Parts of one batch, in its order: what is decoded at once.
#[derive(Clone, Debug)]
pub(crate) struct MemParts {
    pub batch: Batch,
    pub parts: Vec<usize>,
}

impl MemParts {
    pub(crate) fn headers(&self) -> impl Iterator<Item = &PartHeader> {
        self.parts.iter().map(|part| &self.batch.parts()[*part])
    }

    pub(crate) fn row_count(&self) -> u64 {
        self.headers().map(|part| u64::from(part.rows.end - part.rows.start)).sum()
    }

    /// The share of the batch's bytes, roughly.
    pub(crate) fn byte_count(&self) -> u64 {
        let all = u64::from(self.batch.row_count()).max(1);
        (self.batch.bytes().len() as u64).saturating_mul(self.row_count()) / all
    }
}

/// Parts whose first row is in one window of one signal. Grows at the end only, so that a pin needs no more
/// than the length.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    parts: RwLock<Vec<MemPart>>,
}

impl Bucket {
    /// Of the first `len` parts those that `take` wants, by batch.
    pub(crate) fn select(&self, len: usize, take: impl Fn(&PartHeader) -> bool) -> Vec<MemParts> {
        let mut selected: Vec<MemParts> = Vec::new();
        for part in self.parts.read()[..len].iter().filter(|part| take(part.header())) {
            match selected.last_mut() {
                Some(last) if last.batch.is(&part.batch) => last.parts.push(part.index),
                _ => selected.push(MemParts { batch: part.batch.clone(), parts: vec![part.index] }),
            }
        }
        selected
    }
}

/// A bucket as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct PinnedBucket {
    pub signal: Signal,
    pub window: Window,
    pub bucket: Arc<Bucket>,
    pub len: usize,
}

/// Parts that are in no segment yet.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    buckets: BTreeMap<(Signal, Window), Arc<Bucket>>,
    bytes: u64,
    rows: BTreeMap<Signal, u64>,
    since_unix_nano: Option<u64>,
    /// Windows with rows, at least roughly: of a part only the first and the last are known without its rows.
    row_windows: BTreeSet<(Signal, Window)>,
}

impl Memtable {
    /// Adds the `accepted` parts of a batch that is durable.
    pub(crate) fn insert(&mut self, batch: &Batch, accepted: &[usize], now_unix_nano: u64) {
        self.since_unix_nano.get_or_insert(now_unix_nano);
        self.bytes += batch.bytes().len() as u64 + PART_OVERHEAD_BYTES * accepted.len() as u64;
        for index in accepted {
            let part = MemPart { batch: batch.clone(), index: *index };
            *self.rows.entry(batch.signal()).or_default() += part.row_count();
            self.note_windows(&part);
            let bucket = self.buckets.entry((batch.signal(), part.window())).or_default();
            bucket.parts.write().push(part);
        }
    }

    /// Rows between the first and the last may each have a window of their own.
    fn note_windows(&mut self, part: &MemPart) {
        let header = part.header();
        let (first, last) = (part.window().0, Window::of(header.max_time_unix_nano).0);
        let count = part.row_count().min(last.saturating_sub(first).saturating_add(1));
        let windows = (first..first.saturating_add(count.saturating_sub(1))).chain([last]);
        self.row_windows.extend(windows.map(|window| (part.batch.signal(), Window(window))));
    }

    /// How many windows of event time have rows here, roughly.
    pub(crate) fn window_count(&self) -> usize {
        self.row_windows.len()
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// When the oldest part came.
    pub(crate) fn since_unix_nano(&self) -> Option<u64> {
        self.since_unix_nano
    }

    /// Rows of each signal, repeats included.
    pub(crate) fn rows(&self) -> &BTreeMap<Signal, u64> {
        &self.rows
    }

    /// Windows that hold ids which no segment has.
    pub(crate) fn windows(&self) -> BTreeSet<(Signal, Window)> {
        self.buckets.keys().copied().collect()
    }

    /// What is in it now.
    pub(crate) fn pin(&self) -> impl Iterator<Item = PinnedBucket> {
        self.buckets.iter().map(|((signal, window), bucket)| PinnedBucket {
            signal: *signal,
            window: *window,
            bucket: bucket.clone(),
            len: bucket.parts.read().len(),
        })
    }

    /// All parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = MemPart> {
        self.buckets.values().flat_map(|bucket| bucket.parts.read().clone())
    }
}
