//! Replicas that were away, or lost what they had: whole nodes in one process, over loopback.

#![allow(clippy::disallowed_methods, reason = "tests use real sockets, and copy directories")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod world;

use world::{Cluster, wait_until};

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
async fn a_node_that_lost_synced_data_says_so_and_serves_nobody_while_the_others_go_on() {
    let mut cluster = Cluster::start().await;
    cluster.write(5).await;
    let store = cluster.stop_storage(2).await;
    let older = store.with_file_name("older");
    world::copy_dir(&store, &older);
    // Two boots that the older state knows nothing of.
    cluster.start_storage(2).await;
    cluster.stop_storage(2).await;
    cluster.start_storage(2).await;
    cluster.write(5).await;
    // A quorum without the first node: the second one holds the third one's log up to here.
    cluster.stop_storage(0).await;
    wait_until("two are level", async || cluster.counted().await == Some(cluster.written)).await;
    cluster.start_storage(0).await;
    cluster.stop_storage(2).await;
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&older, &store).unwrap();
    cluster.start_storage_unready(2).await;
    let says =
        |text: &str| text.contains("data that was synced is missing") && text.contains("Move the store's");
    wait_until("it says that it lost data", async || says(&cluster.readiness(2).await)).await;
    cluster.write(5).await;
    wait_until("the others answer", async || cluster.counted().await == Some(cluster.written)).await;
    // After a restart too.
    cluster.stop_storage(2).await;
    cluster.start_storage_unready(2).await;
    wait_until("it still says so", async || says(&cluster.readiness(2).await)).await;
    cluster.write(5).await;
    wait_until("the others answer", async || cluster.counted().await == Some(cluster.written)).await;
    cluster.stop().await;
}
