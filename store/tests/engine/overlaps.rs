//! Snapshots, installs, flushes and leaves that overlap, with blocking work that takes as long as a test wants.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use oteld_env::{Env, Tasks, WorkQueue};
use oteld_store::model::{Shard, Signal, Window};
use oteld_store::{Store, StoreError};
use tokio::time::{sleep, timeout};

use crate::snapshots::{all, catch_up_by, copy, filled, pull, world};
use crate::world::{Request, START, World};

#[tokio::test]
async fn segments_that_were_compared_before_a_shard_was_left_are_not_installed() {
    let mut peer_world = world(28);
    let peer = filled(&mut peer_world, 6, 0).await;
    let store = world(29).open().await;
    let (compared, snapshot) = (store.left_before(&all()), peer.snapshot().await.unwrap());
    copy(&snapshot, &snapshot.offers(), &store).await.unwrap();
    store.prepare_leave().await.unwrap().leave(BTreeSet::from([Shard(1)])).await.unwrap();
    let installed = store.install_received(snapshot.offers(), &all(), &compared).await;
    assert_eq!(installed, Err(StoreError::LeftMeanwhile));
    // Compared anew.
    catch_up_by(&snapshot, &peer, &store, &all()).await.unwrap();
    peer_world.check(&store.pin());
}

