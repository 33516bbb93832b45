//! Tasks and blocking work.

#![allow(clippy::disallowed_methods, reason = "this is the door to the runtime")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Random;

/// Starts tasks on the runtime of the caller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    blocking: Blocking,
}

/// Where blocking work runs.
#[derive(Clone, Debug)]
enum Blocking {
    Threads,
    Inline,
    Queued(Random, WorkQueue),
}

impl Tasks {
    /// Blocking work goes to a pool of threads.
    pub fn threads() -> Self {
        Tasks { blocking: Blocking::Threads }
    }

    /// Blocking work runs where it is called, so that one thread decides every order.
    pub fn inline() -> Self {
        Tasks { blocking: Blocking::Inline }
    }

    /// Blocking work runs on the caller's thread, after it waited in `queue` for as long as `random` says: one thread
    /// decides every order, and other things happen between asking for work and having it.
    pub fn queued(random: Random, queue: WorkQueue) -> Self {
        Tasks { blocking: Blocking::Queued(random, queue) }
    }

    /// Runs `future` in the background; it ends when it is done, when its handle is aborted, or with the runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    /// Runs `work`, which may block on a disk or compute for long, away from the reactor. It goes on when the caller
    /// is gone.
    ///
    /// Never completes where the runtime shuts down before: so does no task of that runtime.
    ///
    /// # Panics
    /// When `work` panics.
    pub async fn blocking<T, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let done = match &self.blocking {
            Blocking::Threads => tokio::task::spawn_blocking(work).await,
            Blocking::Inline => return work(),
            Blocking::Queued(random, queue) => match queue.waits(random) {
                None => return work(),
                Some((before, after)) => {
                    let work = async move {
                        sleep(before).await;
                        let value = work();
                        sleep(after).await;
                        value
                    };
                    tokio::spawn(work).await
                }
            },
        };
        match done {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
    }
}

/// How long blocking work of a simulated machine waits for a thread and for its disk. Clones are one queue.
#[derive(Clone, Debug, Default)]
pub struct WorkQueue(Arc<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    /// The longest wait while nothing slows the machine, microseconds.
    wait_max_us: AtomicU64,
    /// What every piece of work waits for on top, microseconds.
    slowed_us: AtomicU64,
    /// Pieces of work that were slowed.
    slowed: AtomicU64,
}

impl WorkQueue {
    /// One piece of work in this many waits at all, while nothing slows the machine.
    const ONE_WAITS_IN: u64 = 4;

    /// Where work waits for up to `wait_max`, most of it for nothing.
    pub fn new(wait_max: Duration) -> Self {
        let queue = WorkQueue::default();
        queue.0.wait_max_us.store(wait_max.as_micros() as u64, Ordering::Relaxed);
        queue
    }

    /// Every piece of work takes so much longer from now on.
    pub fn slow_by(&self, by: Duration) {
        self.0.slowed_us.store(by.as_micros() as u64, Ordering::Relaxed);
    }

    /// How many pieces of work were slowed so far.
    pub fn slowed(&self) -> u64 {
        self.0.slowed.load(Ordering::Relaxed)
    }

    /// The waits before and after the next piece of work; `None` for work that is done at once.
    fn waits(&self, random: &Random) -> Option<(Duration, Duration)> {
        let (slowed_us, wait_max_us) =
            (self.0.slowed_us.load(Ordering::Relaxed), self.0.wait_max_us.load(Ordering::Relaxed));
        let own_us = match wait_max_us > 0 && random.in_range(0..Self::ONE_WAITS_IN) == 0 {
            true => random.in_range(0..wait_max_us) + 1,
            false => 0,
        };
        self.0.slowed.fetch_add(u64::from(slowed_us > 0), Ordering::Relaxed);
        let total_us = own_us + slowed_us;
        (total_us > 0).then(|| {
            let before_us = random.in_range(0..total_us + 1);
            (Duration::from_micros(before_us), Duration::from_micros(total_us - before_us))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn work_that_a_runtime_did_not_start_before_it_ended_never_completes() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let tasks = Tasks::threads();
        let work = pin!(tasks.blocking(|| ()));
        assert_eq!(work.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    }

    #[tokio::test(start_paused = true)]
    async fn queued_work_takes_as_long_as_the_machine_is_slow_and_outlives_who_asked() {
        let queue = WorkQueue::new(Duration::ZERO);
        let tasks = Tasks::queued(Random::from_seed(1), queue.clone());
        let begun = tokio::time::Instant::now();
        assert_eq!(tasks.blocking(|| 7).await, 7);
        assert_eq!((begun.elapsed(), queue.slowed()), (Duration::ZERO, 0));
        queue.slow_by(Duration::from_millis(30));
        assert_eq!(tasks.blocking(|| 8).await, 8);
        assert!((30..33).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        let (done, told) = tokio::sync::oneshot::channel();
        let asked = tasks.blocking(move || done.send(9));
        assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err());
        assert_eq!((told.await, queue.slowed()), (Ok(9), 2));
    }
}
