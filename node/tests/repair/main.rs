//! Replicas that were away, or lost what they had: whole nodes in one process, over loopback.

#![allow(clippy::disallowed_methods, reason = "tests use real sockets, and copy directories")]
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../ports/mod.rs"]
mod ports;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oteld::read::complete::COMPLETE_WAIT_MAX;
use oteld_client::admin::Verdict;
use oteld_cluster::command::{Applied, Command};
use oteld_cluster::ids::{Epoch, MoveId, ShardId};
use tokio::time::Instant;
use world::{Cluster, wait_until, wait_until_at_once};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_longer_than_the_logs_of_its_peers_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start().await;
    cluster.write(5).await;
    let store = cluster.stop_storage(2).await;
    // Until the rows that it misses are in no log any more.
    while cluster.reading(0, "oteld.store.flushes") < 2 || cluster.reading(1, "oteld.store.flushes") < 2 {
        cluster.write(20).await;
        assert!(cluster.written < 20_000, "nothing is flushed");
    }
    cluster.start_storage(2).await;
    cluster.write(5).await;
    // With one of the others away, every shard's quorum needs the one that came back.
    cluster.stop_storage(0).await;
    wait_until("the counts are exact", async || cluster.counted().await == Some(cluster.written)).await;
    assert!(cluster.reading(2, "oteld.store.segments_installed") > 0, "it was filled by a snapshot");
    let others = cluster.stop_storage(1).await;
    cluster.stop_storage(2).await;
    cluster.stop_front().await;
    for dir in [store, others] {
        assert_eq!(world::stored_rows(&dir).await, cluster.written, "{}", dir.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_is_found_out_and_replaced() {
    let mut cluster = Cluster::start().await;
    cluster.write(5).await;
    let store = cluster.stop_storage(2).await;
    let older = store.with_file_name("older");
    world::copy_dir(&store, &older);
    cluster.start_storage(2).await;
    cluster.write(5).await;
    // A quorum without the first node: the second one holds the third one's log up to here.
    cluster.stop_storage(0).await;
    wait_until("two are level", async || cluster.counted().await == Some(cluster.written)).await;
    cluster.start_storage(0).await;
    cluster.stop_storage(2).await;
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&older, &store).unwrap();
    // It takes the number of the boot that it knows nothing of.
    cluster.start_storage_unready(2).await;
    let says = |text: &str| text.contains("data that was synced is missing");
    wait_until("it says that it lost data", async || says(&cluster.readiness(2).await)).await;
    cluster.write(5).await;
    wait_until("the others answer", async || cluster.counted().await == Some(cluster.written)).await;
    // The process starts again by itself; here the test does it.
    cluster.stop_storage(2).await;
    cluster.start_storage(2).await;
    let why = std::fs::read_to_string(store.join("LOST")).unwrap();
    assert!(why.contains("holds this log"), "{why}");
    heals(cluster, store.with_file_name("store-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_damaged_log_is_replaced() {
    let mut cluster = Cluster::start().await;
    cluster.write(20).await;
    let store = cluster.stop_storage(2).await;
    let mut logs: Vec<_> =
        std::fs::read_dir(store.join("wal")).unwrap().map(|file| file.unwrap().path()).collect();
    logs.sort();
    let newest = logs.pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[200..300].fill(0xff);
    std::fs::write(&newest, bytes).unwrap();
    cluster.start_storage(2).await;
    cluster.write(5).await;
    heals(cluster, store.with_file_name("store-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_store_is_filled_by_snapshots() {
    let mut cluster = Cluster::start().await;
    while cluster.reading(0, "oteld.store.flushes") < 2 || cluster.reading(1, "oteld.store.flushes") < 2 {
        cluster.write(20).await;
    }
    let store = cluster.stop_storage(2).await;
    std::fs::remove_dir_all(&store).unwrap();
    cluster.start_storage(2).await;
    cluster.write(5).await;
    heals(cluster, store).await;
}

/// The third node's shards come to the store that it has now, which lacks nothing in the end.
async fn heals(mut cluster: Cluster, store: PathBuf) {
    wait_until("the cluster is healthy", async || cluster.is_healthy().await).await;
    cluster.write(5).await;
    // With one of the others away, every shard's quorum needs the new one.
    cluster.stop_storage(0).await;
    cluster.write(5).await;
    wait_until("the counts are exact", async || cluster.counted().await == Some(cluster.written)).await;
    cluster.stop_storage(2).await;
    assert_eq!(world::stored_rows(&store).await, cluster.written);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_move_leaves_nothing_and_a_finished_one_moves_the_rows() {
    let mut cluster = Cluster::with_replicas(2).await;
    cluster.write(40).await;
    let stores = cluster.stores().await;
    let shard = cluster.shards().await.remove(0);
    let old: Vec<String> = shard.replicas.iter().map(|replica| replica.node.clone()).collect();
    let newcomer = stores.keys().find(|name| !old.contains(name)).unwrap().clone();
    let new = vec![stores[&old[0]], stores[&newcomer]];
    let index = |name: &str| name.rsplit('-').next().unwrap().parse::<usize>().unwrap() - 1;
    let start =
        |epoch, id| Command::StartMove { shard: ShardId(0), expect: Epoch(epoch), id, new: new.clone() };
    let epoch = shard.epoch;
    // The third round is not cancelled.
    for round in 0..3 {
        let (id, at) = (MoveId(u128::from(round) + 1), epoch + 2 * round);
        assert_eq!(cluster.propose(start(at, id)).await, Ok(Applied::Epoch(Epoch(at + 1))));
        if round < 2 {
            let cancel = Command::CancelMove { shard: ShardId(0), expect: Epoch(at + 1), id };
            let cancelled = cluster.propose(cancel).await;
            assert_eq!(cancelled, Ok(Applied::Epoch(Epoch(at + 2))), "it had no time to finish");
        }
        cluster.write(5).await;
        wait_until("the move is over", async || cluster.shards().await[0].epoch == at + 2).await;
        wait_until("the counts are exact", async || cluster.counted().await == Some(cluster.written)).await;
    }
    let holders: Vec<String> =
        cluster.shards().await[0].replicas.iter().map(|replica| replica.node.clone()).collect();
    assert_eq!(holders, [old[0].clone(), newcomer.clone()]);
    let leaver = old[1].clone();
    wait_until("the leaver deleted its rows", async || {
        cluster.reading(index(&leaver), "oteld.store.shards_left") > 0
    })
    .await;
    cluster.write(5).await;
    wait_until("the counts are exact", async || cluster.counted().await == Some(cluster.written)).await;
    let mut rows = BTreeMap::new();
    for name in stores.keys() {
        let dir = cluster.stop_storage(index(name)).await;
        rows.insert(name.clone(), world::stored_rows_of(&dir, 0..1).await);
    }
    cluster.stop_front().await;
    assert!(rows[&newcomer] > 0, "the shard has rows");
    assert_eq!((rows[&leaver], rows[&newcomer]), (0, rows[&old[0]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_page_costs_no_answer_and_takes_its_replica_out() {
    let mut cluster = Cluster::start().await;
    while (0..3).any(|index| cluster.reading(index, "oteld.store.flushes") < 1) {
        cluster.write(20).await;
        assert!(cluster.written < 20_000, "nothing is flushed");
    }
    let index = cluster.first_asked().await;
    let store = cluster.stop_storage(index).await;
    world::damage_a_page(&store);
    cluster.start_storage(index).await;
    // Found by whichever query, or merge, comes to the page first; no query fails for it.
    wait_until("the damage is found", async || {
        assert_eq!(cluster.counted().await, Some(cluster.written));
        cluster.reading(index, "oteld.store.lost") == 1
    })
    .await;
    assert!(cluster.readiness(index).await.contains("is damaged"));
    cluster.write(5).await;
    assert_eq!(cluster.counted().await, Some(cluster.written));
    let status = cluster.status().await;
    assert_eq!(status.verdict, Verdict::Degraded, "{:?}", status.reasons);
    let said = status.reasons.iter().filter(|reason| reason.contains("data that was synced is missing"));
    assert_eq!(said.count(), 1, "{:?}", status.reasons);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_no_query_wait_and_no_answer_partial() {
    let mut cluster = Cluster::start().await;
    cluster.write(5).await;
    // Each in turn, so that it is the one that is asked first, and the one that is asked for its position.
    for index in 0..3 {
        cluster.stop_storage(index).await;
        cluster.min_free_bytes[index] = 1 << 60;
        cluster.start_storage(index).await;
        for _ in 0..5 {
            cluster.write(1).await;
            let asked = Instant::now();
            assert_eq!(cluster.counted().await, Some(cluster.written));
            // It waits for no replica that cannot pull.
            assert!(asked.elapsed() < COMPLETE_WAIT_MAX, "{:?}", asked.elapsed());
        }
        cluster.stop_storage(index).await;
        cluster.min_free_bytes[index] = 0;
        cluster.start_storage(index).await;
        wait_until("it is level again", async || cluster.status().await.verdict == Verdict::Healthy).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_not_healthy_while_a_node_that_came_back_lacks_rows() {
    let mut cluster = Cluster::start().await;
    cluster.write(5).await;
    for _ in 0..3 {
        cluster.stop_storage(2).await;
        cluster.write(100).await;
        cluster.start_storage_unready(2).await;
        // Asked where it is seen first.
        let is_healthy = async || cluster.status_at(2).await.verdict == Verdict::Healthy;
        wait_until_at_once("the cluster is healthy", is_healthy).await;
        let rows = cluster.reading(2, "oteld.store.rows");
        assert!(rows >= cluster.written, "healthy with {rows} of {} rows", cluster.written);
    }
    cluster.stop().await;
}
