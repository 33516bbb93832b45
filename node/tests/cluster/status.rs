//! What the admin API and otelctl say of a cluster that loses nodes.

use std::process::{Command, Output};

use oteld_client::admin::{MetaRole, Verdict};

use tempfile::TempDir;

use crate::harness::Cluster;
use crate::ports::free_ports;
use crate::process::{Process, otelctl, until};

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
    assert!(!status.reasons.iter().any(|reason| reason.contains("go on")), "{:?}", status.reasons);
    assert!(status.meta.leader.is_none_or(|leader| leader == "storage-3"), "a leader that answers");
    assert_eq!(status.reasons[0], "64 of 64 shards have no majority of replicas");
    expect("UNAVAILABLE", 2);

    // The log of a node that is there all the time names each event once.
    let log = cluster.storage[2].log();
    let lines = |texts: &[&str]| {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    };
    let said_once = async |event: &str| {
        let count = |peer: &str| lines(&[event, &format!("peer=\"{peer}\"")]);
        until(event, async || match (count("storage-1"), count("storage-2")) {
            (1, 1) => Ok(()),
            counts => Err(format!("{counts:?}")),
        })
        .await;
    };
    said_once("a node does not answer").await;

    cluster.storage[0].start();
    cluster.storage[1].start();
    cluster.verdict(Verdict::Healthy).await;
    expect("HEALTHY", 0);
    said_once("a node answers again").await;
    said_once("a node does not answer").await;
    assert!(lines(&["the meta group has a leader"]) >= 1);
    assert!(lines(&["caught up"]) >= 1);
    let read_back = cluster.storage[0].output();
    assert!(read_back.contains("segments and WAL are read back"), "{read_back}");
    drop(cluster);
    if let Some(output) = cluster_status(&endpoint) {
        assert_eq!(output.status.code(), Some(2), "nobody answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_by_itself_keeps_single_copies_only_when_it_is_told_to() {
    let dir = TempDir::new().unwrap();
    let http = reqwest::Client::new();
    for (replication, wanted) in [
        (None, "1 of 3 expected storage nodes have joined. A new cluster of one node"),
        (Some("meta.replication_factor=1"), "ready\n"),
    ] {
        let name = if replication.is_some() { "alone" } else { "waiting" };
        let (data, log) = (dir.path().join(name), dir.path().join(format!("{name}.log")));
        let [node, query] = free_ports();
        let settings = [
            format!("node.data_dir={}", data.display()),
            format!("listen.node=127.0.0.1:{node}"),
            format!("listen.query=127.0.0.1:{query}"),
            "listen.otlp_grpc=".to_owned(),
            "listen.otlp_http=".to_owned(),
        ];
        let mut arguments = vec!["run"];
        for setting in settings.iter().map(String::as_str).chain(replication) {
            arguments.extend(["--set", setting]);
        }
        let _process = Process::start(&arguments, &log);
        until(&format!("the node says: {wanted}"), async || {
            let asked = http.get(format!("http://127.0.0.1:{query}/readyz")).send().await;
            let said = asked.map_err(|error| error.to_string())?.text().await.unwrap_or_default();
            if said.contains(wanted) { Ok(()) } else { Err(said) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_missing_from_a_cluster_that_forms_is_named() {
    let mut cluster = Cluster::prepare();
    cluster.start_fronts();
    cluster.storage[0].start();
    cluster.storage[1].start();
    cluster
        .front_says(1, "waiting for the meta group to form, or to answer; no answer from storage-3 at")
        .await;
    let status = cluster.verdict(Verdict::Unavailable).await;
    assert!(status.reasons[0].contains("no answer from storage-3 at"), "{:?}", status.reasons);
    cluster.storage[2].start();
    cluster.all_ready().await;
}
