//! Rows in order to a file.

use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::{Disk, DiskFile};
use xxhash_rust::xxh3::Xxh3;

use super::directory::{Directory, Footer, Section, header};
use super::{
    AppliedId, Group, PAGE_BYTES_MAX, PAGE_ROWS_MAX, PageInfo, RowKey, SegmentError, SegmentInfo, SegmentRow,
    definitions, ids,
};
use crate::canonical::RowRef;
use crate::column::Effort;
use crate::entities::{Entities, Owner, SeriesSet, StreamSet};
use crate::model::{AnyValue, Attributes, Rows, Series, Shard, Signal, Stream, Tenant, Window};
use crate::page;

/// Written bytes are kept back up to this many.
const BUFFER_BYTES: usize = 1 << 20;

/// A segment that is being written. Dropped before [`SegmentWriter::finish`], it leaves a file that does not open.
#[derive(Debug)]
pub struct SegmentWriter {
    output: Output,
    signal: Signal,
    window: Window,
    entities: Entities,
    /// Series or streams of finished groups.
    series: Vec<(Arc<Series>, Owner)>,
    streams: Vec<(Arc<Stream>, Owner)>,
    groups: Vec<Group>,
    pages: Vec<PageInfo>,
    group: OpenGroup,
    page: OpenPage,
    last: Option<RowKey>,
}

/// The names of the last group.
#[derive(Debug, Default)]
struct OpenGroup {
    series: SeriesSet,
    streams: StreamSet,
}

/// Rows of the next page.
#[derive(Debug)]
struct OpenPage {
    rows: Rows,
    names: Vec<u32>,
    weight: usize,
    ids: (u128, u128),
    times: (u64, u64),
}

impl OpenPage {
    fn new(signal: Signal) -> Self {
        OpenPage { rows: Rows::new(signal), names: Vec::new(), weight: 0, ids: (0, 0), times: (0, 0) }
    }
}

impl SegmentWriter {
    /// Starts a file, replacing one that is there.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        signal: Signal,
        window: Window,
    ) -> Result<Self, SegmentError> {
        let file = disk.open(path, true).map_err(SegmentError::io("create", path))?;
        file.set_len(0).map_err(SegmentError::io("empty", path))?;
        let mut output =
            Output { file, path: path.to_owned(), buffer: Vec::new(), written: 0, hash: Xxh3::new() };
        output.write(&header(signal))?;
        Ok(SegmentWriter {
            output,
            signal,
            window,
            entities: Entities::default(),
            series: Vec::new(),
            streams: Vec::new(),
            groups: Vec::new(),
            pages: Vec::new(),
            group: OpenGroup::default(),
            page: OpenPage::new(signal),
            last: None,
        })
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When the row is not after the last one by (shard, tenant, [`RowKey`]) or equal to it, or is of another signal
    /// or window.
    pub fn push(
        &mut self,
        shard: Shard,
        tenant: &Tenant,
        row: impl Into<SegmentRow>,
    ) -> Result<(), SegmentError> {
        let row = row.into();
        let (key, weight) = match &row {
            SegmentRow::Metric(row) => (RowKey::of(row), weight_of(RowRef::Metric(row))),
            SegmentRow::Log(row) => (RowKey::of(row), weight_of(RowRef::Log(row))),
            SegmentRow::Span(row) => (RowKey::of(row), weight_of(RowRef::Span(row))),
        };
        assert_eq!(Window::of(key.time_unix_nano), self.window, "a row of another window");
        let place = (shard, tenant);
        match self.groups.last().map(|group| (group.shard, &group.tenant)) {
            Some(last) if last == place => {
                assert!(self.last <= Some(key), "rows must come in order of their keys");
                if self.page.rows.len() >= PAGE_ROWS_MAX || self.page.weight + weight > PAGE_BYTES_MAX {
                    self.finish_page()?;
                }
            }
            last => {
                assert!(last < Some(place), "rows must come in order of shard and tenant");
                self.start_group(shard, tenant)?;
            }
        }
        self.last = Some(key);
        self.add(row, key, weight);
        Ok(())
    }

    fn add(&mut self, row: SegmentRow, key: RowKey, weight: usize) {
        let base = (self.series.len() + self.streams.len()) as u32;
        let page = &mut self.page;
        let name = match (&mut page.rows, row) {
            (Rows::Metrics(rows), SegmentRow::Metric(row)) => {
                let name = self.group.series.index(&row.series, &mut self.entities);
                rows.push(row);
                name
            }
            (Rows::Logs(rows), SegmentRow::Log(row)) => {
                let name = self.group.streams.index(&row.stream, &mut self.entities);
                rows.push(row);
                name
            }
            (Rows::Traces(rows), SegmentRow::Span(row)) => {
                let name = self.group.streams.index(&row.stream, &mut self.entities);
                rows.push(row);
                name
            }
            _ => panic!("a row of another signal"),
        };
        let first = page.names.is_empty();
        page.names.push(base + name);
        page.weight += weight;
        let time = key.time_unix_nano;
        if first {
            (page.ids.0, page.times) = (key.id, (time, time));
        }
        page.ids.1 = key.id;
        page.times = (page.times.0.min(time), page.times.1.max(time));
    }

    fn start_group(&mut self, shard: Shard, tenant: &Tenant) -> Result<(), SegmentError> {
        self.finish_group()?;
        let (page, name) = (self.pages.len(), self.series.len() + self.streams.len());
        self.groups.push(Group {
            shard,
            tenant: tenant.clone(),
            rows: 0,
            pages: page..page,
            names: name..name,
        });
        Ok(())
    }

    fn finish_group(&mut self) -> Result<(), SegmentError> {
        self.finish_page()?;
        let names = mem::take(&mut self.group);
        self.series.extend(names.series.items);
        self.streams.extend(names.streams.items);
        let end = self.series.len() + self.streams.len();
        if let Some(group) = self.groups.last_mut() {
            group.pages.end = self.pages.len();
            group.names.end = end;
        }
        Ok(())
    }

    fn finish_page(&mut self) -> Result<(), SegmentError> {
        let page = mem::replace(&mut self.page, OpenPage::new(self.signal));
        let Some(group) = self.groups.last_mut().filter(|_| !page.rows.is_empty()) else { return Ok(()) };
        let rows = page.rows.len() as u64;
        group.rows += rows;
        let mut bytes = Vec::new();
        page::encode(&mut bytes, Effort::Small, &page.rows, &page.names);
        let section = Section::of(&bytes);
        self.pages.push(PageInfo {
            group: self.groups.len() - 1,
            rows,
            bytes: section.len,
            ids: page.ids.0..=page.ids.1,
            time_unix_nano: page.times.0..=page.times.1,
            offset: self.output.position(),
            checksum: section.checksum,
        });
        self.output.write(&bytes)
    }

    /// Writes what is left and makes the file durable; its name is durable after a sync of the directory, which
    /// is the caller's.
    ///
    /// # Panics
    /// When the shards of an id are not sorted.
    pub fn finish(mut self, ids: &[AppliedId]) -> Result<SegmentInfo, SegmentError> {
        self.finish_group()?;
        let definitions = definitions::encode(&self.entities, &self.series, &self.streams);
        let encoded_ids = ids::encode(ids);
        self.output.write(&definitions)?;
        self.output.write(&encoded_ids)?;
        let directory = Directory {
            signal: self.signal,
            window: self.window,
            definitions: Section::of(&definitions),
            ids: Section::of(&encoded_ids),
            id_count: ids.len() as u64,
            groups: self.groups,
            pages: self.pages,
        };
        let encoded = directory.encode();
        self.output.write(&encoded)?;
        let file_checksum = self.output.hash.digest();
        let footer = Footer { directory: Section::of(&encoded), file_checksum };
        self.output.write(&footer.encode())?;
        self.output.flush()?;
        self.output.file.sync_data().map_err(SegmentError::io("sync", &self.output.path))?;
        Ok(info(&directory, self.output.written, file_checksum))
    }
}

