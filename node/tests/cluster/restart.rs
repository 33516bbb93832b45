//! Everything goes and comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, INGEST_TIMEOUT_MS, STORAGE_NODES};
use crate::process::until;
use crate::send::{Way, logs, metrics, now, spans};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_everything_finds_the_data() {
    let mut cluster = Cluster::start().await;
    let time = now();
    let front = cluster.front(1);
    front.send(&logs("kept", [(time, "kept".to_owned())]), Way::HttpProtobuf).await.unwrap();
    front.send(&metrics("kept", "kept", false, [(time, 4.0)]), Way::HttpProtobuf).await.unwrap();
    front.send(&spans("kept", 9, [(1, time)]), Way::HttpProtobuf).await.unwrap();
    (0..STORAGE_NODES).for_each(|index| cluster.storage[index].kill());
    cluster.kill_fronts();

    // Fronts start from their saved copies of the metadata; they neither acknowledge nor show anything yet, and say to
    // load balancers that they cannot.
    cluster.start_fronts();
    cluster.fronts_answer().await;
    let later = logs("kept", [(time + 1, "later".to_owned())]);
    let asked = Instant::now();
    let refused = cluster.front(2).send(&later, Way::HttpProtobuf).await.unwrap_err();
    assert!(refused.starts_with("503"), "{refused}");
    // Where nobody takes a connection, the sender is told before the whole time-out has passed.
    assert!(asked.elapsed() < Duration::from_millis(INGEST_TIMEOUT_MS * 3 / 4), "{:?}", asked.elapsed());
    let shown = cluster.front(2).lines("kept", time..time + 2).await.unwrap_err();
    assert!(shown.contains("no storage node could be asked"), "{shown}");

    cluster.front_says(2, "no shard has a majority of replicas that answer").await;

    (0..STORAGE_NODES).for_each(|index| cluster.storage[index].start());
    cluster.all_ready().await;
    for number in [1, 2] {
        let front = cluster.front(number);
        // A front finds out within moments that a node answers again.
        let lines = until("the lines are shown", async || front.lines("kept", time..time + 2).await).await;
        assert_eq!(lines.get("kept"), Some(&1));
        assert_eq!(front.prometheus_value("kept{job=\"kept\"}").await.unwrap(), 4.0);
        assert_eq!(front.tempo_spans(9).await.unwrap(), BTreeMap::from([("span 1".to_owned(), 1)]));
    }
    // The request that was refused is sent again: whatever became of it, it counts once.
    cluster.front(1).send(&later, Way::HttpProtobuf).await.unwrap();
    let lines = cluster.front(2).lines("kept", time..time + 2).await.unwrap();
    assert_eq!(lines, BTreeMap::from([("kept".to_owned(), 1), ("later".to_owned(), 1)]));
}
