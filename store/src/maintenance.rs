//! The tasks that flush, merge and delete by themselves. Two, so that a long merge does not hold a flush up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::StoreError;

/// How often age and retention are looked at.
const TICK: Duration = Duration::from_secs(5);
/// Pause after what failed once; it doubles with each failure in a row, up to the longest. Whoever appends wakes
/// these tasks, so without it a full disk would be asked for space hundreds of times a second.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How often a failure that goes on is said again.
const REMIND: Duration = Duration::from_secs(600);

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
    let mut failures = Failures::default();
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
            if pause_after(&engine, "flush", outcome, &mut failures, &mut stop).await {
                return;
            }
        }
    }
}

/// Merges and deletes segments. Runs until `stop` says so or the store takes no writes for good.
pub(crate) async fn run_compactions(engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let mut failures = Failures::default();
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
        if pause_after(&engine, "compaction", outcome, &mut failures, &mut stop).await {
            return;
        }
    }
}

/// Records how an attempt ended, and waits after a failure; whether the task is to end.
async fn pause_after(
    engine: &Engine,
    task: &'static str,
    outcome: Result<(), StoreError>,
    failures: &mut Failures,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    let error = outcome.err().map(|error| error.to_string());
    {
        let errors = &mut engine.state.lock().counters.maintenance_errors;
        match &error {
            Some(error) => errors.insert(task, error.clone()),
            None => errors.remove(task),
        };
    }
    let Some(error) = error else {
        if failures.end() {
            tracing::info!(task, "maintenance works again");
        }
        return false;
    };
    if *stop.borrow() {
        return true;
    }
    let (pause, is_news) = failures.add(&error, Instant::now());
    if is_news {
        tracing::warn!(task, error, "maintenance failed and will be tried again");
    }
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl Failures {
    /// How long to wait before the next attempt, and whether this failure is worth a line of the log.
    fn add(&mut self, error: &str, now: Instant) -> (Duration, bool) {
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.count)).min(PAUSE_MAX);
        self.count += 1;
        // Bytes and names of files differ each time.
        let gist: String = error.chars().filter(|c| !c.is_ascii_digit()).collect();
        let is_news = self.said.as_ref().is_none_or(|(said, at)| *said != gist || now - *at >= REMIND);
        if is_news {
            self.said = Some((gist, now));
        }
        (pause, is_news)
    }

    /// Whether there were any.
    fn end(&mut self) -> bool {
        std::mem::take(self).count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_tried_seldom_and_said_rarely() {
        let mut failures = Failures::default();
        let mut now = Instant::now();
        let end = now + Duration::from_secs(3600);
        let (mut attempts, mut lines) = (0, 0);
        while now < end {
            let (pause, is_news) = failures.add(&format!("{attempts} bytes are free"), now);
            attempts += 1;
            lines += u32::from(is_news);
            now += pause;
        }
        assert!(attempts < 3600 / 15 + 10, "{attempts} attempts in an hour");
        assert_eq!(lines, 6, "one every ten minutes");
        assert!(failures.add("another reason", now).1, "what changes is said at once");
        assert!(failures.end() && !failures.end());
        assert_eq!(failures.add("another reason", now), (PAUSE, true), "and begins anew after a success");
    }
}
