//! Which other nodes answer: asked again and again, said in the log when it changes, and shown to whoever waits for
//! nodes or stops being ready without them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use oteld_cluster::ids::ReplicaId;
use oteld_cluster::membership::Founder;
use oteld_cluster::state::{ClusterState, NodeState};
use oteld_proto::node::StatusRequest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// Between two questions to a node.
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// A node that answered before is silent after so many questions, so that a connection that broke is no event.
const SILENT_AFTER: u32 = 2;
/// The log names a node that never answered after so many: nodes that start together find each other before.
const SAY_AFTER: u32 = 15;

/// Nodes that do not answer: names and addresses.
pub type Silent = BTreeMap<String, String>;

/// Follows the storage nodes and meta members of a cluster.
pub struct Reach {
    own_name: String,
    founders: Vec<Founder>,
    view: ClusterView,
    peers: Peers,
    silent: watch::Sender<Silent>,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    has_answered: bool,
    failures: u32,
    /// Since when the log says that it does not answer.
    said: Option<Instant>,
}

/// What is to be said of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Say {
    Nothing,
    Silent,
    Again { after: Duration },
}

impl Known {
    fn take(&mut self, answers: bool, now: Instant) -> Say {
        if answers {
            *self = Known { has_answered: true, failures: 0, said: self.said };
            let since = self.said.take();
            return since.map_or(Say::Nothing, |since| Say::Again { after: now.duration_since(since) });
        }
        self.failures += 1;
        let is_due = self.failures >= if self.has_answered { SILENT_AFTER } else { SAY_AFTER };
        if !is_due || self.said.is_some() {
            return Say::Nothing;
        }
        self.said = Some(now);
        Say::Silent
    }

    fn is_silent(&self) -> bool {
        self.failures >= if self.has_answered { SILENT_AFTER } else { 1 }
    }
}

impl Reach {
    /// `founders` are asked until the metadata names the nodes.
    pub fn new(own_name: &str, founders: Vec<Founder>, view: ClusterView, peers: Peers) -> Self {
        Reach { own_name: own_name.into(), founders, view, peers, silent: watch::Sender::default() }
    }

    /// The nodes that do not answer, and every change of that. A node that was not asked yet is not among them.
    pub fn silent(&self) -> watch::Receiver<Silent> {
        self.silent.subscribe()
    }

    /// Asks until it is cancelled.
    pub async fn run(self) {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        loop {
            let nodes = self.nodes();
            known.retain(|name, _| nodes.contains_key(name));
            let answers = join_all(nodes.iter().map(|(name, address)| self.answers(name, address))).await;
            for ((name, address), answers) in nodes.iter().zip(answers) {
                match known.entry(name.clone()).or_default().take(answers, Instant::now()) {
                    Say::Nothing => {}
                    Say::Silent => warn!(peer = name, address, "a node does not answer"),
                    Say::Again { after } => {
                        info!(peer = name, address, seconds = after.as_secs(), "a node answers again");
                    }
                }
            }
            let is_silent = |name: &String| known.get(name).is_some_and(Known::is_silent);
            let silent: Silent = nodes.into_iter().filter(|(name, _)| is_silent(name)).collect();
            self.silent.send_if_modified(|said| std::mem::replace(said, silent.clone()) != silent);
            sleep(PAUSE).await;
        }
    }

    fn nodes(&self) -> BTreeMap<String, String> {
        let state = self.view.state();
        let mut nodes: BTreeMap<String, String> = match state.cluster {
            None => self.founders.iter().map(|f| (f.name.clone(), f.address.clone())).collect(),
            Some(_) => BTreeMap::new(),
        };
        let is_expected = |state| !matches!(state, NodeState::Removed | NodeState::Down);
        let others = state.nodes.values().filter(|node| is_expected(node.state));
        let others = others.filter(|node| node.roles.storage || node.roles.meta);
        nodes.extend(others.map(|node| (node.name.clone(), node.address.clone())));
        nodes.remove(&self.own_name);
        nodes
    }

    async fn answers(&self, name: &str, address: &str) -> bool {
        let mut client = self.peers.client(address);
        let reply = timeout(ANSWER_WAIT, client.status(StatusRequest {})).await;
        // Another node at the address of one that is gone must not speak for it.
        matches!(reply, Ok(Ok(reply)) if reply.get_ref().name == name)
    }
}

/// Names and addresses, for a message.
pub fn names(silent: &Silent) -> String {
    let names: Vec<String> = silent.iter().map(|(name, address)| format!("{name} at {address}")).collect();
    names.join(", ")
}

/// Why a front can do nothing for its clients, if so: no shard has a majority of replicas that answer.
pub fn can_serve(state: &ClusterState, silent: &Silent) -> Result<(), String> {
    let answers = state.nodes.values().filter(|node| !silent.contains_key(&node.name));
    let replicas: BTreeSet<ReplicaId> = answers.filter_map(|node| node.replica).collect();
    if state.shards.is_empty() || state.shards.iter().any(|shard| shard.entry.quorum().is_reached(&replicas))
    {
        return Ok(());
    }
    Err(format!("no shard has a majority of replicas that answer this node: {} do not", names(silent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_node_is_said_once() {
        let now = Instant::now();
        let mut known = Known::default();
        for n in 1..=2 * SAY_AFTER {
            let expected = if n == SAY_AFTER { Say::Silent } else { Say::Nothing };
            assert_eq!(known.take(false, now), expected, "{n}");
            assert!(known.is_silent(), "a node that never answered is missed from the first");
        }
        let later = now + Duration::from_secs(7);
        assert_eq!(known.take(true, later), Say::Again { after: Duration::from_secs(7) });
        assert_eq!(known.take(true, later), Say::Nothing);
        assert_eq!(known.take(false, later), Say::Nothing);
        assert!(!known.is_silent(), "one question may get lost");
        assert_eq!(known.take(false, later), Say::Silent);
        assert!(known.is_silent());
        assert_eq!(known.take(false, later), Say::Nothing);
    }
}