/// A store whose blocking work takes as long as the queue says.
async fn slow(world: &World, queue: &WorkQueue) -> Store {
    let tasks = Tasks::queued(world.random.clone(), queue.clone());
    Store::open(Env { tasks, ..world.env() }, world.options.clone()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_what_came_before_an_install_that_it_overlapped() {
    let (mut peer_world, mut store_world) = (world(30), world(31));
    let peer = peer_world.open().await;
    let installed = peer_world.request();
    peer_world.append(&peer, &installed).await;
    let from_peer = peer.snapshot().await.unwrap();
    let queue = WorkQueue::default();
    let store = slow(&store_world, &queue).await;
    copy(&from_peer, &from_peer.offers(), &store).await.unwrap();
    // In one window, whose ids are in memory from then on.
    let request = |world: &World| Request::sample(&world.random, Signal::Logs, 4, START..START + 1000);
    let first = request(&store_world);
    store_world.append(&store, &first).await;
    // What an install does while no ids may be loaded is slow, all else is not.
    queue.slow_by(Duration::from_millis(10));
    let (shards, compared) = (all(), store.left_before(&all()));
    let mut installing = pin!(store.install_received(from_peer.offers(), &shards, &compared));
    assert!(timeout(Duration::from_millis(1), &mut installing).await.is_err());
    queue.slow_by(Duration::from_secs(1));
    assert!(timeout(Duration::from_millis(20), &mut installing).await.is_err());
    assert_eq!(files(&store_world, "received"), 0);
    queue.slow_by(Duration::from_millis(10));
    let second = request(&store_world);
    let meanwhile = async {
        sleep(Duration::from_millis(200)).await;
        store_world.append(&store, &second).await;
    };
    let (done, snapshot, ()) = tokio::join!(installing, store.snapshot(), meanwhile);
    assert!(done.unwrap().is_some());
    let third = world(32).open().await;
    catch_up_by(&snapshot.unwrap(), &store, &third, &all()).await.unwrap();
    assert!(pull(&store, &third, &all()).await);
    store_world.hold(&installed);
    store_world.check(&third.pin());
}

#[tokio::test(start_paused = true)]
async fn a_flush_whose_caller_went_away_is_not_committed_twice() {
    let mut world = world(33);
    let queue = WorkQueue::default();
    let store = slow(&world, &queue).await;
    let request = |world: &World| Request::sample(&world.random, Signal::Logs, 4, START..START + 1000);
    for _ in 0..2 {
        let flushed = request(&world);
        world.append(&store, &flushed).await;
        store.flush().await.unwrap();
    }
    let last = request(&world);
    world.append(&store, &last).await;
    // Its caller goes away in the middle of its commit, which is slow.
    queue.slow_by(Duration::from_millis(10));
    {
        let mut flush = pin!(store.flush());
        assert!(timeout(Duration::from_millis(39), &mut flush).await.is_err());
        queue.slow_by(Duration::from_secs(60));
        assert!(timeout(Duration::from_millis(20), &mut flush).await.is_err());
    }
    assert_eq!(store.status().flushes, 2, "not committed yet");
    // Who waits next loads ids, and the next flush comes after that.
    let (id, digest, shard) = (last.id, last.digest(), last.parts[0].0);
    let window = Window::of(START + 5 * Window::NANOS);
    let mut load = pin!(store.has_part(Signal::Logs, window, id, digest, shard));
    assert!(timeout(Duration::from_millis(1), &mut load).await.is_err());
    let mut again = pin!(store.flush());
    assert!(timeout(Duration::from_millis(1), &mut again).await.is_err());
    while store.status().flushes < 3 {
        sleep(Duration::from_millis(5)).await;
    }
    // The load is slow, and a merge needs nothing that it holds.
    assert!(timeout(Duration::from_millis(1), &mut load).await.is_err());
    queue.slow_by(Duration::ZERO);
    store.compact().await.unwrap();
    assert_eq!(store.status().compactions, 1);
    assert!(timeout(Duration::from_millis(1), &mut again).await.is_err());
    assert_eq!(load.await, Ok(false));
    again.await.unwrap();
    world.check(&store.pin());
    // The inputs of the merge are removed for good.
    store.compact().await.unwrap();
    store.clone().close().await;
    let store = world.open().await;
    world.check(&store.pin());
}

/// Files of the segments' directory with one of these endings.
fn files(world: &World, extension: &str) -> usize {
    let files = world.env().disk.list(&world.options.dir.join("segments")).unwrap();
    files.iter().filter(|file| file.extension().is_some_and(|of| of == extension)).count()
}

#[tokio::test(start_paused = true)]
async fn appends_do_not_wait_until_received_segments_are_read_and_written_anew() {
    let (mut peer_world, mut store_world) = (world(34), world(35));
    let peer = filled(&mut peer_world, 6, 0).await;
    let from_peer = peer.snapshot().await.unwrap();
    let queue = WorkQueue::default();
    let store = slow(&store_world, &queue).await;
    copy(&from_peer, &from_peer.offers(), &store).await.unwrap();
    let (shards, compared) = (all(), store.left_before(&all()));
    queue.slow_by(Duration::from_secs(60));
    let mut installing = pin!(store.install_received(from_peer.offers(), &shards, &compared));
    assert!(timeout(Duration::from_millis(1), &mut installing).await.is_err());
    queue.slow_by(Duration::ZERO);
    // Of a window whose ids are not in memory yet.
    let request = store_world.request();
    timeout(Duration::from_secs(1), store_world.append(&store, &request)).await.expect("not held up");
    assert!(timeout(Duration::from_millis(1), &mut installing).await.is_err(), "still under way");
    assert!(installing.await.unwrap().is_some());
    store_world.held.extend(peer_world.held);
    store_world.check(&store.pin());
}

#[tokio::test(start_paused = true)]
async fn an_install_whose_caller_went_away_leaves_no_files() {
    let mut peer_world = world(36);
    let peer = filled(&mut peer_world, 6, 0).await;
    let from_peer = peer.snapshot().await.unwrap();
    let queue = WorkQueue::default();
    let store_world = world(37);
    let store = slow(&store_world, &queue).await;
    copy(&from_peer, &from_peer.offers(), &store).await.unwrap();
    assert!(files(&store_world, "received") > 0);
    let (shards, compared) = (all(), store.left_before(&all()));
    queue.slow_by(Duration::from_secs(1));
    let installing = store.install_received(from_peer.offers(), &shards, &compared);
    assert!(timeout(Duration::from_millis(1), installing).await.is_err());
    queue.slow_by(Duration::ZERO);
    while files(&store_world, "received") > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    // The next maintenance removes what nothing names.
    while files(&store_world, "seg") > 0 {
        sleep(Duration::from_millis(5)).await;
        store.compact().await.unwrap();
    }
    // What came is asked for again.
    catch_up_by(&from_peer, &peer, &store, &all()).await.unwrap();
    peer_world.check(&store.pin());
}