/// What a directory says of its file.
pub(super) fn info(directory: &Directory, bytes: u64, checksum: u64) -> SegmentInfo {
    let times = || directory.pages.iter().map(|page| &page.time_unix_nano);
    let mut shards: Vec<Shard> = directory.groups.iter().map(|group| group.shard).collect();
    shards.dedup();
    SegmentInfo {
        signal: directory.signal,
        window: directory.window,
        rows: directory.groups.iter().fold(0, |rows, group| rows.saturating_add(group.rows)),
        bytes,
        min_time_unix_nano: times().map(|time| *time.start()).min().unwrap_or_default(),
        max_time_unix_nano: times().map(|time| *time.end()).max().unwrap_or_default(),
        shards,
        checksum,
    }
}

/// The file with what is not yet in it.
struct Output {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
    hash: Xxh3,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("path", &self.path).field("position", &self.position()).finish()
    }
}

impl Output {
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SegmentError> {
        self.file.write_all_at(self.written, &self.buffer).map_err(SegmentError::io("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// About how many bytes a row takes before compression.
fn weight_of(row: RowRef<'_>) -> usize {
    match row {
        RowRef::Metric(row) => 64 + row.point.exemplars.len() * 128,
        RowRef::Log(row) => 128 + value_weight(&row.record.body) + attributes_weight(&row.record.attributes),
        RowRef::Span(row) => {
            let events = row.span.events.iter().map(|event| 64 + attributes_weight(&event.attributes));
            let links = row.span.links.iter().map(|link| 64 + attributes_weight(&link.attributes));
            128 + attributes_weight(&row.span.attributes) + events.chain(links).sum::<usize>()
        }
    }
}

fn attributes_weight(attributes: &Attributes) -> usize {
    attributes.0.iter().map(|(_, value)| 8 + value_weight(value)).sum()
}

fn value_weight(value: &AnyValue) -> usize {
    match value {
        AnyValue::String(text) => text.len(),
        AnyValue::Bytes(bytes) => bytes.len(),
        AnyValue::Array(values) => values.iter().map(|value| 8 + value_weight(value)).sum(),
        AnyValue::KeyValues(attributes) => attributes_weight(attributes),
        AnyValue::Empty | AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) => 8,
    }
}
