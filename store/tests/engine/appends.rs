//! Appending: what is acknowledged, what is refused, what survives.

use std::collections::BTreeSet;

use oteld_env::disk::{Fault, On};
use oteld_store::batch::Batch;
use oteld_store::canonical::row_bytes;
use oteld_store::model::{Rows, Shard, Signal, Window};
use oteld_store::{AppendError, Appended, Position, Prefix, ReplicaId, TailError};

use crate::world::{Request, START, World, members, raise_floor};

#[tokio::test]
async fn what_was_appended_is_seen_before_and_after_a_crash() {
    let mut world = World::new(1);
    let store = world.open().await;
    let before = store.pin();
    for _ in 0..30 {
        let request = world.request();
        world.append(&store, &request).await;
    }
    world.check(&store.pin());
    World::new(1).check(&before);
    world.disk.crash();
    let again = world.open().await;
    assert_eq!((again.replica(), again.boot().counter), (store.replica(), 2));
    world.check(&again.pin());
    assert_eq!(again.ends(), [(1, store.position().n)].into());
    assert_eq!(again.position(), Position { boot: 2, n: 0 });
}

#[tokio::test]
async fn a_resent_request_counts_once_also_in_another_batch_and_after_a_crash() {
    let mut world = World::new(2);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    let again = vec![Appended::Duplicate; request.parts.len()];
    let parts: Vec<usize> = (0..request.parts.len()).collect();
    assert_eq!(store.append(&request.batch(), &parts).await.unwrap(), again);
    let position = store.position();
    world.disk.crash();
    let store = world.open().await;
    let other = Request { parts: request.parts[..1].to_vec(), ..request.clone() };
    assert_eq!(store.append(&other.batch(), &[0]).await.unwrap(), [Appended::Duplicate]);
    assert_eq!(store.ends()[&1], position.n);
    world.check(&store.pin());
}

/// Every row of logs, bit for bit.
fn bits(rows: &Rows) -> Vec<Vec<u8>> {
    let Rows::Logs(rows) = rows else { unreachable!() };
    rows.iter().map(row_bytes).collect()
}

/// Also in a file of the log that has the definition from a batch of an earlier one, and for a peer that asks for it.
#[tokio::test]
async fn a_definition_that_is_known_need_not_be_sent_again() {
    let mut world = World::new(4);
    let store = world.open().await;
    let first = Request::sample(&world.random, Signal::Logs, 40, START..START + 1000);
    let lean = |request: &Request| Batch::parse(request.batch().bytes_for(&|_| true)).unwrap();
    let missing = first.batch().definition_hashes().collect();
    let refused = store.append(&lean(&first), &[0]).await.unwrap_err();
    assert_eq!(refused, AppendError::MissingDefinitions(missing));
    world.append(&store, &first).await;
    store.flush().await.unwrap();

    let again = Request { id: world.request().id, ..first.clone() };
    let all: Vec<usize> = (0..again.parts.len()).collect();
    let outcome = store.append(&lean(&again), &all).await.unwrap();
    assert!(outcome.iter().all(|part| *part == Appended::Applied));
    world.hold(&again);
    world.disk.crash();
    let store = world.open().await;
    world.check(&store.pin());
    let n = (all.len() + first.parts.len()) as u64;
    let pulled = store.read_parts(&[Position { boot: 1, n }]).await.unwrap();
    let pulled = Batch::parse(pulled[0].bytes().clone()).unwrap();
    assert_eq!(bits(&pulled.decode(0).unwrap()), bits(&again.parts.last().unwrap().1));
}

#[tokio::test]
async fn another_body_under_the_same_id_is_a_conflict() {
    let mut world = World::new(3);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    let mut parts = request.part_rows(|_| true);
    parts.iter_mut().for_each(|part| part.digest ^= 1);
    let outcome = store.append(&Batch::encode(request.signal, parts), &[0]).await.unwrap();
    assert_eq!(outcome, [Appended::Conflict]);
    world.check(&store.pin());
}

