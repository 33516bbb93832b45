//! SIGKILL of storage nodes, under load and without.

use std::collections::BTreeMap;

use oteld_client::admin::Verdict;

use crate::harness::{Cluster, STORAGE_NODES};
use crate::load::Load;
use crate::send::{Way, logs, metrics, now, spans};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_any_storage_node_in_the_middle_of_a_load_loses_nothing() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&[cluster.front(1), cluster.front(2)]);
    load.acknowledges(30, "before any fault").await;
    for index in 0..STORAGE_NODES {
        cluster.storage[index].kill();
        load.acknowledges(60, "while a storage node is down").await;
        cluster.storage[index].start();
        cluster.storage_ready(index).await;
        load.acknowledges(15, "after it came back").await;
    }
    load.finish(cluster.front(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_down_catches_up() {
    let mut cluster = Cluster::start().await;
    let time = now();
    let before = logs("catch-up", [(time, "before".to_owned())]);
    cluster.front(1).send(&before, Way::HttpProtobuf).await.unwrap();
    cluster.storage[2].kill();
    let times = |n: u64| time + n * 1_000_000;
    let away: Vec<_> = (1..=100).map(|n| (times(n), format!("away {n}"))).collect();
    for (n, record) in away.iter().enumerate() {
        let n = n as u64 + 1;
        let front = cluster.front(1 + n as usize % 2);
        front.send(&logs("catch-up", [record.clone()]), Way::HttpProtobuf).await.unwrap();
        if n.is_multiple_of(10) {
            front
                .send(&metrics("catch-up", "away", false, [(times(n), n as f64)]), Way::HttpProtobuf)
                .await
                .unwrap();
            front.send(&spans("catch-up", 5, [(n, times(n))]), Way::HttpProtobuf).await.unwrap();
        }
    }
    cluster.storage[2].start();
    cluster.storage_ready(2).await;
    // Healthy is what no node that is catching up is.
    cluster.verdict(Verdict::Healthy).await;
    // Half of the replicas that acknowledged are gone with this one: what the other lacks only the third can give.
    cluster.storage[0].kill();
    let mut expected: BTreeMap<String, usize> = (1..=100).map(|n| (format!("away {n}"), 1)).collect();
    expected.insert("before".to_owned(), 1);
    for number in [1, 2] {
        let front = cluster.front(number);
        assert_eq!(front.lines("catch-up", time..times(200)).await.unwrap(), expected);
        let samples = front.samples("away{job=\"catch-up\"}[5m]").await.unwrap();
        assert_eq!(
            samples.iter().map(|sample| sample.1).collect::<Vec<_>>(),
            (1..=10).map(|n| n as f64 * 10.0).collect::<Vec<_>>()
        );
        assert_eq!(front.jaeger_spans(5).await.unwrap().len(), 10);
    }
    cluster.front(2).send(&logs("after", [(time, "after".to_owned())]), Way::Grpc).await.unwrap();
    assert_eq!(cluster.front(1).lines("after", time..time + 1).await.unwrap().len(), 1);
}
