//! From a data directory to an open store: manifest, segments, log, and a new boot before anything is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use oteld_env::{Disk, Env};
use tokio::sync::watch;

use crate::batch::{Batch, Definition, FormatError};
use crate::definitions::Definitions;
use crate::engine::{Counters, DirectoryLock, State, WriteState, lost_text, segments_dir, wal_dir};
use crate::error::OpenError;
use crate::ids::IdIndex;
use crate::manifest::log::ManifestLog;
use crate::manifest::{BootRecord, Manifest};
use crate::memtable::{MemPart, Memtable};
use crate::options::StoreOptions;
use crate::position::{Boot, Cursor, Position, ReplicaId};
use crate::segment::{Segment, SegmentError, is_absence};
use crate::segments::{self, Loss, OpenSegment, SegmentSet, Trash};
use crate::tail::{NewEntry, TailIndex};
use crate::wal::definitions::Place;
use crate::wal::file::Group;
use crate::wal::record::Record;
use crate::wal::replay::{Visit, WalFacts, replay};
use crate::wal::writer::{WalFile, WalOptions, WalWriter};

/// What an open store starts from.
pub(crate) struct Recovered {
    pub state: State,
    pub manifest: ManifestLog,
    /// None where the replica lost synced data.
    pub wal: Option<WalWriter>,
    pub boot: Boot,
    pub definitions: Definitions,
    pub trash: Trash,
    pub loss: Loss,
    pub lock: DirectoryLock,
}

/// Recovers the store in `options.dir`, or makes one. Blocks.
///
/// # Errors
/// Where the directory is in use or damaged, see [`OpenError`]. Nothing was changed then but a torn tail.
pub(crate) fn recover(env: &Env, options: &StoreOptions) -> Result<Recovered, OpenError> {
    let disk = &env.disk;
    let lock = prepare_directory(&**disk, options)?;
    let begun_unix_nano = env.clock.now_unix_nanos();
    let mut manifest = match ManifestLog::open(disk.clone(), &options.dir)? {
        Some(manifest) => manifest,
        None => first_manifest(env, options)?,
    };
    let current = manifest.current().clone();
    if let Some(what) = &current.lost {
        return Err(OpenError::loss(what));
    }
    let (trash, loss) = (Trash::default(), Loss::default());
    let (segments, first_free) = open_segments(disk, options, &current, &trash, &loss)?;
    let mut rebuild = Rebuild::new(env.clock.now_unix_nanos(), options, &current);
    let facts = WalFacts {
        replica: current.replica,
        floor: current.wal_floor,
        end: current.wal_end,
        boots: current.boots.iter().map(|(counter, record)| (*counter, record.nonce)).collect(),
    };
    let replayed = replay(&**disk, &wal_dir(options), &facts, &mut rebuild)?;
    if replayed.torn_bytes > 0 {
        tracing::info!(
            bytes = replayed.torn_bytes,
            "cut a torn group off the WAL; nobody was told that it was written"
        );
    }
    let boot = Boot {
        counter: current.last_boot().map_or(0, |boot| boot.counter) + 1,
        nonce: env.random.next_u64(),
    };
    let boot = match current.last_boot() {
        Some(last) if oteld_env::mutant("boot-not-advanced") => last,
        _ => boot,
    };
    let wal_options = WalOptions {
        dir: wal_dir(options),
        replica: current.replica,
        boot,
        file_bytes: options.wal_file_bytes,
        min_free_bytes: options.min_free_bytes,
    };
    let wal = WalWriter::create(disk.clone(), wal_options, replayed.end.seq + 1, replayed.end)
        .map_err(OpenError::io("cannot start a WAL file"))?;
    let mut next = current;
    end_boots(&mut next, &replayed.ends)?;
    next.boots.insert(boot.counter, BootRecord { nonce: boot.nonce, end: None });
    next.next_segment = next.next_segment.max(first_free);
    next.cursors = rebuild.cursors.clone();
    next.wal_end = wal.end();
    disk.reach("boot.before_commit");
    manifest.commit(next.clone()).map_err(OpenError::io("cannot write the manifest"))?;
    disk.reach("boot.recorded");
    rebuild.tail.start_file(wal.current(0));
    rebuild.tail.raise_start(next.log_start);
    let state = State {
        ids: rebuild.ids,
        memtable: rebuild.memtable,
        frozen: Vec::new(),
        segments: Arc::new(segments),
        tail: rebuild.tail,
        position: Position { boot: boot.counter, n: 0 },
        floors: Arc::new(next.all_floors()),
        left: Arc::new(next.left.clone()),
        entries: next.entries.clone(),
        ends: next.ends(),
        nonces: next.nonces(),
        cursors: rebuild.cursors,
        cluster: next.cluster,
        writes: WriteState::Open,
        read_only: watch::Sender::default(),
        wal_end: wal.end(),
        counters: Counters { torn_bytes: replayed.torn_bytes, ..Counters::default() },
    };
    let rows: u64 = state.memtable.rows().values().sum();
    let took = env.clock.now_unix_nanos().saturating_sub(begun_unix_nano);
    tracing::info!(
        replica = %next.replica,
        segments = state.segments.0.len(),
        wal_bytes = state.tail.bytes(),
        unflushed_rows = rows,
        ms = took / 1_000_000,
        "the store is open: segments and WAL are read back"
    );
    let definitions = rebuild.definitions;
    Ok(Recovered { state, manifest, wal: Some(wal), boot, definitions, trash, loss, lock })
}

