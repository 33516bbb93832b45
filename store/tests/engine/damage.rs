//! Damage on disk: a torn tail is cut, lost data is never passed over.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::Disk;
use oteld_store::model::{Shard, Signal, Tenant};
use oteld_store::scan::{Order, Scan, ScanBudget, ScanError, ScanScope};
use oteld_store::{OpenError, Position, Prefix, Store, StoreError, TailError};

use crate::world::{Request, SHARDS, START, World};

fn newest(world: &World, dir: &str) -> PathBuf {
    world.disk.list(Path::new(dir)).unwrap().pop().unwrap()
}

/// A store with three requests in the WAL of its first boot, after a crash.
async fn crashed(seed: u64) -> (World, PathBuf, Vec<u64>) {
    let mut world = World::new(seed);
    let store = world.open().await;
    let mut ends = Vec::new();
    for _ in 0..3 {
        let request = world.request();
        world.append(&store, &request).await;
        ends.push(store.status().wal_bytes);
    }
    drop(store);
    world.disk.crash();
    let wal = newest(&world, "/data/wal");
    (world, wal, ends)
}

#[tokio::test]
async fn damage_in_the_last_group_is_a_torn_tail_and_before_it_a_loss() {
    let (mut world, wal, ends) = crashed(1).await;
    world.disk.flip_bit(&wal, ends[0] + 150, 3).unwrap();
    let error = world.try_open().await.unwrap_err();
    assert!(matches!(&error, OpenError::Loss { .. }), "{error}");
    world.disk.flip_bit(&wal, ends[0] + 150, 3).unwrap();
    world.disk.flip_bit(&wal, ends[2] - 1, 3).unwrap();
    let store = world.open().await;
    assert!(store.status().torn_bytes > 0);
    let shown = store.ends()[&1] as usize;
    world.held.truncate(shown);
    world.check(&store.pin());
    let request = world.request();
    world.append(&store, &request).await;
    drop(store);
    world.disk.crash();
    world.check(&world.open().await.pin());
}

#[tokio::test]
async fn a_missing_or_cut_wal_file_is_a_loss() {
    let (world, wal, _) = crashed(2).await;
    world.disk.remove_file(&wal).unwrap();
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::Loss { .. }));

    let (world, wal, _) = crashed(3).await;
    let store = world.open().await;
    drop(store);
    world.disk.crash();
    let file = world.disk.open(&wal, false).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::Loss { .. }));
}

#[tokio::test]
async fn what_was_synced_at_a_clean_close_has_to_be_there() {
    let mut world = World::new(4);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    let end = store.status().wal_bytes;
    store.close().await;
    let wal = newest(&world, "/data/wal");
    world.disk.flip_bit(&wal, end - 1, 0).unwrap();
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::Loss { .. }));
}

#[tokio::test]
async fn a_damaged_manifest_is_never_replaced_by_an_older_one() {
    let (world, _, _) = crashed(5).await;
    let manifest = world
        .disk
        .list(Path::new("/data"))
        .unwrap()
        .into_iter()
        .rfind(|path| path.to_string_lossy().contains("manifest-"))
        .unwrap();
    let older = Path::new("/data/manifest-00000000000000000001");
    world.disk.replace(older, &world.disk.read(&manifest).unwrap()).unwrap();
    world.disk.flip_bit(&manifest, 50, 1).unwrap();
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::ManifestDamaged { .. }));
    world.disk.remove_file(&manifest).unwrap();
    world.disk.remove_file(older).unwrap();
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::NoManifest { .. }));
}

#[tokio::test]
async fn a_directory_is_opened_once() {
    let world = World::new(6);
    let _store = world.open().await;
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::Locked { .. }));
}

