//! Operations that overlap, held up on the disk at the worst moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oteld_env::{Disk, Env, Tasks};
use oteld_store::model::{Signal, Window};
use oteld_store::{OpenError, Store};

use crate::gate::{GatedDisk, Stop};
use crate::world::{Request, START, World};

/// How long something that must not happen is waited for.
const GRACE: Duration = Duration::from_millis(200);

fn env(world: &World, disk: &GatedDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), tasks: Tasks::threads(), ..world.env() }
}

fn request(world: &World) -> Request {
    Request::sample(&world.random, Signal::Logs, 4, START..START + 1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_during_a_load_of_ids_loses_none_of_them() {
    let mut world = World::new(1);
    world.options.ids_max = 0;
    let store = world.open().await;
    let (flushed, unflushed) = (request(&world), request(&world));
    world.append(&store, &flushed).await;
    store.flush().await.unwrap();
    world.append(&store, &unflushed).await;
    store.close().await;

    let disk = GatedDisk::new(world.disk.clone());
    let store = Store::open(env(&world, &disk), world.options.clone()).await.unwrap();
    let segment = world.disk.list(Path::new("/data/segments")).unwrap().remove(0);
    disk.close(Stop::Reads(segment));
    let asked = store.clone();
    let (id, digest, shard) = (unflushed.id, unflushed.digest(), unflushed.parts[0].0);
    let has = world.env().tasks.spawn(async move {
        asked.has_part(Signal::Logs, Window::of(START), id, digest, shard).await.unwrap()
    });
    disk.until_stopped().await;
    let flushing = store.clone();
    let mut flush = world.env().tasks.spawn(async move { flushing.flush().await });
    let early = tokio::time::timeout(GRACE, &mut flush).await;
    disk.open_gate();
    match early {
        Ok(flushed) => flushed.unwrap().unwrap(),
        Err(_) => flush.await.unwrap().unwrap(),
    }
    assert!(has.await.unwrap(), "its id was forgotten");
    world.check(&store.pin());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_store_keeps_its_directory_until_its_last_write_is_done() {
    let mut world = World::new(2);
    let disk = GatedDisk::new(world.disk.clone());
    let env = env(&world, &disk);
    let store = Store::open(env.clone(), world.options.clone()).await.unwrap();
    let first = request(&world);
    world.append(&store, &first).await;
    let wal = world.disk.list(Path::new("/data/wal")).unwrap().remove(0);
    disk.close(Stop::Writes(wal));
    let (appending, second) = (store.clone(), request(&world));
    let append = env.tasks.spawn(async move { appending.append(&second.batch(), &[0]).await });
    disk.until_stopped().await;
    append.abort();
    assert!(append.await.unwrap_err().is_cancelled());
    drop(store);
    let deadline = tokio::time::Instant::now() + GRACE;
    while tokio::time::Instant::now() < deadline {
        let error = Store::open(env.clone(), world.options.clone()).await.map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    }
    disk.open_gate();
    let store = loop {
        match Store::open(env.clone(), world.options.clone()).await {
            Ok(store) => break store,
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(store.boot().counter, 2);
}
