//! The log's backends against openraft's own suite, against damage, and against death in mid-write.

#![allow(clippy::disallowed_methods, reason = "tests make their own directories and processes")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use oteld_env::{Env, Random, RealDisk};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::*;
use crate::ids::MetaId;

/// Opens a log. sled lets go of the lock of one that was closed some time later, when its threads get to run.
fn open_log(dir: &Path) -> Result<SledLog, BackendError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match SledLog::open(&RealDisk::new(), dir) {
            Err(error) if error.to_string().contains("acquire lock") && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

struct SledStores;
struct SimulatedStores;

type Built = Result<(TempDir, LogStore, StateMachine), StorageError<MetaId>>;

async fn stores(make: impl Fn(&Path) -> std::sync::Arc<dyn LogBackend>) -> Built {
    let dir = tempfile::tempdir().expect("a directory");
    let env = Env::real();
    let promise = PromiseFile::new(env.disk.clone(), dir.path().join("promise"));
    let log = LogStore::new(make(dir.path()), promise, env.tasks.clone());
    let machine = StateMachine::open(env, dir.path().join("snapshot")).await.expect("opens");
    Ok((dir, log, machine))
}

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for SledStores {
    async fn build(&self) -> Built {
        stores(|dir| std::sync::Arc::new(open_log(dir).expect("opens"))).await
    }
}

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for SimulatedStores {
    async fn build(&self) -> Built {
        stores(|_| std::sync::Arc::new(SimulatedLog::new())).await
    }
}

#[test]
fn the_sled_log_passes_openrafts_suite() {
    Suite::test_all(SledStores).expect("passes");
}

#[test]
fn the_simulated_log_passes_openrafts_suite() {
    Suite::test_all(SimulatedStores).expect("passes");
}

#[test]
fn a_seed_decides_the_election_timeouts() {
    let draw = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let timeout = || openraft::Config::default().new_rand_election_timeout::<runtime::SeededRuntime>();
        let spawned = async move {
            let task = <runtime::SeededRuntime as openraft::AsyncRuntime>::spawn(async move { timeout() });
            (timeout(), task.await.expect("ends"))
        };
        runtime.block_on(runtime::with_random(Random::from_seed(seed), spawned))
    };
    assert_eq!(draw(5), draw(5));
    let distinct: std::collections::BTreeSet<_> = (0..10).map(draw).collect();
    assert!(distinct.len() > 5, "seeds differ: {distinct:?}");
}

fn entries(range: std::ops::Range<u64>, length: usize) -> Vec<Change> {
    range.map(|index| Change::Put(index, vec![index as u8; length])).collect()
}

#[test]
fn a_long_entry_reads_back_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let lengths = [0, 1, (32 << 10) - 1, 32 << 10, (32 << 10) + 1, 300_000];
    {
        let log = open_log(dir.path()).expect("opens");
        for (index, length) in (0..).zip(lengths) {
            log.write(entries(index..index + 1, length)).expect("writes");
        }
        log.sync().expect("syncs");
    }
    let log = open_log(dir.path()).expect("opens again");
    let read: Vec<usize> = log.read(0..100).expect("reads").iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(read, lengths);
    assert_eq!(log.last().expect("reads").expect("exists").1.len(), 300_000);
}

#[test]
fn long_entries_leave_no_file_that_sled_does_not_sync() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open_log(dir.path()).expect("opens");
    for index in 0..12 {
        log.write(entries(index..index + 1, 300_000)).expect("writes");
        log.write(vec![Change::Set("vote", vec![index as u8; 40])]).expect("writes");
        log.sync().expect("syncs");
        let blobs = std::fs::read_dir(dir.path().join("blobs")).expect("sled has a folder for them").count();
        assert_eq!(blobs, 0, "after entry {index}");
        if index == 8 {
            log.write(vec![Change::PurgeThrough(4)]).expect("writes");
        }
    }
}

#[test]
fn a_log_with_a_hole_does_not_open() {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let log = open_log(dir.path()).expect("opens");
        log.write(entries(0..3, 10)).expect("writes");
        log.write(entries(4..6, 10)).expect("writes");
        log.sync().expect("syncs");
    }
    let error = open_log(dir.path()).expect_err("has a hole");
    assert!(matches!(error, BackendError::Damaged(_)), "{error}");
}

#[test]
fn a_purged_log_must_begin_behind_the_purge() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || open_log(dir.path());
    {
        let log = open().expect("opens");
        log.write(entries(0..6, 10)).expect("writes");
        log.write(vec![Change::PurgeThrough(3)]).expect("writes");
        log.sync().expect("syncs");
    }
    {
        let log = open().expect("opens after a purge");
        assert_eq!(log.read(0..10).expect("reads").first().expect("exists").0, 4);
        log.write(vec![Change::TruncateFrom(4)]).expect("writes");
        log.write(entries(5..6, 10)).expect("writes");
        log.sync().expect("syncs");
    }
    assert!(matches!(open().expect_err("lacks entry 4"), BackendError::Damaged(_)));
}

