//! What a run found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::load::Counts;
use crate::signal::Signal;

#[derive(Debug, Serialize)]
pub struct Report {
    pub signal: String,
    pub seconds: f64,
    /// Requests that were acknowledged.
    pub requests: u64,
    /// Items that were acknowledged.
    pub items: u64,
    pub items_per_second: f64,
    /// Uncompressed megabytes (10^6 bytes) a second.
    pub megabytes_per_second: f64,
    pub bytes_per_item: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Items that the server named as rejected in `partial_success`.
    pub rejected_items: u64,
    /// Requests that were not acknowledged, by status.
    pub errors: BTreeMap<String, u64>,
    /// CPU seconds of the load generator itself, while the load ran.
    pub own_cpu_seconds: Option<f64>,
}

impl Report {
    pub fn new(signal: Signal, counts: Counts, seconds: f64, own_cpu_seconds: Option<f64>) -> Report {
        Report {
            signal: signal.to_string(),
            seconds,
            requests: counts.requests,
            items: counts.items,
            items_per_second: counts.items as f64 / seconds,
            megabytes_per_second: counts.bytes as f64 / 1e6 / seconds,
            bytes_per_item: counts.bytes as f64 / (counts.items + counts.rejected_items).max(1) as f64,
            p50_ms: counts.latency.quantile_ms(0.5),
            p99_ms: counts.latency.quantile_ms(0.99),
            max_ms: counts.latency.max_ms(),
            rejected_items: counts.rejected_items,
            errors: counts.errors,
            own_cpu_seconds,
        }
    }

    pub fn failed_requests(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn table(&self, signal: Signal) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<26} {value}");
        };
        line("signal", self.signal.clone());
        line("seconds", format!("{:.2}", self.seconds));
        line("requests", self.requests.to_string());
        line(signal.item(), self.items.to_string());
        line(&format!("{}/s", signal.item()), format!("{:.0}", self.items_per_second));
        line("MB/s", format!("{:.2}", self.megabytes_per_second));
        line("bytes an item", format!("{:.1}", self.bytes_per_item));
        line("p50 ms", format!("{:.2}", self.p50_ms));
        line("p99 ms", format!("{:.2}", self.p99_ms));
        line("max ms", format!("{:.2}", self.max_ms));
        line("rejected items", self.rejected_items.to_string());
        line("failed requests", self.failed_requests().to_string());
        for (status, count) in &self.errors {
            line(&format!("  {status}"), count.to_string());
        }
        if let Some(seconds) = self.own_cpu_seconds {
            line("own CPU seconds", format!("{seconds:.2}"));
        }
        out
    }
}