#[tokio::test]
async fn a_pulled_part_is_stored_beside_another_body_under_its_id() {
    let mut world = World::new(12);
    let mut peer_world = World::new(13);
    let (store, peer) = (world.open().await, peer_world.open().await);
    let sample = |world: &World| Request::sample(&world.random, Signal::Metrics, 5, START..START + 1000);
    let mine = sample(&world);
    let theirs = Request { id: mine.id, tenant: mine.tenant.clone(), ..sample(&peer_world) };
    let theirs_batch = || {
        let mut parts = theirs.part_rows(|_| true);
        parts.iter_mut().for_each(|part| part.digest ^= 1);
        Batch::encode(theirs.signal, parts)
    };
    let all: Vec<usize> = (0..theirs.parts.len()).collect();
    world.append(&store, &mine).await;
    peer.append(&theirs_batch(), &all).await.unwrap();
    peer_world.hold(&theirs);

    let shards: BTreeSet<_> = (0..3).map(Shard).collect();
    let listed = peer.tail(Prefix::default(), &shards, 100).unwrap().entries;
    assert_eq!(store.missing_parts(&listed).await.unwrap(), listed);
    let positions: Vec<_> = listed.iter().map(|entry| entry.position).collect();
    for batch in peer.read_parts(&positions).await.unwrap() {
        let outcome = store.append_pulled(&batch, &all).await.unwrap();
        assert!(outcome.iter().all(|part| *part == Appended::Applied), "{outcome:?}");
    }
    assert!(store.missing_parts(&listed).await.unwrap().is_empty());
    world.hold(&theirs);
    world.check(&store.pin());
    world.disk.crash();
    let store = world.open().await;
    world.check(&store.pin());
    store.flush().await.unwrap();
    store.close().await;
    let store = world.open().await;
    world.check(&store.pin());
    assert!(store.missing_parts(&listed).await.unwrap().is_empty());
    let again = store.append_pulled(&theirs_batch(), &all).await.unwrap();
    assert!(again.iter().all(|part| *part == Appended::Duplicate), "{again:?}");
    assert_eq!(store.append(&mine.batch(), &[0]).await.unwrap(), [Appended::Duplicate]);
    let mut third = mine.part_rows(|_| true);
    third.iter_mut().for_each(|part| part.digest ^= 2);
    let outcome = store.append(&Batch::encode(mine.signal, third), &[0]).await.unwrap();
    assert_eq!(outcome, [Appended::Conflict]);
}

#[tokio::test]
async fn a_part_that_is_twice_in_a_batch_or_on_its_way_is_applied_once() {
    let mut world = World::new(4);
    let store = world.open().await;
    let request = Request::sample(&world.random, Signal::Logs, 5, START..START + 1000);
    let batch = request.batch();
    let doubled: Vec<usize> = (0..batch.parts().len()).chain(0..batch.parts().len()).collect();
    let (one, other) = tokio::join!(store.append(&batch, &doubled), store.append(&batch, &[0]));
    let one = one.unwrap();
    let (new, old) = one.split_at(batch.parts().len());
    assert!(new.iter().all(|part| *part == Appended::Applied));
    assert!(old.iter().all(|part| *part == Appended::Duplicate));
    assert_eq!(other.unwrap(), [Appended::Duplicate]);
    assert_eq!(store.position().n, batch.parts().len() as u64);
    world.hold(&request);
    world.check(&store.pin());
}