#[test]
fn a_simulated_crash_loses_only_what_was_not_synced() {
    let random = Random::from_seed(3);
    let mut lost = 0;
    for _ in 0..50 {
        let log = SimulatedLog::new();
        log.write(entries(0..5, 4)).expect("writes");
        log.sync().expect("syncs");
        for index in 5..9 {
            log.write(entries(index..index + 1, 4)).expect("writes");
        }
        log.crash(&random);
        let kept = log.read(0..100).expect("reads").len();
        assert!((5..=9).contains(&kept));
        lost += usize::from(kept < 9);
    }
    assert!(lost > 0, "some crash must have lost something");
}

/// Set in the child process of the test below: the directory that it writes to until it is killed.
const CHILD: &str = "OTELD_TEST_SLED_CHILD";

#[test]
fn a_member_killed_in_mid_write_keeps_what_it_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&dir));
    }
    let random = Random::from_seed(11);
    let dir = tempfile::tempdir().expect("a directory");
    let mut synced = 0;
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "raft::tests::a_member_killed_in_mid_write_keeps_what_it_acknowledged"])
            .arg("--nocapture")
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let enough = synced + 5 + random.in_range(0..40);
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        for line in lines {
            let line = line.expect("reads");
            let Some(index) = line.split("synced ").nth(1) else { continue };
            synced = index.parse().expect("an index");
            if synced >= enough {
                break;
            }
        }
        child.kill().expect("is killed");
        child.wait().expect("ends");
        let log = open_log(dir.path()).expect("opens after the kill");
        let (last, _) = log.last().expect("reads").expect("has entries");
        assert!(synced >= enough && last >= synced, "entry {synced} was acknowledged, {last} is the last");
        for (index, bytes) in log.read(0..last + 1).expect("reads") {
            assert!(bytes.iter().all(|byte| *byte == index as u8));
        }
        let vote = log.get("vote").expect("reads").expect("was written");
        let vote = u64::from_le_bytes(vote.try_into().expect("8 bytes"));
        assert!(vote >= synced, "vote {vote} is older than acknowledged entry {synced}");
    }
}

fn write_until_killed(dir: &Path) -> ! {
    let log = open_log(dir).expect("opens");
    let first = log.last().expect("reads").map_or(1, |(last, _)| last + 1);
    if first == 1 {
        log.write(entries(0..1, 1)).expect("writes");
    }
    for index in first.. {
        let mut changes = entries(index..index + 1, 100 * (index as usize % 700));
        changes.push(Change::Set("vote", index.to_le_bytes().to_vec()));
        log.write(changes).expect("writes");
        log.sync().expect("syncs");
        println!("synced {index}");
    }
    unreachable!("killed before")
}

/// A log of five entries of term 1 and a vote, with its promise; then `change` is made behind the promise's back.
async fn broken_by(change: impl FnOnce(&SimulatedLog)) -> Option<String> {
    use openraft::storage::RaftLogStorage;
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), std::sync::Arc::new(RealDisk::new()));
    let (log, promise) = (SimulatedLog::new(), PromiseFile::new(disk, dir.path().join("promise")));
    let mut store = LogStore::new(std::sync::Arc::new(log.clone()), promise.clone(), Env::real().tasks);
    let packed =
        |index| Change::Put(index, pack(&openraft::testing::blank_ent::<Types>(1, MetaId(1), index)));
    log.write((0..5).map(packed).collect()).expect("writes");
    store.save_vote(&openraft::Vote::new(1, MetaId(1))).await.expect("saves");
    store.save_vote(&openraft::Vote::new(2, MetaId(2))).await.expect("saves");
    assert_eq!(promise.broken_by(&log).expect("reads"), None);
    let cut = openraft::testing::log_id(1, MetaId(1), 4);
    store.truncate(cut).await.expect("truncates");
    assert_eq!(promise.broken_by(&log).expect("reads"), None, "the log was cut in order");
    change(&log);
    promise.broken_by(&log).expect("reads")
}

#[tokio::test]
async fn a_log_that_is_older_than_a_promise_is_found_out() {
    let older_vote = |log: &SimulatedLog| {
        let vote = pack(&openraft::Vote::new(1, MetaId(1)));
        log.write(vec![Change::Set("vote", vote)]).expect("writes");
    };
    let reason = broken_by(older_vote).await.expect("breaks the promise");
    assert!(reason.contains("vote"), "{reason}");
    let cut = |log: &SimulatedLog| log.write(vec![Change::TruncateFrom(3)]).expect("writes");
    let reason = broken_by(cut).await.expect("breaks the promise");
    assert!(reason.contains("ends"), "{reason}");
    assert!(broken_by(SimulatedLog::clear).await.is_some());
    assert_eq!(broken_by(|_| ()).await, None);
}
