//! Logs that the store's own tests cannot bring about, written group by group.

use std::path::Path;

use bytes::Bytes;
use oteld_env::{Disk, Random, SimDisk};

use super::*;
use crate::position::Boot;
use crate::wal::record::Record;
use crate::wal::writer::{WalOptions, WalWriter};

const BOOT: Boot = Boot { counter: 1, nonce: 77 };
const REPLICA: ReplicaId = ReplicaId(5);

/// Takes everything, and counts the groups.
#[derive(Default)]
struct Groups(usize);

impl Visit for Groups {
    fn file(&mut self, _: WalFile, _: bool) {}

    fn group(&mut self, _: Group) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }

    fn forget(&mut self) {}
}

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn options() -> WalOptions {
    WalOptions { dir: dir().to_owned(), replica: REPLICA, boot: BOOT, file_bytes: 8 << 10, min_free_bytes: 0 }
}

fn writer(disk: &SimDisk) -> WalWriter {
    disk.create_dir_all(dir()).unwrap();
    WalWriter::create(Arc::new(disk.clone()), options(), 1, WalEnd::default()).unwrap()
}

fn disk() -> SimDisk {
    SimDisk::new(Random::from_seed(1), 1 << 20)
}

fn part(batch: impl Into<Bytes>) -> Record {
    Record::Parts { batch: batch.into(), accepted: vec![0] }
}

fn read(disk: &SimDisk) -> (Result<WalReplay, OpenError>, usize) {
    let facts = WalFacts {
        replica: REPLICA,
        floor: 1,
        end: WalEnd::default(),
        boots: [(BOOT.counter, BOOT.nonce)].into(),
    };
    let mut groups = Groups::default();
    (replay(disk, dir(), &facts, &mut groups), groups.0)
}

#[test]
fn a_whole_group_behind_the_end_that_the_next_file_names_is_a_loss() {
    let disk = disk();
    let mut wal = writer(&disk);
    wal.write(&[part("first")]).unwrap();
    let first = disk.read(&file::path(dir(), 1)).unwrap();
    wal.write(&[part("second")]).unwrap();
    let both = disk.read(&file::path(dir(), 1)).unwrap();

    // The next file is started as if the second group had never been written.
    let disk = self::disk();
    let mut wal = writer(&disk);
    wal.write(&[part("first")]).unwrap();
    wal.rotate(0).unwrap();
    let old = disk.open(&file::path(dir(), 1), false).unwrap();
    assert_eq!(disk.read(&file::path(dir(), 1)).unwrap(), first);
    let (replayed, groups) = read(&disk);
    assert_eq!((replayed.unwrap().end.seq, groups), (2, 1));
    old.write_all_at(0, &both).unwrap();
    let error = read(&disk).0.unwrap_err();
    assert!(matches!(&error, OpenError::Loss { what } if what.contains("after the next file")), "{error}");
    // Cut short it is what a full disk leaves, which nobody was told about.
    disk.flip_bit(&file::path(dir(), 1), both.iter().rposition(|byte| *byte != 0).unwrap() as u64, 0)
        .unwrap();
    assert_eq!(read(&disk).1, 1);
    assert!(read(&disk).0.is_ok());
}

#[test]
fn a_batch_that_spells_a_group_header_does_not_make_a_torn_tail_a_loss() {
    for (boot, expected) in [(Boot { counter: BOOT.counter, nonce: BOOT.nonce ^ 1 }, true), (BOOT, false)] {
        let disk = disk();
        let mut wal = writer(&disk);
        wal.write(&[part("first")]).unwrap();
        let end = wal.end();
        let offset = end.offset + HEADER_BYTES as u64 + Record::batch_offset(1) as u64;
        let spelled = GroupHeader {
            seq: 1,
            offset,
            boot,
            first_n: 3,
            positions: 1,
            records: 1,
            payload_len: 8,
            payload_checksum: 0,
            previous: end,
        };
        let mut batch = spelled.encode().to_vec();
        batch.extend([1; 8]);
        wal.write(&[part(batch)]).unwrap();
        disk.flip_bit(&file::path(dir(), 1), wal.end().offset - 1, 0).unwrap();
        let (replayed, groups) = read(&disk);
        assert_eq!((replayed.is_ok(), groups), (expected, 1));
    }
}
