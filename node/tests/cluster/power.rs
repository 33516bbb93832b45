//! A node that runs with faults (`--faults`) and loses its power: SIGKILL takes what it had not synced.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use oteld_env::faults::FaultReply;

use crate::harness::client;
use crate::ports::free_ports;
use crate::process::{Process, until};
use crate::send::{Front, Way, logs, now};

fn say(control: &std::path::Path, line: &str) -> FaultReply {
    let mut stream = UnixStream::connect(control).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{reply}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_power_between_a_sync_and_its_answer_shows_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (faults, control) = (dir.path().join("faults.json"), dir.path().join("control.sock"));
    std::fs::write(&faults, format!(r#"{{"seed":7,"power_loss":true,"control":{control:?}}}"#)).unwrap();
    let [node, query, grpc, http] = free_ports();
    let mut arguments = vec!["run".to_owned(), "--faults".to_owned(), faults.display().to_string()];
    for (key, value) in [
        ("node.data_dir", dir.path().join("data").display().to_string()),
        ("meta.replication_factor", "1".to_owned()),
        ("listen.node", format!("127.0.0.1:{node}")),
        ("listen.query", format!("127.0.0.1:{query}")),
        ("listen.otlp_grpc", format!("127.0.0.1:{grpc}")),
        ("listen.otlp_http", format!("127.0.0.1:{http}")),
    ] {
        arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (front, log) = (Front::at(query, grpc, http), dir.path().join("log"));
    let ready = async || {
        until("the node is ready", async || {
            let answer = client().get(format!("{}/readyz", front.query)).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    };
    let mut process = Process::start(&arguments, &log);
    ready().await;
    assert!(process.output().contains("faults are on"));
    let time = now();
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        let body = format!("line {number}");
        front.send(&logs("kept", [(time, body.clone())]), Way::HttpProtobuf).await.unwrap();
        acknowledged.push(body);
    }
    assert!(say(&control, r#"{"do":"crash_at","point":"wal.group_synced"}"#).ok);
    let last = front.send(&logs("kept", [(time, "last".to_owned())]), Way::HttpProtobuf).await;
    assert!(last.is_err(), "{last:?}");
    let status = until("the process is gone", async || process.ended().ok_or("it runs".to_owned())).await;
    assert_eq!(status.signal(), Some(9));

    let _process = Process::start(&arguments, &log);
    ready().await;
    let lines = front.lines("kept", time..time + 1).await.unwrap();
    let missing: Vec<_> = acknowledged.iter().filter(|body| lines.get(*body) != Some(&1)).collect();
    assert!(missing.is_empty(), "{missing:?} of {lines:?}");
    assert_eq!(lines.get("last"), Some(&1), "it was synced, whatever was answered");
}