#[tokio::test]
async fn rows_below_the_floor_are_invisible_and_dropped_and_the_floor_survives() {
    let mut world = World::new(5);
    let store = world.open().await;
    let old = Request::sample(&world.random, Signal::Logs, 9, START..START + 1000);
    let new = Request::sample(&world.random, Signal::Logs, 9, START + 5000..START + 6000);
    world.append(&store, &old).await;
    world.append(&store, &new).await;
    raise_floor(&store, &old.tenant, Signal::Logs, START + 5000).await;
    raise_floor(&store, &old.tenant, Signal::Logs, START + 4000).await;
    world
        .held
        .retain(|(_, tenant, _, rows)| *tenant != old.tenant || rows.event_time_unix_nano(0) >= START + 5000);
    world.check(&store.pin());
    world.disk.crash();
    let store = world.open().await;
    world.check(&store.pin());
    assert_eq!(store.floor(&old.tenant, Signal::Logs), START + 5000);
    let mut late = Request::sample(&world.random, Signal::Logs, 3, START..START + 1000);
    late.tenant = old.tenant.clone();
    assert_eq!(store.append(&late.batch(), &[0]).await.unwrap(), [Appended::BelowFloor]);
    world.check(&store.pin());
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let mut world = World::new(6);
    let store = world.open().await;
    let first = world.request();
    world.append(&store, &first).await;
    world.disk.inject(On::Sync, 0, Fault::Io);
    let request = world.request();
    for _ in 0..2 {
        let refused = store.append(&request.batch(), &[0]).await.unwrap_err();
        assert!(matches!(refused, AppendError::ReadOnly { .. }), "{refused}");
    }
    assert!(store.status().read_only.unwrap().contains("cannot sync the WAL"));
    world.check(&store.pin());
    world.disk.crash();
    let store = world.open().await;
    world.check(&store.pin());
    world.append(&store, &request).await;
    world.check(&store.pin());
}

#[tokio::test]
async fn what_a_restart_after_a_failed_sync_found_survives_the_next_crash() {
    let mut world = World::new(14);
    let store = world.open().await;
    let first = world.request();
    world.append(&store, &first).await;
    world.disk.inject(On::Sync, 0, Fault::Io);
    let second = world.request();
    let parts: Vec<usize> = (0..second.parts.len()).collect();
    assert!(store.append(&second.batch(), &parts).await.is_err());
    store.close().await;
    // The process restarts, the machine does not: what the sync lost is in the page cache.
    let store = world.open().await;
    let again = store.append(&second.batch(), &parts).await.unwrap();
    assert!(again.iter().all(|part| *part == Appended::Duplicate), "{again:?}");
    world.hold(&second);
    let third = world.request();
    world.append(&store, &third).await;
    world.disk.crash();
    world.check(&world.open().await.pin());
}

#[tokio::test]
async fn a_full_disk_refuses_and_takes_writes_again_when_there_is_space() {
    let mut world = World::new(7);
    let store = world.open().await;
    let requests: Vec<_> = (0..3).map(|_| world.request()).collect();
    world.append(&store, &requests[0]).await;
    world.disk.set_capacity_bytes(1 << 10);
    let refused = store.append(&requests[1].batch(), &[0]).await.unwrap_err();
    assert!(matches!(&refused, AppendError::ReadOnly { reason } if reason.contains("full")), "{refused}");
    world.disk.set_capacity_bytes(1 << 30);
    // This one is cut in the middle of a group: the file is not used any more.
    world.disk.inject(On::Write, 0, Fault::NoSpace);
    assert!(store.append(&requests[1].batch(), &[0]).await.is_err());
    world.append(&store, &requests[1]).await;
    assert_eq!(store.status().read_only, None);
    world.append(&store, &requests[2]).await;
    world.check(&store.pin());
    world.disk.crash();
    world.check(&world.open().await.pin());
}

