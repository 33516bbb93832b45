//! The tasks that flush, merge and delete by themselves. Two, so that a long merge does not hold a flush up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::Engine;
use crate::error::StoreError;

/// How often age and retention are looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(5);

/// Flushes memtables that are large or old. Runs until `stop` says so or its store is gone.
pub(crate) async fn run_flushes(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = engine.wake_flush.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        if engine.is_flush_due() {
            let outcome = engine.flush().await;
            engine.wake_compaction.notify_one();
            record(&engine, outcome);
        }
    }
}

/// Merges and deletes segments. Runs until `stop` says so or its store is gone.
pub(crate) async fn run_compactions(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = engine.wake_compaction.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        let outcome = engine.compact().await;
        record(&engine, outcome);
    }
}

fn record(engine: &Engine, outcome: Result<(), StoreError>) {
    let error = outcome.err().map(|error| {
        tracing::warn!(%error, "maintenance failed and will be tried again");
        error.to_string()
    });
    engine.state.lock().counters.last_maintenance_error = error;
}