/// Opens only the manifest of a replica that lost synced data, to go on saying who it is. Blocks.
///
/// # Errors
/// Where the directory is in use, or the manifest is what was lost.
pub(crate) fn recover_lost(env: &Env, options: &StoreOptions, what: &str) -> Result<Recovered, OpenError> {
    let lock = prepare_directory(&*env.disk, options)?;
    let manifest = ManifestLog::open(env.disk.clone(), &options.dir)?;
    let manifest = manifest.ok_or_else(|| OpenError::loss("the manifest"))?;
    let current = manifest.current();
    let boot = current.last_boot().unwrap_or(Boot { counter: 0, nonce: 0 });
    let state = State {
        ids: IdIndex::default(),
        memtable: Memtable::default(),
        frozen: Vec::new(),
        segments: Arc::default(),
        tail: TailIndex::default(),
        position: Position { boot: boot.counter, n: 0 },
        floors: Arc::new(current.all_floors()),
        left: Arc::new(current.left.clone()),
        entries: current.entries.clone(),
        ends: current.ends(),
        nonces: current.nonces(),
        cursors: current.cursors.clone(),
        cluster: current.cluster,
        writes: WriteState::Failed(lost_text(what)),
        read_only: watch::Sender::new(Some(lost_text(what))),
        wal_end: current.wal_end,
        counters: Counters::default(),
    };
    let definitions = Definitions::new(options.definitions_bytes_max);
    let (trash, loss) = (Trash::default(), Loss::default());
    loss.send_replace(Some(what.to_owned()));
    Ok(Recovered { state, manifest, wal: None, boot, definitions, trash, loss, lock })
}

fn prepare_directory(disk: &dyn Disk, options: &StoreOptions) -> Result<DirectoryLock, OpenError> {
    for dir in [options.dir.clone(), wal_dir(options), segments_dir(options)] {
        disk.create_dir_all(&dir).map_err(OpenError::io(format!("cannot make {}", dir.display())))?;
    }
    // The directory's own name too: what is acknowledged in it must not vanish with it.
    let parent =
        options.dir.parent().map(|parent| if parent == Path::new("") { Path::new(".") } else { parent });
    for dir in [Some(options.dir.as_path()), parent].into_iter().flatten() {
        disk.sync_dir(dir).map_err(OpenError::io(format!("cannot sync {}", dir.display())))?;
    }
    let lock = match disk.lock(&options.dir.join("LOCK")) {
        Ok(lock) => DirectoryLock(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(OpenError::Locked { dir: options.dir.display().to_string() });
        }
        Err(source) => {
            return Err(OpenError::Io { what: format!("cannot lock {}", options.dir.display()), source });
        }
    };
    let clean = |dir: &Path| OpenError::io(format!("cannot clean {}", dir.display()));
    disk.remove_interrupted(&options.dir).map_err(clean(&options.dir))?;
    Ok(lock)
}