#[tokio::test]
async fn a_peer_can_tail_positions_and_read_bodies_across_boots() {
    let mut world = World::new(8);
    let store = world.open().await;
    let shards: BTreeSet<_> = (0..3).map(Shard).collect();
    let mut bodies = 0;
    for _ in 0..5 {
        let request = world.request();
        world.append(&store, &request).await;
        bodies += request.parts.len();
    }
    let first = store.tail(Prefix::default(), &shards, 3).unwrap();
    assert_eq!((first.entries.len(), first.covered.position()), (3, Position { boot: 1, n: 3 }));
    store.advance_cursor(ReplicaId(7), &members(&shards), first.covered).await.unwrap();
    let request = world.request();
    world.append(&store, &request).await;
    bodies += request.parts.len();
    world.disk.crash();
    let store = world.open().await;
    assert_eq!(store.cursor(ReplicaId(7), Shard(1), 1), first.covered, "synced with the group after it");
    assert_eq!(store.cursor(ReplicaId(7), Shard(1), 2), Prefix::default(), "of another membership");
    let request = world.request();
    world.append(&store, &request).await;
    bodies += request.parts.len();
    let rest = store.tail(first.covered, &shards, 1000).unwrap();
    assert_eq!((rest.entries.len() + 3, rest.covered), (bodies, store.published()));

    let peer_world = World::new(9);
    let peer = peer_world.open().await;
    let positions: Vec<_> = first.entries.iter().chain(&rest.entries).map(|entry| entry.position).collect();
    for batch in store.read_parts(&positions).await.unwrap() {
        let all: Vec<_> = (0..batch.parts().len()).collect();
        peer.append_pulled(&batch, &all).await.unwrap();
    }
    world.check(&peer.pin());
    assert!(peer.missing_parts(&rest.entries).await.unwrap().is_empty());
    let beyond = Position { boot: 1, n: store.ends()[&1] + 1 };
    assert!(store.tail(store.published_up_to(beyond), &shards, 9).is_err());
    assert!(store.read_parts(&[beyond]).await.is_err());
}

#[tokio::test]
async fn a_cursor_from_another_life_under_the_same_boot_number_shows_that_data_was_lost() {
    let mut world = World::new(10);
    let store = world.open().await;
    let shards: BTreeSet<_> = (0..3).map(Shard).collect();
    let request = world.request();
    world.append(&store, &request).await;
    let held = store.published();
    drop(store);
    world.disk.crash();
    let other = Prefix { nonce: held.nonce ^ 1, n: 1, ..held };
    for _ in 0..2 {
        let store = world.open().await;
        assert!(store.tail(held, &shards, 9).is_ok() && store.has_published(&held));
        assert!(matches!(store.tail(other, &shards, 9), Err(TailError::BeyondEnd { .. })));
        assert!(!store.has_published(&other));
        let later = Prefix { boot: store.boot().counter + 1, ..held };
        assert!(matches!(store.tail(later, &shards, 9), Err(TailError::BeyondEnd { .. })));
        world.disk.crash();
    }
}

#[tokio::test]
async fn a_part_that_spans_windows_is_read_from_each() {
    let mut world = World::new(10);
    let store = world.open().await;
    for signal in Signal::ALL {
        let request = Request::sample(&world.random, signal, 40, START..START + 3 * Window::NANOS);
        world.append(&store, &request).await;
    }
    world.check(&store.pin());
}

/// Whether the fault struck while a flush started a new file.
async fn rotation_fails_at(seed: u64, at: u64) -> bool {
    let mut world = World::new(seed);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    let before = world.disk.changes();
    world.disk.inject(On::AnyChange, at, Fault::NoSpace);
    let _ = store.flush().await;
    let struck = world.disk.changes() - before > at;
    world.disk.clear_faults();
    for _ in 0..2 {
        let request = world.request();
        let all: Vec<usize> = (0..request.parts.len()).collect();
        match store.append(&request.batch(), &all).await {
            Ok(_) => world.hold(&request),
            Err(error) => assert!(store.status().read_only.is_some(), "{error}"),
        }
    }
    world.disk.crash();
    let store = world.try_open().await.unwrap_or_else(|error| panic!("at {at}: {error}"));
    world.check(&store.pin());
    struck
}

#[tokio::test]
async fn what_is_acknowledged_after_a_failed_rotation_survives_a_crash() {
    for seed in 11..15 {
        let mut at = 0;
        while rotation_fails_at(seed, at).await {
            at += 1;
        }
        assert!(at > 4, "{at}");
    }
}
