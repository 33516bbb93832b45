//! Storage nodes that lose all they have, under load: their shards move to the stores that they come back with.

use oteld_client::admin::Verdict;

use crate::harness::Cluster;
use crate::load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_storage_node_is_healed_under_load_without_an_operator() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&[cluster.front(1), cluster.front(2)]);
    load.acknowledges(60, "before any fault").await;
    let replica = |status: oteld_client::admin::ClusterStatus| status.nodes[4].replica.clone().unwrap();
    let before = replica(cluster.verdict(Verdict::Healthy).await);
    cluster.storage[2].kill();
    cluster.storage[2].wipe();
    cluster.storage[2].start();
    cluster.storage_ready(2).await;
    load.acknowledges(30, "while the shards move").await;
    let status = cluster.verdict(Verdict::Healthy).await;
    assert_eq!((status.shards.moving, status.shards.under_replicated), (0, 0));
    assert_ne!(replica(status), before, "the wiped store came back under its identity");
    // From here on every quorum needs the one that was healed.
    cluster.storage[0].kill();
    load.acknowledges(60, "with the healed node in every quorum").await;
    load.finish(cluster.front(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_go_on_after_the_newcomer_and_the_node_that_drives_them_are_killed() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&[cluster.front(1), cluster.front(2)]);
    load.acknowledges(60, "before any fault").await;
    cluster.storage[1].kill();
    cluster.storage[1].wipe();
    cluster.storage[1].start();
    let status = cluster.status_until("shards move", |status| status.shards.moving > 0).await;
    cluster.storage[1].kill();
    let leader = status.meta.leader.expect("somebody drives the moves");
    let driver = cluster.storage.iter().position(|node| node.name() == leader).unwrap();
    if driver != 1 {
        cluster.storage[driver].kill();
        cluster.storage[driver].start();
        cluster.storage_ready(driver).await;
    }
    load.acknowledges(30, "while the newcomer is away").await;
    cluster.storage[1].start();
    cluster.storage_ready(1).await;
    let status = cluster.verdict(Verdict::Healthy).await;
    assert_eq!((status.shards.moving, status.shards.under_replicated), (0, 0));
    cluster.storage[2].kill();
    load.acknowledges(30, "with the healed node in every quorum").await;
    load.finish(cluster.front(1)).await;
}
