//! Tasks and blocking work.

#![allow(clippy::disallowed_methods, reason = "this is the door to the runtime")]

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts tasks on the runtime of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Tasks {
    inline: bool,
}

impl Tasks {
    /// Blocking work goes to a pool of threads.
    pub fn threads() -> Self {
        Tasks { inline: false }
    }

    /// Blocking work runs where it is called, so that one thread decides every order.
    pub fn inline() -> Self {
        Tasks { inline: true }
    }

    /// Runs `future` in the background; it ends when it is done, when its handle is aborted, or with the runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    /// Runs `work`, which may block on a disk or compute for long, away from the reactor.
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
        if self.inline {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
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
}
