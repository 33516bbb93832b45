//! Snapshots between stores: what is installed, what it does to the log, and what a crash leaves.

use std::collections::BTreeSet;

use oteld_env::disk::{Fault, On};
use oteld_store::model::{Shard, Signal, Window};
use oteld_store::{OpenError, Position, Prefix, SegmentOffer, Snapshot, Store, StoreError, TailError};

use crate::world::{Request, SHARDS, START, World, members, raise_floor};

pub(crate) fn all() -> BTreeSet<Shard> {
    (0..SHARDS).map(Shard).collect()
}

/// What one catch-up did.
#[derive(Debug, PartialEq)]
pub(crate) struct CaughtUp {
    /// Segments whose bytes came over.
    copied: usize,
    installed: Option<Position>,
    covered: Prefix,
}

impl CaughtUp {
    pub(crate) fn installed(&self) -> Option<Position> {
        self.installed
    }
}

/// One catch-up of `to` from `from`, as a node does it over the network.
pub(crate) async fn catch_up(
    from: &Store,
    to: &Store,
    shards: &BTreeSet<Shard>,
) -> Result<CaughtUp, StoreError> {
    catch_up_by(&from.snapshot().await?, from, to, shards).await
}

/// The same, by a snapshot that was taken before.
pub(crate) async fn catch_up_by(
    snapshot: &Snapshot,
    from: &Store,
    to: &Store,
    shards: &BTreeSet<Shard>,
) -> Result<CaughtUp, StoreError> {
    let compared = to.left_before(shards);
    let mut wanted = Vec::new();
    for offer in snapshot.offers().into_iter().filter(|offer| to.may_want(offer, shards)) {
        let held = to.held_ids(offer.info.signal, offer.info.window).await?;
        if snapshot.ids(offer.id, shards)?.iter().any(|id| held.lacks(id)) {
            wanted.push(offer);
        }
    }
    let copied = copy(snapshot, &wanted, to).await?;
    let installed = to.install_received(wanted, shards, &compared).await?;
    to.advance_cursor(from.replica(), &members(shards), snapshot.covered()).await?;
    Ok(CaughtUp { copied, installed, covered: snapshot.covered() })
}

/// Brings the files of offered segments over; how many it took.
pub(crate) async fn copy(
    snapshot: &Snapshot,
    wanted: &[SegmentOffer],
    to: &Store,
) -> Result<usize, StoreError> {
    to.keep_received(&wanted.iter().map(|offer| offer.info.clone()).collect::<Vec<_>>()).await?;
    let mut copied = 0;
    for offer in wanted {
        let Some(mut incoming) = to.receive(offer.info.clone()).await? else { continue };
        let mut at = 0;
        while at < offer.info.bytes {
            let chunk = snapshot.read(offer.id, at, 1000)?;
            incoming.write(&chunk)?;
            at += chunk.len() as u64;
        }
        incoming.finish()?;
        copied += 1;
    }
    Ok(copied)
}