#[tokio::test]
async fn what_a_crash_left_half_replaced_is_removed_at_open() {
    let (world, _, _) = crashed(4).await;
    let left = ["/data/manifest-00000000000000000009.tmp", "/data/segments/00000000000000000009.seg.tmp"];
    for path in left.map(Path::new) {
        world.disk.open(path, true).unwrap().write_all_at(0, b"half").unwrap();
    }
    world.check(&world.open().await.pin());
    for path in left.map(Path::new) {
        assert!(!world.disk.exists(path).unwrap(), "{}", path.display());
    }
}

/// A store with a segment of log rows for each of `segments` flushes, whose first page is damaged in the first.
async fn with_a_damaged_page(seed: u64, segments: usize) -> (World, Store) {
    let mut world = World::new(seed);
    let store = world.open().await;
    for _ in 0..segments {
        let time = START..START + 1_000_000_000;
        let request = Request::sample(&world.random, Signal::Logs, 50, time);
        world.append(&store, &request).await;
        store.flush().await.unwrap();
    }
    let first = world.disk.list(Path::new("/data/segments")).unwrap().remove(0);
    world.disk.flip_bit(&first, 100, 3).unwrap();
    (world, store)
}

fn scan_logs(store: &Store) -> Result<(), ScanError> {
    ["default", "other"].into_iter().try_for_each(|tenant| {
        let shards = Arc::new((0..SHARDS).map(Shard).collect());
        let scope = ScanScope { tenant: Tenant::new(tenant), shards, time_unix_nano: 0..u64::MAX };
        let (budget, pin) = (ScanBudget::unlimited(), store.pin());
        let visit = &mut |_| ControlFlow::Continue(());
        pin.logs(&scope, &budget, Order::OldestFirst, &mut |_| true, visit)
    })
}

#[tokio::test]
async fn a_damaged_page_that_a_scan_meets_is_a_loss_at_once_and_after_a_restart() {
    let (world, store) = with_a_damaged_page(7, 1).await;
    assert_eq!(store.lost(), None);
    assert!(matches!(scan_logs(&store).unwrap_err(), ScanError::Damaged { .. }));
    let lost = store.lost().unwrap();
    assert!(lost.contains("data that was synced is missing: segment /data/segments/"), "{lost}");
    // Recorded by a task of its own: this waits for it.
    let next = world.request();
    while store.append(&next.batch(), &[0]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    store.close().await;
    assert!(matches!(world.try_open().await.unwrap_err(), OpenError::Loss { .. }));
}

#[tokio::test]
async fn a_damaged_page_that_a_merge_or_a_copy_meets_is_a_loss() {
    let (_world, store) = with_a_damaged_page(8, 3).await;
    assert!(matches!(store.compact().await.unwrap_err(), StoreError::Damaged { .. }));
    assert!(store.lost().is_some());

    let (_world, store) = with_a_damaged_page(9, 1).await;
    let snapshot = store.snapshot().await.unwrap();
    let offer = snapshot.offers().remove(0);
    snapshot.read(offer.id, 0, 100).unwrap();
    assert_eq!(store.lost(), None);
    assert!(
        snapshot.read(offer.id, 100, offer.info.bytes).is_err(),
        "the last bytes say that all are as written"
    );
    assert!(store.lost().is_some());
}

#[tokio::test]
async fn a_damaged_file_of_the_log_sends_peers_to_the_segments() {
    let mut world = World::new(10);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    world.disk.flip_bit(&newest(&world, "/data/wal"), store.status().wal_bytes - 1, 3).unwrap();
    let asked = Position { boot: 1, n: 1 };
    assert!(matches!(store.read_parts(&[asked]).await.unwrap_err(), StoreError::Damaged { .. }));
    let shards = (0..SHARDS).map(Shard).collect();
    let page = store.tail(Prefix::default(), &shards, 10);
    assert!(matches!(page.unwrap_err(), TailError::BelowStart { .. }));
    world.check(&store.pin());
    let next = world.request();
    world.append(&store, &next).await;
    drop(store);
    world.disk.crash();
    let store = world.open().await;
    assert_eq!(store.lost(), None);
    world.check(&store.pin());
}
