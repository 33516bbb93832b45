//! Random histories of operations, crashes among them, against the model.

use oteld_env::disk::{Fault, On};
use oteld_store::batch::Batch;
use oteld_store::model::{Signal, Tenant, Window};
use oteld_store::{Appended, Pin, Store};

use crate::world::{Request, START, World, raise_floor};

/// What a history may do next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append,
    Repeat,
    Flush,
    Compact,
    Close,
    Crash,
}

const STEPS: [Step; 12] = [
    Step::Append,
    Step::Append,
    Step::Append,
    Step::Append,
    Step::Append,
    Step::Repeat,
    Step::Repeat,
    Step::Flush,
    Step::Flush,
    Step::Compact,
    Step::Close,
    Step::Crash,
];

/// A pin, and how much of the model it has to show.
struct Pinned {
    pin: Pin,
    held: usize,
}

async fn history(seed: u64, length: usize) {
    let mut world = World::new(seed);
    let mut store = world.open().await;
    let mut requests: Vec<Request> = Vec::new();
    let mut pinned: Option<Pinned> = None;
    for _ in 0..length {
        let step = STEPS[world.random.in_range(0..STEPS.len() as u64) as usize];
        match step {
            Step::Append => {
                let request = world.request();
                world.append(&store, &request).await;
                requests.push(request);
            }
            Step::Repeat => repeat(&mut world, &store, &mut requests).await,
            Step::Flush => store.flush().await.unwrap(),
            Step::Compact => store.compact().await.unwrap(),
            Step::Close => {
                check_pinned(&world, pinned.take());
                store.close().await;
                store = world.open().await;
            }
            Step::Crash => {
                check_pinned(&world, pinned.take());
                world.disk.crash();
                store = world.open().await;
            }
        }
        world.check(&store.pin());
        if pinned.is_none() {
            pinned = Some(Pinned { pin: store.pin(), held: world.held.len() });
        }
    }
    check_pinned(&world, pinned);
}

/// A pin shows what it showed, whatever was flushed and merged since.
fn check_pinned(world: &World, pinned: Option<Pinned>) {
    let Some(Pinned { pin, held }) = pinned else { return };
    let mut then = World::new(0);
    then.held = world.held[..held].to_vec();
    then.check(&pin);
}

/// Sends parts of an earlier request again, in a batch with a new one.
async fn repeat(world: &mut World, store: &Store, requests: &mut Vec<Request>) {
    let new = world.request();
    let old: Vec<&Request> = requests.iter().filter(|old| old.signal == new.signal).collect();
    let mut parts = new.part_rows(|_| true);
    if !old.is_empty() {
        let old = old[world.random.in_range(0..old.len() as u64) as usize];
        let skipped = world.random.in_range(0..4) as u32;
        parts.extend(old.part_rows(|shard| shard.0 != skipped));
    }
    let batch = Batch::encode(new.signal, parts);
    let all: Vec<usize> = (0..batch.parts().len()).collect();
    let outcome = store.append(&batch, &all).await.unwrap();
    for (part, outcome) in batch.parts().iter().zip(outcome) {
        let expected = if part.request == new.id { Appended::Applied } else { Appended::Duplicate };
        assert_eq!(outcome, expected);
    }
    world.hold(&new);
    requests.push(new);
}

#[tokio::test]
async fn any_history_shows_what_was_acknowledged_once() {
    for seed in 0..8 {
        history(seed, 30).await;
    }
}

/// Appends, flushes and merges until something fails. Gives the request that was on its way then.
async fn script(world: &mut World, store: &Store) -> Option<Request> {
    for round in 0..3 {
        for _ in 0..2 {
            let request = world.request();
            let all: Vec<usize> = (0..request.parts.len()).collect();
            match store.append(&request.batch(), &all).await {
                Ok(outcome) => {
                    assert!(outcome.iter().all(|part| *part == Appended::Applied));
                    world.hold(&request);
                }
                Err(_) => return Some(request),
            }
        }
        if store.flush().await.is_err() || round > 0 && store.compact().await.is_err() {
            return None;
        }
    }
    None
}

/// Parts of a request that failed may be there or not; the model takes those that are.
async fn settle(world: &mut World, store: &Store, request: &Request) {
    for (shard, rows) in &request.parts {
        let times = (0..rows.len()).map(|index| rows.event_time_unix_nano(index));
        let window = Window::of(times.min().unwrap());
        if store.has_part(request.signal, window, request.id, request.digest(), *shard).await.unwrap() {
            world.held.push((request.signal, request.tenant.clone(), *shard, rows.clone()));
        }
    }
}

async fn fails_at(seed: u64, at: u64, fault: Fault) -> bool {
    let mut world = World::new(seed);
    world.options.wal_file_bytes = 4 << 10;
    world.options.wal_keep_bytes = 8 << 10;
    world.disk.inject(On::AnyChange, at, fault);
    let mut open = None;
    if let Ok(store) = world.try_open().await {
        open = script(&mut world, &store).await;
    }
    let struck = world.disk.changes() > at;
    world.disk.crash();
    let store = world.try_open().await.unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
    if let Some(request) = open {
        settle(&mut world, &store, &request).await;
    }
    world.check(&store.pin());
    let request = world.request();
    world.append(&store, &request).await;
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    struck
}

