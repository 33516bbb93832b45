//! otelload against nullotlp: what one says it sent, the other must have decoded.
#![allow(clippy::disallowed_methods, reason = "real processes talk over real sockets")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct NullServer {
    process: Child,
    grpc: String,
    http: String,
}

impl NullServer {
    /// Listens on free ports when this returns.
    fn start() -> NullServer {
        let mut process = Command::new(env!("CARGO_BIN_EXE_nullotlp"))
            .args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nullotlp starts");
        let mut line = String::new();
        let stderr = process.stderr.as_mut().expect("a pipe");
        BufReader::new(stderr).read_line(&mut line).expect("the line with the addresses");
        let addresses: Vec<&str> = line.split_whitespace().filter(|word| word.starts_with("127.")).collect();
        let [grpc, http] = addresses[..] else { panic!("no two addresses in {line:?}") };
        let (grpc, http) = (format!("http://{grpc}"), format!("http://{http}"));
        NullServer { process, grpc, http }
    }

    /// Ends it and returns the report that it prints.
    fn stop(mut self) -> Value {
        let terminated = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(terminated.expect("kill runs").success());
        let mut report = String::new();
        self.process.stdout.take().expect("a pipe").read_to_string(&mut report).expect("the report");
        assert!(self.process.wait().expect("an exit status").success());
        serde_json::from_str(&report).expect("JSON")
    }
}

fn otelload(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_otelload")).args(arguments).args(["-o", "json"]).output();
    let output = output.expect("otelload starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn every_signal_protocol_and_compression_arrives_whole() {
    let server = NullServer::start();
    let mut sent = 0;
    for signal in ["metrics", "logs", "traces"] {
        for (protocol, endpoint) in [("grpc", &server.grpc), ("http", &server.http)] {
            for compression in ["none", "gzip", "zstd"] {
                let (code, report) = otelload(&[
                    signal,
                    "--protocol",
                    protocol,
                    "--compression",
                    compression,
                    "--endpoint",
                    endpoint,
                    "--items",
                    "500",
                    "--batch",
                    "100",
                    "--series",
                    "200",
                    "--tenant",
                    "a",
                ]);
                assert_eq!(code, Some(0), "{signal} {protocol} {compression}: {report}");
                assert_eq!(report["items"], 500, "{signal} {protocol} {compression}");
                assert_eq!(report["errors"], serde_json::json!({}));
                sent += 500;
            }
        }
    }
    let report = server.stop();
    assert_eq!(report["items"], sent);
    assert!(report["cpu_seconds"].is_number());
}

#[test]
fn requests_that_nobody_takes_are_errors_and_not_items() {
    let server = NullServer::start();
    // The gRPC port speaks no HTTP/1.1.
    let (code, report) = otelload(&[
        "logs",
        "--protocol",
        "http",
        "--endpoint",
        &server.grpc,
        "--items",
        "300",
        "--batch",
        "100",
    ]);
    server.stop();
    assert_eq!(code, Some(1));
    assert_eq!(report["items"], 0);
    let failed: u64 =
        report["errors"].as_object().expect("by status").values().filter_map(Value::as_u64).sum();
    assert_eq!(failed, 3);
}
