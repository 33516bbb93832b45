//! Proof that a node is cut off, from somebody else: a front that is asked who does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use oteld_client::admin::{CLUSTER_STATUS_PATH, ClusterStatus, NodeState};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::driver::ask;

/// How long a front may take: it waits for those that do not answer.
const WAIT: Duration = Duration::from_secs(5);

/// What a front said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Testimony {
    /// What it says is as of then or later.
    pub(super) asked: Instant,
    /// Nodes that did not answer the front.
    pub(super) silent: BTreeSet<String>,
}

/// At most one question at a time.
#[derive(Default)]
pub(super) struct Witness {
    asking: Option<JoinHandle<Option<Testimony>>>,
}

impl Witness {
    pub(super) fn is_asked(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn has_answered(&self) -> bool {
        self.asking.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Asks the front that listens there. Must be called on a `LocalSet`.
    pub(super) fn ask(&mut self, query: String) {
        let asked = Instant::now();
        self.asking = Some(tokio::task::spawn_local(async move {
            let status: ClusterStatus = ask::get_json(&query, CLUSTER_STATUS_PATH, WAIT).await.ok()?;
            Some(Testimony { asked, silent: silent(&status) })
        }));
    }

    /// What was said, once; `None` where nothing was.
    pub(super) async fn answer(&mut self) -> Option<Testimony> {
        // A panic of the task is no testimony.
        self.asking.take()?.await.ok().flatten()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

fn silent(status: &ClusterStatus) -> BTreeSet<String> {
    let silent = status.nodes.iter().filter(|node| node.state == NodeState::Unreachable);
    silent.map(|node| node.name.clone()).collect()
}