/// Pulls what `from` has in its log; false where that does not reach back.
pub(crate) async fn pull(from: &Store, to: &Store, shards: &BTreeSet<Shard>) -> bool {
    let cursors = shards.iter().map(|shard| to.cursor(from.replica(), *shard, 1));
    let after = cursors.min_by_key(Prefix::position).unwrap();
    let page = match from.tail(after, shards, 100_000) {
        Ok(page) => page,
        Err(TailError::BelowStart { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    let lacking = to.missing_parts(&page.entries).await.unwrap();
    let positions: Vec<_> = lacking.iter().map(|entry| entry.position).collect();
    for batch in from.read_parts(&positions).await.unwrap() {
        let wanted: Vec<_> =
            (0..batch.parts().len()).filter(|part| shards.contains(&batch.parts()[*part].shard)).collect();
        to.append(&batch, &wanted).await.unwrap();
    }
    to.advance_cursor(from.replica(), &members(shards), page.covered).await.unwrap();
    true
}

pub(crate) fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.options.wal_keep_bytes = 0;
    world
}

/// A store with rows in segments of several windows and merges, and nothing in its log but `logged` requests.
pub(crate) async fn filled(world: &mut World, requests: usize, logged: usize) -> Store {
    let store = world.open().await;
    for index in 0..requests {
        let request = match index % 5 {
            // A part with rows in several windows.
            0 => Request::sample(&world.random, Signal::Logs, 12, START..START + 3 * Window::NANOS),
            _ => world.request(),
        };
        world.append(&store, &request).await;
        if index % 4 == 3 {
            store.flush().await.unwrap();
            store.compact().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    for _ in 0..logged {
        let request = world.request();
        world.append(&store, &request).await;
    }
    store
}

#[tokio::test]
async fn a_store_that_lacks_everything_shows_what_its_peer_shows() {
    let mut peer_world = world(1);
    let peer = filled(&mut peer_world, 30, 0).await;
    let store_world = world(2);
    let store = store_world.open().await;
    assert!(!pull(&peer, &store, &all()).await, "the log does not reach back");
    let done = catch_up(&peer, &store, &all()).await.unwrap();
    assert!(done.copied > 3 && done.installed.is_some(), "{done:?}");
    peer_world.check(&store.pin());
    assert!(pull(&peer, &store, &all()).await);
    assert_eq!(store.position(), done.installed.unwrap(), "nothing was left to pull");
    // A process that lost its power does nothing any more.
    drop(store);
    store_world.disk.crash();
    let again = store_world.open().await;
    peer_world.check(&again.pin());
    again.compact().await.unwrap();
    peer_world.check(&again.pin());
}

#[tokio::test]
async fn installed_parts_are_duplicates_before_and_after_a_restart() {
    let mut peer_world = world(3);
    let peer = peer_world.open().await;
    let request = Request::sample(&peer_world.random, Signal::Logs, 30, START..START + 3 * Window::NANOS);
    peer_world.append(&peer, &request).await;
    peer.flush().await.unwrap();
    let store_world = world(4);
    let store = store_world.open().await;
    // The windows' ids are in memory before the install.
    let window = Window::of(START);
    assert!(!store.has_part(Signal::Logs, window, request.id, request.digest(), Shard(0)).await.unwrap());
    catch_up(&peer, &store, &all()).await.unwrap();
    let parts: Vec<usize> = (0..request.parts.len()).collect();
    let duplicates = vec![oteld_store::Appended::Duplicate; parts.len()];
    assert_eq!(store.append(&request.batch(), &parts).await.unwrap(), duplicates);
    store_world.disk.crash();
    let store = store_world.open().await;
    assert_eq!(store.append(&request.batch(), &parts).await.unwrap(), duplicates);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn only_segments_with_lacking_ids_are_copied_and_a_repeat_copies_none() {
    let mut peer_world = world(5);
    let peer = filled(&mut peer_world, 12, 0).await;
    let store_world = world(6);
    let store = store_world.open().await;
    catch_up(&peer, &store, &all()).await.unwrap();
    let position = store.position();
    let again = catch_up(&peer, &store, &all()).await.unwrap();
    assert_eq!((again.copied, again.installed), (0, None));
    // Merged, no file is the same any more; the ids still are.
    store.compact().await.unwrap();
    peer.compact().await.unwrap();
    let again = catch_up(&peer, &store, &all()).await.unwrap();
    assert_eq!((again.copied, again.installed), (0, None));
    assert_eq!(store.position(), position, "nothing installed, no position taken");
    let late = Request::sample(&peer_world.random, Signal::Traces, 3, START..START + 1000);
    peer_world.append(&peer, &late).await;
    peer.flush().await.unwrap();
    let again = catch_up(&peer, &store, &all()).await.unwrap();
    assert_eq!(again.copied, 1);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn what_the_log_still_has_is_pulled_and_not_installed() {
    let mut peer_world = world(7);
    let peer = filled(&mut peer_world, 8, 0).await;
    let store_world = world(8);
    let store = store_world.open().await;
    catch_up(&peer, &store, &all()).await.unwrap();
    // In a segment by the snapshot's own flush, and in the log too.
    peer_world.options.wal_keep_bytes = 1 << 20;
    peer_world.disk.crash();
    let peer = peer_world.open().await;
    let request = peer_world.request();
    peer_world.append(&peer, &request).await;
    let done = catch_up(&peer, &store, &all()).await.unwrap();
    assert_eq!((done.copied, done.installed), (0, None));
    assert!(pull(&peer, &store, &all()).await);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn a_part_of_two_windows_is_whole_though_the_log_has_it_and_one_of_its_segments_is_copied() {
    let mut peer_world = world(21);
    let peer = peer_world.open().await;
    for _ in 0..12 {
        let below_log = Request::sample(&peer_world.random, Signal::Logs, 5, START..START + 1000);
        peer_world.append(&peer, &below_log).await;
        peer.flush().await.unwrap();
    }
    peer_world.options.wal_keep_bytes = 1 << 20;
    peer_world.disk.crash();
    let peer = peer_world.open().await;
    let both = Request::sample(&peer_world.random, Signal::Logs, 40, START..START + 2 * Window::NANOS);
    peer_world.append(&peer, &both).await;
    peer.flush().await.unwrap();
    // The first window is one segment then, which is copied for what the log does not have.
    peer.compact().await.unwrap();
    let windows: Vec<Window> =
        peer.snapshot().await.unwrap().offers().iter().map(|o| o.info.window).collect();
    assert_eq!(windows.len(), 2, "{windows:?}");
    let store_world = world(22);
    let store = store_world.open().await;
    let done = catch_up(&peer, &store, &all()).await.unwrap();
    assert!(done.copied > 0, "{done:?}");
    assert!(pull(&peer, &store, &all()).await);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn a_peer_that_has_the_same_file_twice_is_copied_from() {
    let (mut peer_world, mut other_world) = (world(23), world(24));
    let (peer, other) = (peer_world.open().await, other_world.open().await);
    let request = Request::sample(&peer_world.random, Signal::Traces, 3, START..START + 1000);
    for (store, world) in [(&peer, &mut peer_world), (&other, &mut other_world)] {
        world.append(store, &request).await;
        store.flush().await.unwrap();
    }
    // It found the part lacking, and had it when the copy came.
    let snapshot = other.snapshot().await.unwrap();
    copy(&snapshot, &snapshot.offers(), &peer).await.unwrap();
    peer.install_received(snapshot.offers(), &all(), &peer.left_before(&all())).await.unwrap();
    let offers = peer.snapshot().await.unwrap().offers();
    assert!(offers.len() == 2 && offers[0].info == offers[1].info, "{offers:?}");
    let store_world = world(25);
    let store = store_world.open().await;
    assert_eq!(catch_up(&peer, &store, &all()).await.unwrap().copied, 1);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn peers_of_a_store_that_installed_compare_ids_with_it_also_when_they_were_level() {
    let mut peer_world = world(9);
    let peer = filled(&mut peer_world, 9, 0).await;
    let mut store_world = world(10);
    store_world.options.wal_keep_bytes = 1 << 20;
    let store = store_world.open().await;
    let third_world = world(11);
    let third = third_world.open().await;
    let request = store_world.request();
    store_world.append(&store, &request).await;
    peer_world.hold(&request);
    assert!(pull(&store, &third, &all()).await);
    assert!(pull(&store, &third, &all()).await, "level");
    let before = store.position();
    let installed = catch_up(&peer, &store, &all()).await.unwrap().installed.unwrap();
    assert!(before < installed && store.position() == installed);
    assert!(!pull(&store, &third, &all()).await, "the log starts after what was installed");
    // The start is durable.
    store_world.disk.crash();
    let store = store_world.open().await;
    assert!(!pull(&store, &third, &all()).await);
    assert!(
        matches!(store.tail(store.published_up_to(before), &all(), 9), Err(TailError::BelowStart { start }) if start == installed)
    );
    store.tail(store.published_up_to(installed), &all(), 9).unwrap();
    catch_up(&store, &third, &all()).await.unwrap();
    peer_world.check(&third.pin());
    let request = store_world.request();
    store_world.append(&store, &request).await;
    peer_world.hold(&request);
    assert!(pull(&store, &third, &all()).await, "and from there on it tails again");
    peer_world.check(&third.pin());
    store_world.disk.crash();
    let store = store_world.open().await;
    assert!(pull(&store, &third, &all()).await);
    assert_eq!(store.ends()[&2], 1, "positions of the boot go on after a restart");
}

#[tokio::test]
async fn positions_go_on_after_an_install_in_the_same_boot() {
    let mut peer_world = world(12);
    let peer = filled(&mut peer_world, 5, 0).await;
    let mut store_world = world(13);
    store_world.options.wal_keep_bytes = 1 << 20;
    let store = store_world.open().await;
    let request = store_world.request();
    store_world.append(&store, &request).await;
    peer_world.hold(&request);
    let installed = catch_up(&peer, &store, &all()).await.unwrap().installed.unwrap();
    assert_eq!(installed.n, request.parts.len() as u64 + 1);
    let request = store_world.request();
    store_world.append(&store, &request).await;
    peer_world.hold(&request);
    let page = store.tail(store.published_up_to(installed), &all(), 100).unwrap();
    assert_eq!(page.entries.len(), request.parts.len());
    assert_eq!(page.entries[0].position.n, installed.n + 1);
    store_world.disk.crash();
    let store = store_world.open().await;
    assert_eq!(store.ends()[&1], installed.n + request.parts.len() as u64);
    assert_eq!(store.tail(store.published_up_to(installed), &all(), 100).unwrap().entries, page.entries);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn stores_that_install_from_each_other_come_to_rest_with_the_union() {
    let mut worlds: Vec<World> = (20..23).map(world).collect();
    let mut stores = Vec::new();
    for world in &mut worlds {
        stores.push(filled(world, 7, 1).await);
    }
    let mut union = World::new(0);
    for world in &worlds {
        union.held.extend(world.held.iter().cloned());
    }
    let mut rounds = 0;
    loop {
        let mut is_level = true;
        for to in 0..3 {
            for from in (0..3).filter(|from| *from != to) {
                if !pull(&stores[from], &stores[to], &all()).await {
                    is_level = false;
                    catch_up(&stores[from], &stores[to], &all()).await.unwrap();
                }
            }
            stores[to].compact().await.unwrap();
        }
        if is_level {
            break;
        }
        rounds += 1;
        assert!(rounds < 6, "they go on installing");
    }
    for store in &stores {
        union.check(&store.pin());
    }
}

#[tokio::test]
async fn rows_and_ids_of_other_shards_stay_out() {
    let mut peer_world = world(14);
    let peer = filled(&mut peer_world, 20, 0).await;
    let store_world = world(15);
    let store = store_world.open().await;
    let shared = BTreeSet::from([Shard(1)]);
    catch_up(&peer, &store, &shared).await.unwrap();
    let mut expected = World::new(0);
    expected.held = peer_world.held.iter().filter(|(_, _, shard, _)| *shard == Shard(1)).cloned().collect();
    expected.check(&store.pin());
    // The rest comes with the other shards, parts in several windows included.
    catch_up(&peer, &store, &all()).await.unwrap();
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn rows_below_the_floor_of_the_receiver_are_not_copied_and_stay_invisible() {
    let mut peer_world = world(16);
    let peer = filled(&mut peer_world, 20, 0).await;
    let store_world = world(17);
    let store = store_world.open().await;
    let floor = START + Window::NANOS / 2;
    for tenant in ["default", "other"] {
        for signal in Signal::ALL {
            raise_floor(&store, &oteld_store::model::Tenant::new(tenant), signal, floor).await;
        }
    }
    catch_up(&peer, &store, &all()).await.unwrap();
    let above = |rows: &oteld_store::model::Rows| {
        let mut kept = oteld_store::model::Rows::new(rows.signal());
        use oteld_store::model::Rows;
        match (rows, &mut kept) {
            (Rows::Metrics(rows), Rows::Metrics(kept)) => {
                kept.extend(rows.iter().filter(|row| row.point.time_unix_nano >= floor).cloned());
            }
            (Rows::Logs(rows), Rows::Logs(kept)) => {
                kept.extend(
                    rows.iter().filter(|row| row.record.effective_time_unix_nano() >= floor).cloned(),
                );
            }
            (Rows::Traces(all), Rows::Traces(kept)) => kept.extend(
                all.iter()
                    .enumerate()
                    .filter(|(index, _)| rows.event_time_unix_nano(*index) >= floor)
                    .map(|(_, row)| row.clone()),
            ),
            _ => unreachable!(),
        }
        kept
    };
    let mut expected = World::new(0);
    expected.held = peer_world
        .held
        .iter()
        .map(|(signal, tenant, shard, rows)| (*signal, tenant.clone(), *shard, above(rows)))
        .collect();
    expected.check(&store.pin());
    for tenant in ["default", "other"] {
        for signal in Signal::ALL {
            let end = START + 100 * Window::NANOS;
            raise_floor(&store, &oteld_store::model::Tenant::new(tenant), signal, end).await;
        }
    }
    store.compact().await.unwrap();
    assert_eq!(catch_up(&peer, &store, &all()).await.unwrap().copied, 0);
}

#[tokio::test]
async fn a_copy_that_is_not_the_offered_file_is_refused() {
    let mut peer_world = world(18);
    let peer = filled(&mut peer_world, 4, 0).await;
    let store_world = world(19);
    let store = store_world.open().await;
    let snapshot = peer.snapshot().await.unwrap();
    let offer = snapshot.offers().remove(0);
    let bytes = snapshot.read(offer.id, 0, u64::MAX).unwrap();
    for damage in [bytes.len() / 2, 20, bytes.len() - 3] {
        let mut incoming = store.receive(offer.info.clone()).await.unwrap().unwrap();
        let mut damaged = bytes.clone();
        damaged[damage] ^= 1;
        incoming.write(&damaged).unwrap();
        assert!(matches!(incoming.finish(), Err(StoreError::Damaged { .. })));
    }
    let mut incoming = store.receive(offer.info.clone()).await.unwrap().unwrap();
    assert!(incoming.write(&[&bytes[..], b"more"].concat()).is_err());
    let compared = store.left_before(&all());
    assert!(store.install_received(vec![offer], &all(), &compared).await.is_err(), "it never came whole");
    World::new(0).check(&store.pin());
}

/// A catch-up that fails at the `at`-th change of the disk, and another after a restart. Gives whether the fault
/// struck.
async fn fails_at(at: u64, fault: Fault) -> bool {
    let mut peer_world = world(30);
    let peer = filled(&mut peer_world, 4, 0).await;
    let mut store_world = world(31);
    let store = store_world.open().await;
    let request = store_world.request();
    store_world.append(&store, &request).await;
    let before = store.position();
    let changes = store_world.disk.changes();
    store_world.disk.inject(On::AnyChange, at, fault);
    // Shard 0 only: some files are written anew, others are taken as they are.
    let first = BTreeSet::from([Shard(0), Shard(1)]);
    let outcome = catch_up(&peer, &store, &first).await;
    let struck = store_world.disk.changes() > changes + at;
    store_world.disk.crash();
    let store = store_world.try_open().await.unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
    let mut expected = World::new(0);
    expected.held = store_world.held.clone();
    if store.tail(store.published_up_to(before), &first, 9).is_err() {
        let installed = peer_world.held.iter().filter(|(_, _, shard, _)| first.contains(shard));
        expected.held.extend(installed.cloned());
    } else {
        assert!(outcome.is_err(), "{fault:?} at {at}: an install was forgotten");
    }
    expected.check(&store.pin());
    let done = catch_up(&peer, &store, &all()).await.unwrap();
    let mut expected = World::new(0);
    expected.held = store_world.held.iter().chain(&peer_world.held).cloned().collect();
    expected.check(&store.pin());
    assert!(done.installed.is_some(), "shard 2 was not there");
    let request = store_world.request();
    store_world.append(&store, &request).await;
    store.flush().await.unwrap();
    struck
}

#[tokio::test]
async fn a_failure_at_any_operation_of_an_install_leaves_all_of_it_or_nothing() {
    for fault in [Fault::PowerLoss, Fault::Io, Fault::NoSpace] {
        let mut at = 0;
        while fails_at(at, fault).await {
            at += 1;
        }
        assert!(at > 20, "{fault:?}: {at}");
    }
}

#[tokio::test]
async fn segments_that_came_before_a_crash_are_not_copied_again() {
    let mut peer_world = world(40);
    let peer = filled(&mut peer_world, 9, 0).await;
    let store_world = world(41);
    let store = store_world.open().await;
    let snapshot = peer.snapshot().await.unwrap();
    let offers = snapshot.offers();
    let mut incoming = store.receive(offers[0].info.clone()).await.unwrap().unwrap();
    incoming.write(&snapshot.read(offers[0].id, 0, u64::MAX).unwrap()).unwrap();
    incoming.finish().unwrap();
    let mut half = store.receive(offers[1].info.clone()).await.unwrap().unwrap();
    half.write(&snapshot.read(offers[1].id, 0, 100).unwrap()).unwrap();
    store_world.disk.crash();
    let store = store_world.open().await;
    World::new(0).check(&store.pin());
    let done = catch_up(&peer, &store, &all()).await.unwrap();
    assert_eq!(done.copied, offers.len() - 1);
    peer_world.check(&store.pin());
}

#[tokio::test]
async fn a_lost_replica_serves_nobody_and_says_what_to_do_also_after_a_restart() {
    let mut world = world(50);
    let store = world.open().await;
    let request = world.request();
    world.append(&store, &request).await;
    assert_eq!(store.lost(), None);
    store.lose("a peer saw position 1:9, and the log ends at 1:3").await.unwrap();
    store.lose("something later").await.unwrap();
    let says = store.until_lost().await;
    assert!(says.contains("1:9") && says.contains("sets its directory aside"), "{says}");
    assert!(store.append(&request.batch(), &[0]).await.is_err());
    assert!(matches!(store.tail(Prefix::default(), &all(), 9), Err(TailError::Lost { .. })));
    assert_eq!(store.status().read_only, Some(says.clone()));
    let replica = store.replica();
    store.close().await;
    let refused = world.try_open().await.unwrap_err();
    let OpenError::Loss { what } = &refused else { panic!("{refused}") };
    assert_eq!(refused.to_string(), says);
    let store = Store::open_lost(world.env(), world.options.clone(), what).await.unwrap();
    assert_eq!((store.replica(), store.lost()), (replica, Some(says)));
    assert!(store.append(&request.batch(), &[0]).await.is_err());
    assert!(store.flush().await.is_ok(), "nothing to flush");
    store.close().await;
}