/// A directory without a manifest becomes a new replica, unless it holds somebody's data.
fn first_manifest(env: &Env, options: &StoreOptions) -> Result<ManifestLog, OpenError> {
    for dir in [wal_dir(options), segments_dir(options)] {
        let files = env.disk.list(&dir).map_err(OpenError::io(format!("cannot list {}", dir.display())))?;
        if !files.is_empty() {
            return Err(OpenError::NoManifest { dir: options.dir.display().to_string() });
        }
    }
    let replica = ReplicaId(env.random.next_u128());
    ManifestLog::create(env.disk.clone(), &options.dir, Manifest::new(replica))
        .map_err(OpenError::io("cannot write the first manifest"))
}

/// Opens the manifest's segments and removes files that it does not name. Also gives the first number that no
/// file ever had.
fn open_segments(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    manifest: &Manifest,
    trash: &Trash,
    loss: &Loss,
) -> Result<(SegmentSet, u64), OpenError> {
    let dir = segments_dir(options);
    let mut set = SegmentSet::default();
    for meta in &manifest.segments {
        let path = segments::path(&dir, meta.id);
        let segment = Segment::open(disk.clone(), &path).map_err(|error| open_error(error, &path))?;
        if *segment.info() != meta.info {
            return Err(OpenError::loss(format!(
                "{} is not the file that the manifest names",
                path.display()
            )));
        }
        set.0.push(Arc::new(OpenSegment::new(meta.clone(), segment, path, trash.clone(), loss.clone())));
    }
    let named: BTreeSet<u64> = manifest.segments.iter().map(|meta| meta.id).collect();
    let mut first_free = manifest.next_segment;
    let files = disk.list(&dir).map_err(OpenError::io(format!("cannot list {}", dir.display())))?;
    for file in files {
        let id = segments::id_of(&file);
        first_free = first_free.max(id.map_or(0, |id| id + 1));
        if id.is_none_or(|id| !named.contains(&id)) && !segments::is_received(&file) {
            remove(&**disk, &file)?;
        }
    }
    Ok((set, first_free))
}

/// What cannot be read now, or not by this version, is not lost.
fn open_error(error: SegmentError, path: &Path) -> OpenError {
    match error {
        SegmentError::Io { source, .. } if !is_absence(&source) => {
            OpenError::Io { what: format!("cannot read segment {}", path.display()), source }
        }
        SegmentError::Damaged { source: source @ FormatError::Version { .. }, .. } => {
            OpenError::Unreadable { path: path.display().to_string(), reason: source.to_string() }
        }
        error => OpenError::loss(format!("segment {}: {error}", path.display())),
    }
}

fn remove(disk: &dyn Disk, file: &Path) -> Result<(), OpenError> {
    disk.remove_file(file).map_err(OpenError::io(format!("cannot remove {}", file.display())))
}

/// Records where the boots ended that did not say so themselves.
fn end_boots(manifest: &mut Manifest, ends: &BTreeMap<u64, u64>) -> Result<(), OpenError> {
    for (counter, record) in &mut manifest.boots {
        if record.end.is_none() {
            let end = ends.get(counter);
            record.end =
                Some(*end.ok_or_else(|| OpenError::loss(format!("the WAL has no file of boot {counter}")))?);
        }
    }
    Ok(())
}

