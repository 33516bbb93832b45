//! From memtables to level-0 segments: one for each (signal, window), sorted and merged as a set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::Batch;
use crate::compaction::merge::SortedRows;
use crate::engine::{Engine, Frozen, segments_dir, wal_dir};
use crate::error::StoreError;
use crate::floors::{Floors, floor_of};
use crate::manifest::SegmentMeta;
use crate::memtable::{MemPart, Memtable};
use crate::model::{RequestId, Rows, Shard, Signal, Tenant, Window};
use crate::segment::{AppliedId, Segment, SegmentError, SegmentWriter};
use crate::segments::{self, OpenSegment, Uncommitted};
use crate::wal::file;
use crate::wal_task::request_freeze;

/// Encoded bytes whose rows are decoded and sorted at once, so that a flush needs a few times as much memory and
/// reads each batch a few times.
const RUN_BYTES_MAX: u64 = 16 << 20;

impl Engine {
    /// Whether a memtable is large, wide or old, or an earlier flush failed.
    pub(crate) fn is_flush_due(&self) -> bool {
        let now = self.env.clock.now_unix_nanos();
        let state = self.state.lock();
        let age_max = self.options.memtable_age_max.as_nanos();
        let is_old = state
            .memtable
            .since_unix_nano()
            .is_some_and(|since| u128::from(now.saturating_sub(since)) >= age_max);
        is_old || !state.frozen.is_empty() || self.is_memtable_full(&state)
    }

    /// Makes segments of all that is in memtables now, then lets go of WAL files.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        let _flushing = self.flushing.lock().await;
        self.is_not_closed()?;
        // What an earlier flush left comes first: where that fails again, no further WAL file is started.
        self.flush_all_frozen().await?;
        let bytes = {
            let state = self.state.lock();
            (!state.memtable.is_empty()).then(|| state.memtable.bytes())
        };
        if let Some(bytes) = bytes {
            self.check_flush_space(bytes).await?;
            request_freeze(self).await?;
            self.flush_all_frozen().await?;
        }
        self.drop_wal_files().await
    }

    async fn flush_all_frozen(self: &Arc<Self>) -> Result<(), StoreError> {
        loop {
            let Some(frozen) = self.state.lock().frozen.first().cloned() else { return Ok(()) };
            self.flush_frozen(frozen).await?;
        }
    }

    /// Segments take no more than their batches, roughly; those of a disk that cannot hold them are not begun.
    async fn check_flush_space(self: &Arc<Self>, needed: u64) -> Result<(), StoreError> {
        let engine = self.clone();
        let free = self.env.tasks.blocking(move || engine.env.disk.free_bytes(&engine.options.dir)).await;
        let error = |reason: String| StoreError::Io { what: "flush memtables".to_owned(), reason };
        let free = free.map_err(|source| error(source.to_string()))?;
        if free < needed {
            return Err(error(format!("{free} bytes are free on the disk and {needed} are needed")));
        }
        Ok(())
    }

    async fn flush_frozen(self: &Arc<Self>, frozen: Arc<Frozen>) -> Result<(), StoreError> {
        let earlier = frozen.written.lock().clone();
        let written = match earlier {
            Some(written) => written,
            None => self.write_frozen(&frozen).await?,
        };
        self.commit_frozen(frozen, written).await
    }

    /// Writes the segments of a memtable, and keeps them until a manifest names them.
    async fn write_frozen(
        self: &Arc<Self>,
        frozen: &Arc<Frozen>,
    ) -> Result<Vec<Arc<OpenSegment>>, StoreError> {
        self.check_flush_space(frozen.memtable.bytes()).await?;
        // Held by the work, which goes on when the caller goes away: the next flush waits, and finds what it wrote.
        let writing = self.writing.clone().lock_owned().await;
        let engine = self.clone();
        let input = frozen.clone();
        let floors = self.state.lock().floors.clone();
        let write = move || {
            let _writing = writing;
            if let Some(written) = input.written.lock().clone() {
                return Ok(written);
            }
            let mut written = Uncommitted::default();
            if let Err(error) = write_segments(&engine, &input.memtable, &floors, &mut written) {
                // They give the space back at once.
                drop(written);
                segments::empty_trash(&*engine.env.disk, &engine.trash);
                return Err(error);
            }
            let written = written.into_kept();
            *input.written.lock() = Some(written.clone());
            Ok(written)
        };
        self.env.tasks.blocking(write).await
    }

    async fn commit_frozen(
        self: &Arc<Self>,
        frozen: Arc<Frozen>,
        written: Vec<Arc<OpenSegment>>,
    ) -> Result<(), StoreError> {
        let metas: Vec<SegmentMeta> = written.iter().map(|segment| segment.meta.clone()).collect();
        let wal_floor = frozen.wal_floor + u64::from(oteld_env::mutant("wal-released-before-flush"));
        let ids_max = self.options.ids_max;
        // No window may be loaded from the segments of before: its unflushed ids are forgotten with this flush.
        // Held by the commit itself, which goes on when the caller goes away.
        let loading = self.loading.clone().lock_owned().await;
        self.env.disk.reach("flush.before_commit");
        let (engine, committed) = (self.clone(), frozen.clone());
        self.commit(
            move |manifest| {
                // A commit goes on when its caller goes away, and the next flush finds the same memtable. Its segments
                // may be merged and gone when this one comes: a manifest must not name them again.
                if !engine.state.lock().frozen.iter().any(|other| Arc::ptr_eq(other, &committed)) {
                    return false;
                }
                manifest.next_segment =
                    metas.iter().map(|meta| meta.id + 1).max().unwrap_or(0).max(manifest.next_segment);
                manifest.segments.extend(metas);
                manifest.wal_floor = wal_floor.max(manifest.wal_floor);
                true
            },
            move |state| {
                let _loading = loading;
                state.segments = Arc::new(state.segments.replace(&BTreeSet::new(), written));
                state.frozen.retain(|other| !Arc::ptr_eq(other, &frozen));
                state.counters.flushes += 1;
                let keep = state.unflushed_windows();
                state.ids.evict(ids_max, &keep);
                // Given back, so that its memory is not freed under the lock.
                frozen
            },
        )
        .await
        .map(drop)?;
        self.env.disk.reach("flush.after_commit");
        Ok(())
    }

    /// Removes WAL files that are flushed and not kept for peers.
    async fn drop_wal_files(self: &Arc<Self>) -> Result<(), StoreError> {
        let floor = self.manifest.lock().await.current().wal_floor;
        let needed = self.state.lock().tail.drop_files(floor, self.options.wal_keep_bytes);
        let engine = self.clone();
        let remove = move || {
            let disk = &engine.env.disk;
            let mut files: Vec<_> = disk
                .list(&wal_dir(&engine.options))?
                .into_iter()
                .filter_map(|path| Some((file::seq_of(&path)?, path)))
                .filter(|(seq, _)| *seq < needed)
                .collect();
            // Oldest first, so that those that are left are connected.
            files.sort();
            files.iter().try_for_each(|(_, path)| disk.remove_file(path))
        };
        self.env.tasks.blocking(remove).await.map_err(|error: std::io::Error| StoreError::Io {
            what: "remove a flushed WAL file".to_owned(),
            reason: error.to_string(),
        })
    }

    /// A number for a new segment.
    pub(crate) fn new_segment_id(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    /// Opens a segment that was just written, makes its name durable and gives it to the caller to commit.
    pub(crate) fn adopt(&self, meta: SegmentMeta, path: &Path) -> Result<Arc<OpenSegment>, StoreError> {
        let segment = Segment::open(self.env.disk.clone(), path).map_err(|error| write_error(&error))?;
        let (trash, loss) = (self.trash.clone(), self.loss.clone());
        Ok(Arc::new(OpenSegment::new(meta, segment, path.to_owned(), trash, loss)))
    }

    /// Makes the names of new segments durable.
    pub(crate) fn sync_segments_dir(&self) -> Result<(), StoreError> {
        if oteld_env::mutant("no-dir-sync-of-segments") {
            return Ok(());
        }
        self.env.disk.sync_dir(&segments_dir(&self.options)).map_err(|error| StoreError::Io {
            what: "sync the directory of segments".to_owned(),
            reason: error.to_string(),
        })
    }
}

