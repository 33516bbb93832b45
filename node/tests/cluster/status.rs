//! What the admin API and otelctl say of a cluster that loses nodes.

use std::process::{Command, Output};

use oteld_client::admin::{MetaRole, Verdict};

use crate::harness::Cluster;
use crate::process::otelctl;

fn cluster_status(endpoint: &str) -> Option<Output> {
    let mut command = Command::new(otelctl()?);
    Some(command.args(["--endpoint", endpoint, "cluster", "status"]).output().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_goes_from_healthy_to_degraded_to_unavailable_and_back() {
    let mut cluster = Cluster::start().await;
    let endpoint = cluster.front(1).query.clone();
    // otelctl's exit status is the verdict's; without the binary the admin API has to do.
    let expect = |word: &str, code: i32| {
        let Some(output) = cluster_status(&endpoint) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with(word), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{text}");
    };
    let status = cluster.verdict(Verdict::Healthy).await;
    assert_eq!((status.shards.total, status.shards.under_replicated), (64, 0));
    assert_eq!((status.nodes.len(), status.meta.members.len()), (5, 3));
    expect("HEALTHY", 0);

    cluster.storage[0].kill();
    let status = cluster.verdict(Verdict::Degraded).await;
    assert_eq!(status.shards.under_replicated, 64, "every shard has a replica on each of three nodes");
    assert!(status.reasons.iter().any(|reason| reason.contains("storage-1")), "{:?}", status.reasons);
    let gone = status.meta.members.iter().filter(|member| member.role == MetaRole::Unreachable);
    assert_eq!(gone.map(|member| &*member.node).collect::<Vec<_>>(), ["storage-1"]);
    expect("DEGRADED", 1);

    cluster.storage[1].kill();
    let status = cluster.verdict(Verdict::Unavailable).await;
    assert_eq!(status.reasons[0], "64 of 64 shards have no majority of replicas");
    expect("UNAVAILABLE", 2);

    cluster.storage[0].start();
    cluster.storage[1].start();
    cluster.verdict(Verdict::Healthy).await;
    expect("HEALTHY", 0);
    drop(cluster);
    if let Some(output) = cluster_status(&endpoint) {
        assert_eq!(output.status.code(), Some(2), "nobody answers");
    }
}