#[tokio::test]
async fn power_loss_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut at = 0;
    while fails_at(100 + at % 7, at, Fault::PowerLoss).await {
        at += 1;
    }
    assert!(at > 50, "{at}");
}

#[tokio::test]
async fn an_error_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut at = 0;
    while fails_at(200 + at % 7, at, Fault::Io).await {
        at += 1;
    }
    assert!(at > 50, "{at}");
}

#[tokio::test]
async fn a_full_disk_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut at = 0;
    while fails_at(300 + at % 7, at, Fault::NoSpace).await {
        at += 1;
    }
    assert!(at > 50, "{at}");
}

#[tokio::test]
async fn windows_below_every_floor_are_deleted_and_a_pin_keeps_its_files() {
    let mut world = World::new(42);
    let store = world.open().await;
    for _ in 0..20 {
        let request = world.request();
        world.append(&store, &request).await;
    }
    store.flush().await.unwrap();
    let pin = store.pin();
    let before = store.status();
    for tenant in ["default", "other"] {
        for signal in Signal::ALL {
            let end = Window::of(crate::world::START).end_unix_nano();
            raise_floor(&store, &Tenant::new(tenant), signal, end).await;
        }
    }
    store.compact().await.unwrap();
    world.check(&pin);
    let after = store.status();
    assert!(after.segments < before.segments, "{after:?}");
    let files = || {
        use oteld_env::Disk;
        world.disk.list(std::path::Path::new("/data/segments")).unwrap().len() as u64
    };
    assert_eq!(files(), before.segments);
    drop(pin);
    store.compact().await.unwrap();
    assert_eq!(files(), after.segments);
}

fn files(world: &World, dir: &str) -> Vec<std::path::PathBuf> {
    use oteld_env::Disk;
    world.disk.list(std::path::Path::new(dir)).unwrap()
}

fn segment_files(world: &World) -> Vec<std::path::PathBuf> {
    files(world, "/data/segments")
}

#[tokio::test]
async fn a_flush_whose_commit_found_the_disk_full_is_committed_later_without_a_second_set() {
    let mut at = 0;
    let (world, store) = loop {
        let mut world = World::new(43);
        let store = world.open().await;
        for _ in 0..5 {
            let request = world.request();
            world.append(&store, &request).await;
        }
        world.disk.inject(On::AnyChange, at, Fault::NoSpace);
        let error = store.flush().await.unwrap_err().to_string();
        if error.contains("cannot write the manifest") {
            break (world, store);
        }
        at += 1;
    };
    let written = segment_files(&world);
    assert!(!written.is_empty() && store.status().read_only.is_none());
    let others = files(&world, "/data");
    for at in 0..3 {
        world.disk.inject(On::AnyChange, at, Fault::NoSpace);
        store.flush().await.unwrap_err();
        world.check(&store.pin());
    }
    assert_eq!(files(&world, "/data"), others, "no attempt leaves a file");
    assert_eq!(segment_files(&world), written);
    store.flush().await.unwrap();
    assert_eq!(segment_files(&world), written);
    assert_eq!((store.status().segments, store.status().memtables_frozen), (written.len() as u64, 0));
    world.check(&store.pin());
    world.disk.crash();
    world.check(&world.open().await.pin());
}

#[tokio::test]
async fn a_flush_that_the_disk_cannot_hold_is_not_begun_and_appends_of_the_meantime_are_flushed_too() {
    let mut world = World::new(44);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    world.disk.set_capacity_bytes(1 << 10);
    let before = world.disk.changes();
    for _ in 0..3 {
        assert!(store.flush().await.unwrap_err().to_string().contains("are free"));
    }
    assert_eq!(world.disk.changes(), before, "nothing was tried on the full disk");
    world.disk.set_capacity_bytes(1 << 30);
    let request = world.request();
    world.append(&store, &request).await;
    store.flush().await.unwrap();
    assert_eq!(store.status().memtable_bytes, 0);
    world.check(&store.pin());
}

#[tokio::test]
async fn a_merge_without_space_holds_no_smaller_one_up() {
    let mut world = World::new(45);
    let store = world.open().await;
    let later = START + 5 * Window::NANOS;
    for (rows, from) in [(2000, START), (4, later)] {
        for _ in 0..3 {
            let request = Request::sample(&world.random, Signal::Logs, rows, from..from + 1000);
            world.append(&store, &request).await;
            store.flush().await.unwrap();
        }
    }
    let free = world.env().disk.free_bytes(&world.options.dir).unwrap();
    let used = (1 << 30) - free;
    world.disk.set_capacity_bytes(used + world.options.min_free_bytes + (32 << 10));
    assert!(store.compact().await.unwrap_err().to_string().contains("are free"));
    assert_eq!((store.status().compactions, store.status().segments), (1, 4));
    world.disk.set_capacity_bytes(1 << 30);
    store.compact().await.unwrap();
    assert_eq!((store.status().compactions, store.status().segments), (2, 2));
    world.check(&store.pin());
}
