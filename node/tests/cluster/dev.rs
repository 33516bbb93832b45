//! `oteld dev`: one process, its own telemetry in it, a clean end, and its data after a restart.

use std::path::Path;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::complaints;
use crate::ports::free_ports;
use crate::process::{Process, until};
use crate::send::{Front, Way, logs, now};

/// Where one development cluster listens.
struct Ports {
    query: u16,
    grpc: u16,
    http: u16,
    /// The first of four in a row: three storage nodes and the front, among themselves.
    node: u16,
}

impl Ports {
    fn free() -> Ports {
        let [query, grpc, http] = free_ports();
        loop {
            let row: [u16; 4] = free_ports();
            if row.windows(2).all(|pair| pair[1] == pair[0] + 1) {
                return Ports { query, grpc, http, node: row[0] };
            }
        }
    }

    fn front(&self) -> Front {
        Front::at(self.query, self.grpc, self.http)
    }

    /// Starts `oteld dev` on `data`.
    fn begin(&self, data: &Path, log: &Path) -> Process {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let (query, grpc, http) = (local(self.query), local(self.grpc), local(self.http));
        let (data, node) = (data.to_str().unwrap(), self.node.to_string());
        let listen = ["--otlp-grpc", &grpc, "--otlp-http", &http, "--query", &query, "--node-port", &node];
        Process::start(&[&["dev", "--data-dir", data], &listen[..]].concat(), log)
    }

    /// Starts it and waits until it says that it is ready.
    async fn start(&self, data: &Path, log: &Path) -> Process {
        let mut process = self.begin(data, log);
        until("oteld dev is ready", async || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}: {}", process.output());
            }
            let output = process.output();
            if output.contains("oteld is ready") { Ok(()) } else { Err(output) }
        })
        .await;
        process
    }
}

/// SIGTERM, and what it printed when it has ended well.
async fn terminate(mut process: Process) -> String {
    let begun = Instant::now();
    process.terminate();
    let status = until("oteld dev ends", async || process.ended().ok_or_else(|| process.output())).await;
    assert!(status.success(), "{status}: {}", process.output());
    assert!(begun.elapsed().as_secs() < 15, "it took {:?} to stop", begun.elapsed());
    process.output()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_development_cluster_shows_itself_stops_cleanly_and_finds_its_data() {
    let dir = TempDir::new().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let ports = Ports::free();
    let (process, front) = (ports.start(&data, &log).await, ports.front());
    let time = now();
    front.send(&logs("shop", [(time, "hello".to_owned())]), Way::Grpc).await.unwrap();
    assert_eq!(front.lines("shop", time..time + 1).await.unwrap().len(), 1);

    // A second process keeps its hands off the directory, and says why.
    let mut second = Ports::free().begin(&data, &dir.path().join("second.log"));
    let status =
        until("the second process ends", async || second.ended().ok_or_else(|| second.output())).await;
    assert!(!status.success());
    assert!(second.output().contains("is in use by another process"), "{}", second.output());

    until("its own metrics, logs and traces are there", async || {
        let nodes = front.prometheus_value("count(oteld_store_rows{signal=\"logs\"} > 0)").await?;
        let logs = front.log_count("sum(count_over_time({service_name=\"oteld\"}[1h]))").await?;
        let services = front.ask("/jaeger/api/services", &[]).await?;
        let traced = services["data"].as_array().unwrap().contains(&"oteld".into());
        if nodes == 3.0 && logs > 0.0 && traced {
            Ok(())
        } else {
            Err(format!("{nodes} nodes, {logs} logs, {services}"))
        }
    })
    .await;

    let found =
        front.ask("/tempo/api/search", &[("q", "{ span.http.response.status_code = 200 }")]).await.unwrap();
    assert_eq!(found["traces"][0]["rootServiceName"], "oteld", "{found}");

    let output = terminate(process).await;
    assert_eq!(complaints(&output), Vec::<String>::new(), "nothing to complain of");

    let mut fewer = Process::start(&["dev", "--nodes", "2", "--data-dir", data.to_str().unwrap()], &log);
    until("fewer nodes are refused", async || fewer.ended().ok_or_else(|| fewer.output())).await;
    assert!(fewer.output().contains("holds 3 storage nodes"), "{}", fewer.output());
    let mut wrong = Process::start(&["dev", "--otlp-grpc", "nonsense"], &log);
    until("a wrong address is refused", async || wrong.ended().ok_or_else(|| wrong.output())).await;
    assert!(wrong.output().contains("--otlp-grpc"), "{}", wrong.output());

    let process = ports.start(&data, &log).await;
    assert_eq!(front.lines("shop", time..time + 1).await.unwrap().len(), 1);
    let rows =
        front.prometheus_value("count(max_over_time(oteld_store_rows{signal=\"logs\"}[1h]))").await.unwrap();
    assert_eq!(rows, 3.0, "its own metrics of before");
    let output = terminate(process).await;
    assert_eq!(complaints(&output), Vec::<String>::new(), "nothing to complain of");
}
