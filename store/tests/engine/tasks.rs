//! Many callers at once, background work, and the machine's own disk.

use std::collections::BTreeSet;
use std::time::Duration;

use oteld_env::{Env, Random};
use oteld_store::model::{Shard, Signal, Window};
use oteld_store::{AppendError, Appended, Position, Prefix, Store, StoreOptions};

use crate::world::{Request, SHARDS, START, World};

fn requests(seed: u64, count: usize) -> Vec<Request> {
    let random = Random::from_seed(seed);
    let sample = |n: usize| {
        let signal = Signal::ALL[n % 3];
        Request::sample(&random, signal, 4, START..START + Window::NANOS)
    };
    (0..count).map(sample).collect()
}

async fn append(store: Store, request: Request) -> Vec<Appended> {
    let all: Vec<usize> = (0..request.parts.len()).collect();
    loop {
        match store.append(&request.batch(), &all).await {
            // As a front answers its client then: try again.
            Err(AppendError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            appended => return appended.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_groups_and_each_request_counts_once_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        dir: dir.path().to_owned(),
        wal_file_bytes: 64 << 10,
        wal_keep_bytes: 0,
        min_free_bytes: 0,
        memtable_bytes_max: 64 << 10,
        ..StoreOptions::default()
    };
    let env = Env::real();
    let store = Store::open(env.clone(), options.clone()).await.unwrap();
    let mut world = World::new(1);
    let requests = requests(5, 120);
    let mut tasks = Vec::new();
    // Each request is sent by two callers at about the same time.
    for request in requests.iter().chain(&requests) {
        tasks.push(env.tasks.spawn(append(store.clone(), request.clone())));
    }
    let mut applied = 0;
    for task in tasks {
        applied += task.await.unwrap().iter().filter(|part| **part == Appended::Applied).count();
    }
    requests.iter().for_each(|request| world.hold(request));
    assert_eq!(applied, world.held.len());
    assert_eq!(store.position().n, applied as u64);
    assert!(store.status().wal_groups < 2 * 120, "callers shared groups");
    while store.status().flushes == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.check(&store.pin());
    store.flush().await.unwrap();
    store.close().await;
    let store = Store::open(env, options).await.unwrap();
    world.check(&store.pin());
    assert_eq!(append(store.clone(), requests[7].clone()).await[0], Appended::Duplicate);
    assert_eq!(store.status().maintenance_error, None);
}

#[tokio::test]
async fn a_long_poll_wakes_when_something_is_published() {
    let mut world = World::new(2);
    let store = world.open().await;
    let after = store.position();
    let waiter = {
        let store = store.clone();
        world.env().tasks.spawn(async move { store.wait_position_beyond(after).await })
    };
    let request = world.request();
    world.append(&store, &request).await;
    waiter.await.unwrap();
    assert!(store.position() > after);
}

#[tokio::test]
async fn a_store_that_is_behind_says_so_and_goes_on_after_a_flush() {
    let mut world = World::new(3);
    world.options.memtable_bytes_max = 1 << 10;
    let store = world.open().await;
    let refused = loop {
        let request = world.request();
        let all: Vec<usize> = (0..request.parts.len()).collect();
        match store.append(&request.batch(), &all).await {
            Ok(_) => world.hold(&request),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, oteld_store::AppendError::Busy { .. }), "{refused}");
    store.flush().await.unwrap();
    let request = world.request();
    world.append(&store, &request).await;
    world.check(&store.pin());
}

#[tokio::test]
async fn flushed_wal_is_kept_for_peers_up_to_its_size_and_no_more() {
    let mut world = World::new(4);
    world.options.wal_file_bytes = 8 << 10;
    world.options.wal_keep_bytes = 16 << 10;
    let store = world.open().await;
    for _ in 0..40 {
        let request = world.request();
        world.append(&store, &request).await;
        store.flush().await.unwrap();
    }
    assert!(store.status().wal_bytes <= 16 << 10);
    let shards: BTreeSet<Shard> = (0..SHARDS).map(Shard).collect();
    let below = store.tail(Prefix::default(), &shards, 10).unwrap_err();
    let oteld_store::TailError::BelowStart { start } = below else { panic!("{below}") };
    let page = store.tail(store.published_up_to(start), &shards, 10_000).unwrap();
    assert_eq!(page.entries.len() as u64, store.position().n - start.n);
    let positions: Vec<_> = page.entries.iter().map(|entry| entry.position).collect();
    store.read_parts(&positions).await.unwrap();

    let end = store.published();
    drop(store);
    world.options.wal_keep_bytes = 0;
    world.disk.crash();
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    store.flush().await.unwrap();
    let request = world.request();
    world.append(&store, &request).await;
    store.flush().await.unwrap();
    assert!(store.tail(end, &shards, 10).is_err());
    drop(store);
    world.disk.crash();
    let store = world.open().await;
    let end = store.published_up_to(Position { boot: 2, n: store.ends()[&2] });
    assert_eq!(store.tail(end, &shards, 10).unwrap().covered, store.published(), "nothing was missed");
    world.check(&store.pin());
}

/// A log record in each of so many windows, in requests of `rows`.
fn in_windows_of_their_own(random: &Random, windows: std::ops::Range<u64>, rows: usize) -> Vec<Request> {
    let starts: Vec<u64> = windows.map(|window| START + window * Window::NANOS).collect();
    let requests = starts.chunks(rows).map(|starts| {
        let sample = |start: &u64| Request::sample(random, Signal::Logs, 1, *start..*start + 1);
        let mut parts = starts.iter().map(sample);
        let mut whole = parts.next().unwrap();
        whole.parts.extend(parts.flat_map(|request| request.parts));
        whole
    });
    requests.collect()
}

#[tokio::test]
async fn rows_in_very_many_windows_are_taken_no_faster_than_they_are_flushed() {
    let mut world = World::new(11);
    world.options.memtable_windows_max = 20;
    let store = world.open().await;
    let random = Random::from_seed(12);
    let mut taken = 0;
    let mut refused = None;
    for request in in_windows_of_their_own(&random, 0..200, 1) {
        let all: Vec<usize> = (0..request.parts.len()).collect();
        match store.append(&request.batch(), &all).await {
            Ok(_) => world.hold(&request),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
        taken += 1;
    }
    assert_eq!(taken, 41, "twice the bound, and the one that goes beyond");
    assert!(matches!(refused, Some(oteld_store::AppendError::Busy { .. })), "{refused:?}");
    store.flush().await.unwrap();
    assert_eq!(store.status().segments, 41);
    let request = world.request();
    world.append(&store, &request).await;
    world.check(&store.pin());
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "looks at the process, not at data")]
async fn segments_do_not_keep_their_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        dir: dir.path().to_owned(),
        wal_file_bytes: 64 << 10,
        min_free_bytes: 0,
        background: false,
        ..StoreOptions::default()
    };
    let store = Store::open(Env::real(), options).await.unwrap();
    let mut world = World::new(13);
    for request in in_windows_of_their_own(&Random::from_seed(14), 0..100, 10) {
        append(store.clone(), request.clone()).await;
        world.hold(&request);
    }
    store.flush().await.unwrap();
    assert_eq!(store.status().segments, 100);
    world.check(&store.pin());
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let target = std::fs::read_link(entry.unwrap().path()).ok()?;
        (target.starts_with(dir.path()) && target.extension().is_some_and(|end| end == "seg"))
            .then_some(target)
    });
    assert_eq!(open.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
}