pub(crate) fn write_error(error: &SegmentError) -> StoreError {
    StoreError::Io { what: "write a segment".to_owned(), reason: error.to_string() }
}

/// Writes the segments of a memtable. What was written before an error is in `written`.
fn write_segments(
    engine: &Engine,
    memtable: &Memtable,
    floors: &Floors,
    written: &mut Uncommitted,
) -> Result<(), StoreError> {
    for ((signal, window), parts) in parts_by_window(memtable)? {
        // A store that is closed does not wait for the rest: the log has it.
        engine.is_not_closed()?;
        let ids = ids_of(&parts);
        if let Some(segment) = write_segment(engine, signal, window, &parts, floors, &ids)? {
            engine.env.disk.reach("flush.segment_written");
            written.push(segment);
        }
    }
    if written.as_slice().is_empty() { Ok(()) } else { engine.sync_segments_dir() }
}

/// Parts by (shard, tenant): the order of a segment's groups.
type Groups = BTreeMap<(Shard, Tenant), Vec<MemPart>>;

/// The parts that have rows in each window.
fn parts_by_window(memtable: &Memtable) -> Result<BTreeMap<(Signal, Window), Groups>, StoreError> {
    let mut windows: BTreeMap<(Signal, Window), Groups> = BTreeMap::new();
    for part in memtable.parts() {
        let header = part.header();
        let group = (header.shard, header.tenant.clone());
        let mut own = BTreeSet::from([part.window()]);
        if Window::of(header.max_time_unix_nano) != part.window() {
            let rows = decode(&part.batch, &[part.index])?;
            own.extend((0..rows.len()).map(|index| Window::of(rows.event_time_unix_nano(index))));
        }
        for window in own {
            let groups = windows.entry((part.batch.signal(), window)).or_default();
            groups.entry(group.clone()).or_default().push(part.clone());
        }
    }
    Ok(windows)
}

