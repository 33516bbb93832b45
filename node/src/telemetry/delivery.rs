//! Says once when the node's own telemetry cannot be delivered, and once when it can again: the exporters' own
//! messages are off, and come with every attempt.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use parking_lot::Mutex;

/// Failures in a row before they are said: a node that starts sends before a front is there.
const FAILURES_MIN: u32 = 2;

/// Exports metrics, which go out at every interval, and watches how that ends.
pub(super) struct Watched<E> {
    exporter: E,
    endpoint: String,
    failures: Mutex<Failures>,
}

impl<E> Watched<E> {
    pub(super) fn new(exporter: E, endpoint: &str) -> Self {
        Watched { exporter, endpoint: endpoint.to_owned(), failures: Mutex::default() }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let outcome = self.exporter.export(metrics).await;
        let news = self.failures.lock().add(outcome.is_ok());
        let endpoint = &self.endpoint;
        match (news, &outcome) {
            (true, Err(error)) => {
                tracing::warn!(endpoint, %error, "this node's own telemetry cannot be delivered; it is tried again");
            }
            (true, Ok(())) => tracing::warn!(endpoint, "this node's own telemetry is delivered again"),
            (false, _) => {}
        }
        outcome
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// Failed exports in a row.
#[derive(Debug, Default)]
struct Failures(u32);

impl Failures {
    /// Whether this outcome is worth a line of the log.
    fn add(&mut self, is_delivered: bool) -> bool {
        let was_said = self.0 >= FAILURES_MIN;
        self.0 = if is_delivered { 0 } else { self.0.saturating_add(1) };
        was_said == is_delivered && (is_delivered || self.0 >= FAILURES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_when_it_begins_and_when_it_ends() {
        let mut failures = Failures::default();
        let outcomes = [true, false, true, false, false, false, false, true, true, false];
        let said: Vec<bool> = outcomes.into_iter().map(|delivered| failures.add(delivered)).collect();
        assert_eq!(said, [false, false, false, false, true, false, false, true, false, false]);
    }
}
