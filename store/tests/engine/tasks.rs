//! Many callers at once, background work, and the machine's own disk.

use std::collections::BTreeSet;
use std::time::Duration;

use oteld_env::{Env, Random};
use oteld_store::model::{Shard, Signal, Window};
use oteld_store::{Appended, Position, Prefix, Store, StoreOptions};

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
    store.append(&request.batch(), &all).await.unwrap()
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
