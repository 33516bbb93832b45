//! Shards that a store left: gone from all that it shows and knows, and whole again when it comes back.

use std::collections::BTreeSet;

use oteld_store::model::{Shard, Signal, Window};
use oteld_store::{Appended, Prefix, ReplicaId};

use crate::snapshots::{all, catch_up, filled, pull, world};
use crate::world::{Request, START, World, members};

const LEFT: Shard = Shard(1);

fn left() -> BTreeSet<Shard> {
    BTreeSet::from([LEFT])
}

/// What a world holds without the shard.
fn without(world: &World) -> World {
    let mut rest = World::new(0);
    rest.held = world.held.iter().filter(|(_, _, shard, _)| *shard != LEFT).cloned().collect();
    assert!(rest.held.len() < world.held.len(), "the shard has rows");
    rest
}

#[tokio::test]
async fn rows_ids_and_cursors_of_a_shard_that_was_left_are_gone_at_once_and_after_a_restart() {
    let mut world = world(60);
    let store = filled(&mut world, 30, 3).await;
    let request = Request::sample(&world.random, Signal::Logs, 30, START..START + Window::NANOS);
    assert!(request.parts.iter().any(|(shard, _)| *shard == LEFT));
    world.append(&store, &request).await;
    let peer = ReplicaId(7);
    store.advance_cursor(peer, &members(&all()), store.published()).await.unwrap();
    let pinned = store.pin();
    assert!(store.held_shards().contains(&LEFT));
    store.prepare_leave().await.unwrap().leave(left()).await.unwrap();
    world.check(&pinned);
    drop(pinned);
    let rest = without(&world);
    for restarted in [false, true] {
        if restarted {
            world.disk.crash();
        }
        let store = if restarted { world.open().await } else { store.clone() };
        rest.check(&store.pin());
        assert!(!store.held_shards().contains(&LEFT));
        let lost = |shard| if shard == LEFT { Appended::Applied } else { Appended::Duplicate };
        assert_eq!(store.cursor(peer, LEFT, 2), Prefix::default(), "of the next membership");
        assert!(restarted || store.cursor(peer, LEFT, 1) == Prefix::default());
        store.compact().await.unwrap();
        rest.check(&store.pin());
        let offers = store.snapshot().await.unwrap().offers();
        assert!(offers.iter().all(|offer| !offer.info.shards.contains(&LEFT)), "the bytes are gone");
        if restarted {
            let parts: Vec<usize> = (0..request.parts.len()).collect();
            let again = store.append(&request.batch(), &parts).await.unwrap();
            assert_eq!(again, request.parts.iter().map(|(shard, _)| lost(*shard)).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_store_that_comes_back_to_a_shard_holds_all_of_it_again() {
    for seed in 61..64 {
        let mut peer_world = world(seed);
        let peer = filled(&mut peer_world, 30, 0).await;
        let store_world = world(seed + 100);
        let store = store_world.open().await;
        catch_up(&peer, &store, &all()).await.unwrap();
        peer_world.check(&store.pin());
        // With and without the bytes of the shard still in the files.
        store.prepare_leave().await.unwrap().leave(left()).await.unwrap();
        if seed == 61 {
            store.compact().await.unwrap();
        }
        without(&peer_world).check(&store.pin());
        assert!(!pull(&peer, &store, &all()).await, "its cursor is gone, and the log does not reach back");
        catch_up(&peer, &store, &all()).await.unwrap();
        peer_world.check(&store.pin());
        store_world.disk.crash();
        peer_world.check(&store_world.open().await.pin());
    }
}

#[tokio::test]
async fn a_peer_gets_nothing_of_a_shard_that_was_left() {
    let mut store_world = world(70);
    let store = filled(&mut store_world, 30, 0).await;
    store.prepare_leave().await.unwrap().leave(left()).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.offers().iter().any(|offer| offer.info.shards.contains(&LEFT)), "the bytes are there");
    let third_world = world(71);
    let third = third_world.open().await;
    catch_up(&store, &third, &all()).await.unwrap();
    without(&store_world).check(&third.pin());
}
