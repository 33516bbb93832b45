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
    /// # Panics
    /// When `work` panics, or when the runtime shuts down meanwhile.
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
            Err(error) => panic!("the runtime ended blocking work: {error}"),
        }
    }
}