/// Collects what the log holds.
struct Rebuild {
    now_unix_nano: u64,
    memtable: Memtable,
    ids: IdIndex,
    tail: TailIndex,
    cursors: BTreeMap<ReplicaId, BTreeMap<crate::model::Shard, Cursor>>,
    flushed: bool,
    definitions: Definitions,
    /// Those that batches of the current file may name.
    in_file: HashMap<u128, Arc<Definition>>,
    file: Option<WalFile>,
}

impl Rebuild {
    fn new(now_unix_nano: u64, options: &StoreOptions, manifest: &Manifest) -> Self {
        Rebuild {
            definitions: Definitions::new(options.definitions_bytes_max),
            in_file: HashMap::new(),
            file: None,
            now_unix_nano,
            memtable: Memtable::default(),
            ids: IdIndex::default(),
            tail: TailIndex::default(),
            cursors: manifest.cursors.clone(),
            flushed: false,
        }
    }

    fn parts(&mut self, batch: bytes::Bytes, accepted: &[u32], batch_offset: u64) -> Result<(), String> {
        let batch = Batch::parse(batch).map_err(|error| format!("a batch cannot be read: {error}"))?;
        let accepted: Vec<usize> = accepted.iter().map(|part| *part as usize).collect();
        if let Some(part) = accepted.iter().find(|part| **part >= batch.parts().len()) {
            return Err(format!("a record names part {part} of {}", batch.parts().len()));
        }
        for part in &accepted {
            let part = MemPart { batch: batch.clone(), index: *part };
            self.tail.push(NewEntry::new(&part, batch_offset));
            if !self.flushed && !oteld_env::mutant("ids-forgotten-at-restart") {
                self.ids.apply(&part.id());
            }
        }
        if !self.flushed {
            let batch = self.resolve(&batch).map_err(|error| format!("a batch cannot be read: {error}"))?;
            self.memtable.insert(&batch, &accepted, self.now_unix_nano);
        }
        Ok(())
    }

    fn resolve(&mut self, batch: &Batch) -> Result<Batch, FormatError> {
        let Rebuild { definitions, in_file, .. } = self;
        batch.resolve(|hash, carried| match in_file.get(&hash) {
            Some(known) => Some(known.clone()),
            None => {
                carried.map(|carried| definitions.find(hash).unwrap_or_else(|| definitions.learn(carried)))
            }
        })
    }

    fn definition(&mut self, definition: &Definition, offset: u64) {
        if let Some(file) = &self.file {
            file.definitions.insert(definition.hash, Place::of(definition, offset));
        }
        if !self.flushed {
            self.in_file.insert(definition.hash, self.definitions.learn(definition));
        }
    }
}

impl Visit for Rebuild {
    fn file(&mut self, file: WalFile, flushed: bool) {
        self.flushed = flushed;
        self.in_file.clear();
        self.file = Some(file.clone());
        self.tail.start_file(file);
    }

    fn group(&mut self, group: Group) -> Result<(), String> {
        let mut payload = group.payload;
        let end = group.header.end().ok_or("a group has no end")?;
        for _ in 0..group.header.records {
            let start = end - payload.len() as u64;
            match Record::decode(&mut payload)? {
                Record::Parts { batch, accepted } => {
                    let offset = start + Record::batch_offset(accepted.len()) as u64;
                    self.parts(batch, &accepted, offset)?;
                }
                Record::Definition(definition) => self.definition(&definition, start),
                Record::Cursor(cursor) => {
                    let cursors = self.cursors.entry(cursor.peer).or_default();
                    for (shard, since) in cursor.shards {
                        cursors.entry(shard).or_default().advance(Cursor { since, held: cursor.to });
                    }
                }
            }
        }
        if payload.is_empty() { Ok(()) } else { Err("a group has bytes after its last record".to_owned()) }
    }

    fn forget(&mut self) {
        self.tail.forget();
    }
}
