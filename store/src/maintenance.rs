//! The tasks that flush, merge and delete by themselves. Two, so that a long merge does not hold a flush up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::Engine;
use crate::error::StoreError;

/// How often age and retention are looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(5);

/// Records the first loss of synced data, whoever meets it. Runs until then, or until `stop` says so.
pub(crate) async fn record_loss(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = engine.record_next_loss() => {}
    }
}

/// Flushes memtables that are large or old. Runs until `stop` says so or the store takes no writes for good.
pub(crate) async fn run_flushes(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let mut is_failing = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = engine.wake_flush.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        if engine.refuses().is_err() {
            return;
        }
        if engine.is_flush_due() {
            let outcome = engine.flush().await;
            engine.wake_compaction.notify_one();
            is_failing = record(&engine, outcome, is_failing);
        }
    }
}

/// Merges and deletes segments. Runs until `stop` says so or the store takes no writes for good.
pub(crate) async fn run_compactions(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let mut is_failing = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = engine.wake_compaction.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        if engine.refuses().is_err() {
            return;
        }
        let outcome = engine.compact().await;
        is_failing = record(&engine, outcome, is_failing);
    }
}

/// Shows how it went; a line for the first failure and for the end of failing. Gives whether it fails now.
fn record(engine: &Engine, outcome: Result<(), StoreError>, was_failing: bool) -> bool {
    let error = outcome.err().map(|error| error.to_string());
    match &error {
        Some(error) if !was_failing => {
            tracing::warn!(error, "maintenance failed and is tried again and again")
        }
        None if was_failing => tracing::info!("maintenance succeeds again"),
        _ => {}
    }
    let is_failing = error.is_some();
    engine.state.lock().counters.last_maintenance_error = error;
    is_failing
}
