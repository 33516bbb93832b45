//! The rules one by one, and a random run against a plain model: what the process sees, and what a kill leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::disk::{Disk, DiskFile, On, RealDisk};
use crate::faults::{DiskFault, DiskFaultKind};

use super::{FaultyDisk, Unsynced};

fn fault(fault: DiskFaultKind, on: On) -> DiskFault {
    DiskFault { fault, on, after: 0, count: Some(1), ms: 0 }
}

/// What a kill leaves: the disk is gone without a sync, and another process looks.
fn after_a_kill(disk: FaultyDisk, path: &Path) -> Option<Vec<u8>> {
    drop(disk);
    let real = RealDisk::new();
    real.exists(path).unwrap().then(|| real.read(path).unwrap())
}

/// A directory, a disk without luck (nothing reaches the file system early), and a durable file with `content`.
fn durable_file(content: &[u8]) -> (tempfile::TempDir, FaultyDisk, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    RealDisk::new().replace(&path, content).unwrap();
    (dir, FaultyDisk::new(1, true), path)
}

#[test]
fn unsynced_bytes_are_read_in_the_process_and_lost_with_it() {
    let (_dir, disk, path) = durable_file(b"durable");
    let file = disk.open(&path, false).unwrap();
    file.write_all_at(3, b"XYZ and more").unwrap();
    assert_eq!(disk.read(&path).unwrap(), b"durXYZ and more");
    assert_eq!(disk.unsynced(), Unsynced { bytes: 12, files: 1, names: 0 });
    drop(file);
    assert_eq!(disk.read(&path).unwrap(), b"durXYZ and more", "closing a file loses nothing");
    assert_eq!(after_a_kill(disk, &path).unwrap(), b"durable");
}

#[test]
fn synced_bytes_stay() {
    let (_dir, disk, path) = durable_file(b"durable");
    let file = disk.open(&path, false).unwrap();
    file.set_len(2).unwrap();
    file.write_all_at(4, b"new").unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.unsynced(), Unsynced::default());
    drop(file);
    assert_eq!(after_a_kill(disk, &path).unwrap(), b"du\0\0new");
}

