//! Damage on disk: a torn tail is cut, lost data is never passed over.

use std::path::{Path, PathBuf};

use oteld_env::Disk;
use oteld_store::OpenError;

use crate::world::World;

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