fn decode(batch: &Batch, parts: &[usize]) -> Result<Rows, StoreError> {
    batch.decode_parts(parts).map_err(|error| StoreError::Damaged {
        what: "a batch in memory".to_owned(),
        reason: error.to_string(),
    })
}

/// Groups in order, cut so that the rows of each run may be in memory at once. A batch has rows of many shards: it is
/// decoded once for each run, and not once for each group.
fn runs(groups: &Groups) -> Vec<Vec<(&Shard, &Tenant, &Vec<MemPart>)>> {
    let mut runs = Vec::new();
    let mut run = Vec::new();
    let mut bytes = 0;
    for ((shard, tenant), parts) in groups {
        run.push((shard, tenant, parts));
        bytes += parts.iter().map(MemPart::byte_count).sum::<u64>();
        if bytes > RUN_BYTES_MAX {
            runs.push(std::mem::take(&mut run));
            bytes = 0;
        }
    }
    runs.push(run);
    runs
}

/// The rows of a run whose event time `take` wants, by group.
fn sorted_rows(
    run: &[(&Shard, &Tenant, &Vec<MemPart>)],
    take: impl Fn(&Tenant, u64) -> bool,
) -> Result<Vec<SortedRows>, StoreError> {
    // By batch, in the order of its parts.
    let mut batches: HashMap<*const u8, Vec<(usize, &Batch, usize)>> = HashMap::new();
    for (group, (_, _, parts)) in run.iter().enumerate() {
        for part in *parts {
            let of_batch = batches.entry(part.batch.bytes().as_ptr()).or_default();
            of_batch.push((part.index, &part.batch, group));
        }
    }
    let mut sorted: Vec<SortedRows> = run.iter().map(|_| SortedRows::default()).collect();
    for mut parts in batches.into_values() {
        parts.sort_by_key(|(index, ..)| *index);
        let indices: Vec<usize> = parts.iter().map(|(index, ..)| *index).collect();
        let batch = parts[0].1;
        let lengths = indices.iter().map(|index| batch.parts()[*index].rows.len());
        let rows = decode(batch, &indices)?.split(lengths);
        for (rows, (.., group)) in rows.into_iter().zip(parts) {
            sorted[group].add(rows, |time| take(run[group].1, time));
        }
    }
    Ok(sorted)
}

/// The requests that have rows in a window, for its segment's footer. A part whose rows lie in several windows is
/// in each of them, so that a replica that compares the ids of one segment with its own learns whether it lacks
/// rows of that very segment (PROTOCOL, T2).
fn ids_of(groups: &Groups) -> Vec<AppliedId> {
    let mut requests: BTreeMap<(RequestId, u64), BTreeSet<Shard>> = BTreeMap::new();
    for part in groups.values().flatten() {
        let id = part.id();
        requests.entry((id.request, id.digest)).or_default().insert(id.shard);
    }
    let ids = requests.into_iter().map(|((request, digest), shards)| AppliedId {
        request,
        digest,
        shards: shards.into_iter().collect(),
    });
    ids.collect()
}

/// Writes one segment, or none where every row is below its floor.
fn write_segment(
    engine: &Engine,
    signal: Signal,
    window: Window,
    groups: &Groups,
    floors: &Floors,
    ids: &[AppliedId],
) -> Result<Option<Arc<OpenSegment>>, StoreError> {
    let mut output: Option<SegmentWriter> = None;
    let id = engine.new_segment_id();
    let path = segments::path(&segments_dir(&engine.options), id);
    let mut write = || {
        for run in runs(groups) {
            let take = |tenant: &Tenant, time: u64| {
                Window::of(time) == window && time >= floor_of(floors, signal, tenant)
            };
            for (rows, (shard, tenant, _)) in sorted_rows(&run, take)?.into_iter().zip(&run) {
                for row in rows.into_set() {
                    if output.is_none() {
                        let disk = &*engine.env.disk;
                        let created = SegmentWriter::create(disk, &path, signal, window);
                        output = Some(created.map_err(|error| write_error(&error))?);
                    }
                    let writer = output.as_mut().expect("created above");
                    writer.push(**shard, tenant, row).map_err(|error| write_error(&error))?;
                }
            }
        }
        let Some(output) = output.take() else { return Ok(None) };
        let info = output.finish(ids).map_err(|error| write_error(&error))?;
        engine.adopt(SegmentMeta { id, level: 0, info }, &path).map(Some)
    };
    let written = write();
    if written.is_err() {
        engine.trash.lock().insert(path.clone());
    }
    written
}
