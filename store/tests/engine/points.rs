//! Power loss at the moments that the store names, where the order of what is made durable matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use oteld_env::disk::POINTS;
use oteld_env::{Env, FaultyDisk};
use oteld_store::model::{Shard, Window};
use oteld_store::{FenceEntry, OpenError, ReplicaId, Store, StoreError};

use crate::snapshots::{all, catch_up, filled, world};
use crate::world::{Request, World, members};

const LEFT: Shard = Shard(1);
const PULLED_FROM: ReplicaId = ReplicaId(7);

/// What the store has said to be durable.
#[derive(Debug, Default)]
struct Promised {
    requests: Vec<Request>,
    epoch: u64,
    installed: bool,
    left: bool,
}

/// Everything that a store does with its disk, until the power goes.
async fn work(world: &World, store: &Store, peer: &Store, promised: &mut Promised) -> Result<(), StoreError> {
    for epoch in 1..4 {
        for _ in 0..3 {
            let request = world.request();
            let parts: Vec<usize> = (0..request.parts.len()).collect();
            if store.append(&request.batch(), &parts).await.is_err() {
                return Err(StoreError::Closed);
            }
            promised.requests.push(request);
        }
        store.advance_cursor(PULLED_FROM, &members(&all()), store.published()).await?;
        store.raise_entry(Shard(0), FenceEntry { epoch, encoded: Default::default() }).await?;
        promised.epoch = epoch;
        store.flush().await?;
        store.compact().await?;
    }
    catch_up(peer, store, &all()).await?;
    promised.installed = true;
    store.prepare_leave().await?.leave(BTreeSet::from([LEFT])).await?;
    promised.left = true;
    Ok(())
}

async fn has(store: &Store, request: &Request, shard: Shard) -> bool {
    let (_, rows) = request.parts.iter().find(|(of, _)| *of == shard).unwrap();
    let times = (0..rows.len()).map(|index| rows.event_time_unix_nano(index));
    let window = Window::of(times.min().unwrap());
    store.has_part(request.signal, window, request.id, request.digest(), shard).await.unwrap()
}

/// Works until the power goes at `point`; whether it did.
async fn power_goes_at(point: &'static str, nth: u64) -> bool {
    let mut peer_world = world(900);
    let peer = filled(&mut peer_world, 12, 0).await;
    let store_world = world(901 + nth);
    let mut promised = Promised::default();
    store_world.disk.arm(point, nth);
    if let Ok(store) = store_world.try_open().await {
        let done = work(&store_world, &store, &peer, &mut promised).await;
        assert_eq!(done.is_err(), store_world.disk.is_powerless() && !promised.left, "{point}: {done:?}");
    }
    let went = store_world.disk.is_powerless();
    store_world.disk.crash();
    let store = store_world.try_open().await.unwrap_or_else(|error| panic!("{point} {nth}: {error}"));
    let peer_parts = peer_world.held.len();
    for request in &promised.requests {
        for (shard, _) in request.parts.iter().filter(|(shard, _)| *shard != LEFT) {
            assert!(has(&store, request, *shard).await, "{point} {nth}: an acknowledged part is gone");
        }
    }
    let epoch = store.entry(Shard(0)).map_or(0, |entry| entry.epoch);
    assert!(epoch >= promised.epoch, "{point} {nth}: a fence fell to {epoch}");
    if promised.installed {
        let again = catch_up(&peer, &store, &BTreeSet::from([Shard(0), Shard(2)])).await.unwrap();
        assert!(peer_parts > 0 && again.installed().is_none(), "{point} {nth}: installed rows are gone");
    }
    if promised.left {
        assert!(!store.held_shards().contains(&LEFT), "{point} {nth}: a shard that was left is back");
    }
    went
}

#[tokio::test]
async fn power_loss_at_any_named_point_takes_nothing_that_was_promised() {
    for point in POINTS {
        let mut nth = 1;
        while power_goes_at(point, nth).await {
            nth += 1;
        }
        assert!(nth > 1, "{point} is never reached");
    }
}

/// The same on real files: what was not synced is in the memory of the disk that is dropped.
#[tokio::test]
async fn a_kill_on_real_files_takes_nothing_that_was_acknowledged() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut killed = World::new(seed);
        killed.options.dir = dir.path().join("store");
        killed.options.wal_file_bytes = 8 << 10;
        for round in 0..4 {
            let disk = FaultyDisk::new(seed * 10 + round, true);
            let env = Env { disk: Arc::new(disk.clone()), ..killed.env() };
            let store = loop {
                match Store::open(env.clone(), killed.options.clone()).await {
                    // The tasks of the store before let go of it when they find that it is gone.
                    Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
                    opened => break opened.unwrap(),
                }
            };
            killed.check(&store.pin());
            for _ in 0..4 {
                let request = killed.request();
                killed.append(&store, &request).await;
            }
            match round {
                1 => store.flush().await.unwrap(),
                2 => store.compact().await.unwrap(),
                _ => {}
            }
            let request = killed.request();
            killed.append(&store, &request).await;
            killed.check(&store.pin());
        }
    }
}