#[test]
fn what_is_cut_off_reads_as_zero_when_the_file_grows_again() {
    let (_dir, disk, path) = durable_file(b"0123456789");
    let file = disk.open(&path, false).unwrap();
    file.set_len(4).unwrap();
    let mut read = [9; 4];
    assert_eq!(file.read_exact_at(2, &mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.set_len(8).unwrap();
    file.read_exact_at(2, &mut read).unwrap();
    assert_eq!((&read, file.len().unwrap()), (b"23\0\0", 8));
}

#[test]
fn a_new_file_is_there_after_a_kill_only_when_its_directory_was_synced() {
    for synced in [false, true] {
        let (dir, disk, _) = durable_file(b"");
        let path = dir.path().join("new");
        let file = disk.open(&path, true).unwrap();
        file.write_all_at(0, b"bytes").unwrap();
        file.sync_data().unwrap();
        assert!(disk.exists(&path).unwrap() && disk.list(dir.path()).unwrap().contains(&path));
        assert!(!RealDisk::new().exists(&path).unwrap(), "a name that nobody synced");
        if synced {
            disk.sync_dir(dir.path()).unwrap();
        }
        drop(file);
        assert_eq!(after_a_kill(disk, &path), synced.then(|| b"bytes".to_vec()));
    }
}

#[test]
fn a_name_can_be_durable_without_the_bytes() {
    let (dir, disk, _) = durable_file(b"");
    let path = dir.path().join("new");
    disk.open(&path, true).unwrap().write_all_at(0, b"bytes").unwrap();
    disk.sync_dir(dir.path()).unwrap();
    assert_eq!(after_a_kill(disk, &path).unwrap(), b"");
}

#[test]
fn an_unsynced_removal_comes_back() {
    for synced in [false, true] {
        let (dir, disk, path) = durable_file(b"old");
        disk.remove_file(&path).unwrap();
        assert!(!disk.exists(&path).unwrap() && disk.list(dir.path()).unwrap().is_empty());
        assert_eq!(disk.open(&path, false).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.remove_file(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        if synced {
            disk.sync_dir(dir.path()).unwrap();
        }
        assert_eq!(after_a_kill(disk, &path), (!synced).then(|| b"old".to_vec()));
    }
}

#[test]
fn an_unsynced_rename_over_a_file_leaves_the_old_one() {
    for synced in [false, true] {
        let (dir, disk, path) = durable_file(b"old");
        let from = dir.path().join("from");
        RealDisk::new().replace(&from, b"new").unwrap();
        disk.rename(&from, &path).unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"new");
        assert!(!disk.exists(&from).unwrap());
        if synced {
            disk.sync_dir(dir.path()).unwrap();
        }
        assert_eq!(after_a_kill(disk, &path).unwrap(), if synced { b"new" } else { b"old" });
    }
}

#[test]
fn a_directory_is_renamed_at_once_and_after_the_changes_before() {
    let (dir, disk, path) = durable_file(b"old");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    disk.create_dir_all(&old).unwrap();
    disk.remove_file(&path).unwrap();
    disk.rename(&old, &new).unwrap();
    assert!(disk.exists(&new).unwrap() && !disk.exists(&old).unwrap());
    assert_eq!(after_a_kill(disk, &path), None);
    assert!(RealDisk::new().exists(&new).unwrap());
}

#[test]
fn a_replacement_is_durable_and_a_name_made_removed_and_made_again_is_the_last_file() {
    let (dir, disk, path) = durable_file(b"old");
    disk.replace(&path, b"new").unwrap();
    let again = dir.path().join("again");
    for content in [b"1", b"2"] {
        let file = disk.open(&again, true).unwrap();
        file.write_all_at(0, content).unwrap();
        file.sync_data().unwrap();
        if content == b"1" {
            disk.remove_file(&again).unwrap();
        }
    }
    disk.sync_dir(dir.path()).unwrap();
    assert_eq!(disk.read(&again).unwrap(), b"2");
    assert_eq!(disk.unsynced(), Unsynced::default());
    assert_eq!(after_a_kill(disk, &path).unwrap(), b"new");
    assert_eq!(RealDisk::new().read(&again).unwrap(), b"2");
}

#[test]
fn all_handles_of_a_file_see_the_same_and_one_of_a_removed_file_goes_on() {
    let (dir, disk, path) = durable_file(b"shared");
    let (one, other) = (disk.open(&path, false).unwrap(), disk.open(&path, false).unwrap());
    one.write_all_at(0, b"S").unwrap();
    let mut read = [0; 6];
    other.read_exact_at(0, &mut read).unwrap();
    assert_eq!(&read, b"Shared");
    disk.rename(&path, &dir.path().join("moved")).unwrap();
    disk.remove_file(&dir.path().join("moved")).unwrap();
    disk.sync_dir(dir.path()).unwrap();
    other.read_exact_at(0, &mut read).unwrap();
    assert_eq!(&read, b"Shared");
    drop((one, other));
    disk.sync_dir(dir.path()).unwrap();
    assert_eq!(disk.unsynced(), Unsynced::default(), "nothing of a file that is gone can be lost");
}

#[test]
fn a_failed_sync_loses_its_pages_even_when_the_next_one_succeeds() {
    let (_dir, disk, path) = durable_file(b"durable");
    let file = disk.open(&path, false).unwrap();
    file.write_all_at(0, b"gone").unwrap();
    disk.inject(fault(DiskFaultKind::Eio, On::Sync));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.write_all_at(2, b"N").unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.read(&path).unwrap(), b"goNeble", "readers see what was written");
    assert_eq!(disk.struck().eio, 1);
    drop(file);
    assert_eq!(after_a_kill(disk, &path).unwrap(), b"duNable");
}

#[test]
fn faults_strike_the_operations_they_name_as_often_as_they_say() {
    for power_loss in [false, true] {
        let (_dir, _, path) = durable_file(b"durable");
        let disk = FaultyDisk::new(1, power_loss);
        let file = disk.open(&path, false).unwrap();
        disk.inject(DiskFault { after: 1, count: None, ..fault(DiskFaultKind::NoSpace, On::Write) });
        disk.inject(fault(DiskFaultKind::Eio, On::Read));
        file.write_all_at(0, b"ab").unwrap();
        assert_eq!(file.write_all_at(0, b"cd").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.write_all_at(4, b"e").is_err());
        assert!(disk.read(&path).is_err());
        assert_eq!(disk.read(&path).unwrap(), b"cbrable", "a write without space keeps its first half");
        disk.heal();
        file.write_all_at(0, b"f").unwrap();
        disk.inject(fault(DiskFaultKind::Eio, On::AnyChange));
        assert!(disk.remove_file(&path).is_err());
        let struck = disk.struck();
        assert_eq!((struck.eio, struck.no_space, struck.slow), (2, 2, 0));
    }
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_until_a_file_is_removed() {
    let (dir, disk, path) = durable_file(&[1; 5000]);
    disk.set_capacity_bytes(Some(10));
    assert_eq!(disk.free_bytes(dir.path()).unwrap(), 10);
    let file = disk.open(&dir.path().join("new"), true).unwrap();
    file.write_all_at(0, &[2; 8]).unwrap();
    assert_eq!(file.write_all_at(8, &[2; 8]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.struck().no_space, 1);
    disk.remove_file(&path).unwrap();
    assert_eq!(disk.free_bytes(dir.path()).unwrap(), 5002);
    file.write_all_at(8, &[2; 8]).unwrap();
    disk.set_capacity_bytes(None);
    assert!(disk.free_bytes(dir.path()).unwrap() > 5002);
}

#[test]
fn a_slow_disk_takes_its_time() {
    let (_dir, disk, path) = durable_file(b"");
    let file = disk.open(&path, false).unwrap();
    disk.inject(DiskFault { ms: 30, ..fault(DiskFaultKind::Slow, On::Sync) });
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    let start = std::time::Instant::now();
    file.sync_data().unwrap();
    assert!(start.elapsed().as_millis() >= 30);
    assert_eq!(disk.struck().slow, 1);
}

#[test]
fn some_of_what_was_not_synced_is_there_after_a_kill_and_some_is_not() {
    let (mut bytes, mut names) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let (dir, _, path) = durable_file(b"");
        let disk = FaultyDisk::new(seed, true);
        let file = disk.open(&path, false).unwrap();
        file.write_all_at(0, &[7; 1500]).unwrap();
        drop((file, disk.open(&dir.path().join("new"), true).unwrap()));
        let left = after_a_kill(disk, &path).unwrap();
        bytes.insert((left.len(), left.iter().filter(|byte| **byte == 7).count()));
        names.insert(RealDisk::new().list(dir.path()).unwrap().len());
    }
    assert!(bytes.contains(&(0, 0)) && bytes.contains(&(1500, 1500)) && bytes.len() > 4, "{bytes:?}");
    assert_eq!(names, BTreeSet::from([1, 2]));
}

/// One step of a random run, on one of a few files.
#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Write { file: usize, offset: u64, len: usize },
    SetLen { file: usize, len: u64 },
    Sync(usize),
    FailSync(usize),
    Rename(usize, usize),
    Remove(usize),
    SyncDir,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = || 0..4usize;
    let step = prop_oneof![
        3 => file().prop_map(Step::Create),
        6 => (file(), 0..3000u64, 0..2000usize).prop_map(|(file, offset, len)| Step::Write { file, offset, len }),
        2 => (file(), 0..4000u64).prop_map(|(file, len)| Step::SetLen { file, len }),
        3 => file().prop_map(Step::Sync),
        1 => file().prop_map(Step::FailSync),
        2 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => file().prop_map(Step::Remove),
        2 => Just(Step::SyncDir),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What a file may be after a kill.
#[derive(Clone, Debug, Default)]
struct ModelFile {
    current: Vec<u8>,
    /// Values that each byte may have; the one that a sync made certain, or any that was written since.
    possible: Vec<BTreeSet<u8>>,
    lens: BTreeSet<usize>,
}

impl ModelFile {
    fn new() -> Self {
        ModelFile { lens: BTreeSet::from([0]), ..ModelFile::default() }
    }

    fn byte_may_be(&mut self, at: usize, byte: u8) {
        if self.possible.len() <= at {
            self.possible.resize(at + 1, BTreeSet::from([0]));
        }
        self.possible[at].insert(byte);
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.current.resize(self.current.len().max(end), 0);
        self.current[offset..end].copy_from_slice(bytes);
        bytes.iter().enumerate().for_each(|(index, byte)| self.byte_may_be(offset + index, *byte));
        // A torn write may end at any of its sectors.
        let sectors = (0..bytes.len()).step_by(512).map(|start| offset + start).filter(|at| *at > offset);
        let ends: Vec<usize> = sectors.chain([end]).collect();
        let lens: Vec<usize> = self.lens.iter().copied().collect();
        self.lens.extend(lens.iter().flat_map(|len| ends.iter().map(|end| *end.max(len))));
    }

    fn set_len(&mut self, len: usize) {
        self.current.resize(len, 0);
        for at in len..self.possible.len() {
            self.possible[at].insert(0);
        }
        self.lens.insert(len);
    }

    /// Everything that is current is certain now, unless an earlier sync failed.
    fn sync(&mut self) {
        self.possible = self.current.iter().map(|byte| BTreeSet::from([*byte])).collect();
        self.lens = BTreeSet::from([self.current.len()]);
    }

    fn allows(&self, content: &[u8]) -> bool {
        let byte_is_possible = |(at, byte): (usize, &u8)| match self.possible.get(at) {
            Some(values) => values.contains(byte),
            None => *byte == 0,
        };
        self.lens.contains(&content.len()) && content.iter().enumerate().all(byte_is_possible)
    }
}

/// The current state, and what may be left of it.
#[derive(Debug, Default)]
struct Model {
    files: Vec<ModelFile>,
    /// Files whose sync failed: nothing is certain about them any more.
    failed: BTreeSet<usize>,
    names: BTreeMap<usize, usize>,
    /// The durable names, and those after each unsynced change.
    prefixes: Vec<BTreeMap<usize, usize>>,
}

impl Model {
    fn name_changed(&mut self) {
        self.prefixes.push(self.names.clone());
    }
}

fn run(dir: &Path, disk: &FaultyDisk, model: &mut Model, steps: &[Step]) {
    let path = |name: usize| dir.join(format!("f{name}"));
    model.prefixes = vec![BTreeMap::new()];
    for (number, step) in steps.iter().enumerate() {
        let known = |name: &usize, model: &Model| model.names.get(name).copied();
        match step {
            Step::Create(name) => {
                disk.open(&path(*name), true).unwrap();
                if known(name, model).is_none() {
                    model.names.insert(*name, model.files.len());
                    model.files.push(ModelFile::new());
                    model.name_changed();
                }
            }
            Step::Write { file, offset, len } => {
                let Some(id) = opened(disk, &path(*file), known(file, model)) else { continue };
                let bytes = vec![(number % 255 + 1) as u8; *len];
                id.0.write_all_at(*offset, &bytes).unwrap();
                model.files[id.1].write(*offset as usize, &bytes);
            }
            Step::SetLen { file, len } => {
                let Some(id) = opened(disk, &path(*file), known(file, model)) else { continue };
                id.0.set_len(*len).unwrap();
                model.files[id.1].set_len(*len as usize);
            }
            Step::Sync(file) => {
                let Some(id) = opened(disk, &path(*file), known(file, model)) else { continue };
                id.0.sync_data().unwrap();
                if !model.failed.contains(&id.1) {
                    model.files[id.1].sync();
                }
            }
            Step::FailSync(file) => {
                let Some(id) = opened(disk, &path(*file), known(file, model)) else { continue };
                disk.inject(fault(DiskFaultKind::Eio, On::Sync));
                id.0.sync_data().unwrap_err();
                model.failed.insert(id.1);
            }
            Step::Rename(from, to) => {
                let Some(id) = known(from, model).filter(|_| from != to) else { continue };
                disk.rename(&path(*from), &path(*to)).unwrap();
                model.names.remove(from);
                model.names.insert(*to, id);
                model.name_changed();
            }
            Step::Remove(name) => match model.names.remove(name) {
                Some(_) => {
                    disk.remove_file(&path(*name)).unwrap();
                    model.name_changed();
                }
                None => {
                    assert_eq!(disk.remove_file(&path(*name)).unwrap_err().kind(), io::ErrorKind::NotFound)
                }
            },
            Step::SyncDir => {
                disk.sync_dir(dir).unwrap();
                model.prefixes = vec![model.names.clone()];
            }
        }
        same_view(dir, disk, model);
    }
}

fn opened(disk: &FaultyDisk, path: &Path, id: Option<usize>) -> Option<(Box<dyn DiskFile>, usize)> {
    match (disk.open(path, false), id) {
        (Ok(file), Some(id)) => Some((file, id)),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => None,
        (opened, id) => panic!("{opened:?} where the model has {id:?}"),
    }
}

/// The process sees the model's current state.
fn same_view(dir: &Path, disk: &FaultyDisk, model: &Model) {
    let paths: Vec<PathBuf> = model.names.keys().map(|name| dir.join(format!("f{name}"))).collect();
    assert_eq!(disk.list(dir).unwrap(), paths);
    for (path, id) in paths.iter().zip(model.names.values()) {
        let expected = &model.files[*id].current;
        assert!(disk.exists(path).unwrap());
        assert_eq!(&disk.read(path).unwrap(), expected);
        let file = disk.open(path, false).unwrap();
        assert_eq!(file.len().unwrap() as usize, expected.len());
        let middle = expected.len() / 3..expected.len() - expected.len() / 3;
        let mut read = vec![0; middle.len()];
        file.read_exact_at(middle.start as u64, &mut read).unwrap();
        assert_eq!(read, expected[middle]);
        assert!(file.read_exact_at(expected.len() as u64, &mut [0]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_run_reads_like_the_model_and_a_kill_leaves_what_was_synced(seed in any::<u64>(), steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(seed, true);
        let mut model = Model::default();
        run(dir.path(), &disk, &mut model, &steps);
        drop(disk);
        let real = RealDisk::new();
        let left = real.list(dir.path()).unwrap();
        let names: Vec<usize> = left
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap()[1..].parse().unwrap())
            .collect();
        let contents: Vec<Vec<u8>> = left.iter().map(|path| real.read(path).unwrap()).collect();
        let explains = |prefix: &BTreeMap<usize, usize>| {
            prefix.keys().copied().collect::<Vec<_>>() == names
                && prefix.values().zip(&contents).all(|(id, content)| model.files[*id].allows(content))
        };
        prop_assert!(model.prefixes.iter().any(explains), "{names:?} {model:?}");
    }
}
