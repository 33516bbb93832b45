//! Merging the segments of a window: set union, so that neither order nor repetition matters.

pub(crate) mod merge;
pub(crate) mod pick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::StoreError;
use crate::leave::Left;
use crate::manifest::SegmentMeta;
use crate::model::{Signal, Window};
use crate::segments::{OpenSegment, SegmentSet, Uncommitted, empty_trash};
use merge::Target;
use pick::Candidate;

impl Engine {
    /// Deletes what retention ended, merges until no merge is due and what was left is gone, and removes files that
    /// nothing shows. What there is no space for is tried again the next time, and holds nothing else up: another
    /// merge may need less, or give space back.
    pub(crate) async fn compact(self: &Arc<Self>) -> Result<(), StoreError> {
        let _compacting = self.compacting.lock().await;
        self.is_not_closed()?;
        // First what needs no space: what is to be deleted needs some for its manifest.
        self.empty_trash().await;
        self.delete_expired().await?;
        let mut postponed = BTreeSet::new();
        let mut no_space = Ok(());
        loop {
            // What was merged and deleted makes space for the next.
            self.empty_trash().await;
            let (mut segments, left) = {
                let state = self.state.lock();
                (SegmentSet::clone(&state.segments), state.left.clone())
            };
            segments.0.retain(|segment| !postponed.contains(&segment.meta.id));
            let gone = || segments.0.iter().find(|segment| left.is_rewrite_due(segment));
            let merge = self.next_merge(&segments);
            let Some(inputs) = merge.or_else(|| gone().map(|segment| vec![segment.clone()])) else {
                return no_space;
            };
            // The pin of all others ends before their files can go.
            drop(segments);
            match self.check_space(&inputs) {
                Ok(()) => self.merge(inputs, &left).await?,
                Err(error) => {
                    postponed.extend(inputs.iter().map(|segment| segment.meta.id));
                    no_space = no_space.and(Err(error));
                }
            }
        }
    }

    async fn empty_trash(self: &Arc<Self>) {
        let engine = self.clone();
        self.env.tasks.blocking(move || empty_trash(&*engine.env.disk, &engine.trash)).await;
    }

    /// The inputs of the next merge: of the oldest window that is due.
    fn next_merge(&self, segments: &SegmentSet) -> Option<Vec<Arc<OpenSegment>>> {
        let mut windows: BTreeMap<(Window, Signal), Vec<Candidate>> = BTreeMap::new();
        for segment in &segments.0 {
            let SegmentMeta { id, level, info } = &segment.meta;
            let candidate = Candidate { id: *id, level: *level, bytes: info.bytes };
            windows.entry((info.window, info.signal)).or_default().push(candidate);
        }
        let (fan_in, bytes_max) = (self.options.compact_fan_in, self.options.compact_bytes_max);
        let picked = windows.values().find_map(|candidates| pick::pick(candidates, fan_in, bytes_max))?;
        Some(segments.0.iter().filter(|segment| picked.contains(&segment.meta.id)).cloned().collect())
    }

    /// A merge may need as much space as its inputs have; appends come first.
    fn check_space(&self, inputs: &[Arc<OpenSegment>]) -> Result<(), StoreError> {
        let error = |reason: String| StoreError::Io { what: "merge segments".to_owned(), reason };
        let bytes: u64 = inputs.iter().map(|segment| segment.meta.info.bytes).sum();
        let free = self.env.disk.free_bytes(&self.options.dir).map_err(|source| error(source.to_string()))?;
        let needed = bytes.saturating_add(self.options.min_free_bytes);
        if free < needed {
            return Err(error(format!("{free} bytes are free on the disk and {needed} are needed")));
        }
        Ok(())
    }

    async fn merge(
        self: &Arc<Self>,
        inputs: Vec<Arc<OpenSegment>>,
        left: &Arc<Left>,
    ) -> Result<(), StoreError> {
        let engine = self.clone();
        let sources = inputs.clone();
        let (floors, left) = (self.state.lock().floors.clone(), left.clone());
        let write = move || {
            let level = sources.iter().map(|segment| segment.meta.level).max().unwrap_or(0);
            let level = level + u32::from(sources.len() > 1);
            let target = Target { id: engine.new_segment_id(), level, shards: None, left: &left };
            let mut written = Uncommitted::default();
            if let Some(segment) = merge::write(&engine, &target, &sources, &floors)? {
                written.push(segment);
                engine.sync_segments_dir()?;
            }
            Ok(written.into_kept())
        };
        let output = self.env.tasks.blocking(write).await?;
        let removed: BTreeSet<u64> = inputs.iter().map(|segment| segment.meta.id).collect();
        let added: Vec<SegmentMeta> = output.iter().map(|segment| segment.meta.clone()).collect();
        self.env.disk.reach("compaction.before_commit");
        if oteld_env::mutant("merge-inputs-deleted-early") {
            inputs.iter().for_each(|segment| drop(self.env.disk.remove_file(segment.path())));
        }
        self.commit_segments(removed, added, output, |state| {
            state.counters.compactions += 1;
        })
        .await?;
        self.env.disk.reach("compaction.after_commit");
        Ok(())
    }

    /// Exchanges segments in the manifest, then in the published state.
    pub(crate) async fn commit_segments(
        self: &Arc<Self>,
        removed: BTreeSet<u64>,
        added: Vec<SegmentMeta>,
        opened: Vec<Arc<OpenSegment>>,
        publish: impl FnOnce(&mut crate::engine::State) + Send + 'static,
    ) -> Result<(), StoreError> {
        let gone = removed.clone();
        self.commit(
            move |manifest| {
                manifest.segments.retain(|meta| !gone.contains(&meta.id));
                for meta in added {
                    manifest.next_segment = manifest.next_segment.max(meta.id + 1);
                    manifest.segments.push(meta);
                }
                true
            },
            move |state| {
                state.segments = Arc::new(state.segments.replace(&removed, opened));
                publish(state);
            },
        )
        .await
        .map(drop)
    }
}
