//! What is done to containers, on a cluster that others look at meanwhile: nothing of it is borrowed while the engine
//! works.

use std::cell::RefCell;
use std::rc::Rc;

use super::cluster::{Cluster, Node, inspect};
use super::container::Container;
use super::docker;

/// Names of nodes with what the engine says of their containers.
pub(super) type Looked = Vec<(String, Container)>;

/// On a busy machine the kernel's freezer may not get all threads at once, and the engine gives up ("unable to freeze").
const PAUSE_TRIES: u32 = 3;

pub(super) struct Hands(Rc<RefCell<Cluster>>);

impl Hands {
    pub(super) fn new(cluster: Rc<RefCell<Cluster>>) -> Self {
        Hands(cluster)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.borrow().nodes.keys().cloned().collect()
    }

    fn ids(&self, names: &[String]) -> Result<Vec<String>, String> {
        self.0.borrow().ids(names)
    }

    /// Changes or reads a node; `None` where there is none of that name.
    pub(super) fn with<T>(&self, name: &str, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        self.0.borrow_mut().nodes.get_mut(name).map(change)
    }

    /// # Errors
    /// When there is no such node, or the engine does not say.
    pub(super) async fn inspect(&self, names: &[String]) -> Result<Looked, String> {
        let ids = self.ids(names)?;
        inspect(names, &ids).await
    }

    /// Kills those that run, all at the same moment; what the engine says of them before and after.
    ///
    /// # Errors
    /// When the engine does not say, or could not.
    pub(super) async fn kill(&self, running: Looked) -> Result<Vec<(String, Container, Container)>, String> {
        let names: Vec<String> = running.iter().map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        docker::run(&["kill", "--signal", "KILL"], &self.ids(&names)?).await?;
        let after = self.inspect(&names).await?.into_iter();
        Ok(running.into_iter().zip(after).map(|((name, before), (_, after))| (name, before, after)).collect())
    }

    /// Starts those that do not run; the nodes that it started and that have a store.
    ///
    /// # Errors
    /// When the engine could not.
    pub(super) async fn start(&self, nodes: &[String]) -> Result<Vec<String>, String> {
        let is_down = |name: &&String| self.with(name, |node| !node.is_up) == Some(true);
        let down: Vec<String> = nodes.iter().filter(is_down).cloned().collect();
        if down.is_empty() {
            return Ok(Vec::new());
        }
        docker::run(&["start"], &self.ids(&down)?).await?;
        let mut stores = Vec::new();
        for (name, container) in self.inspect(&down).await? {
            let is_storage = self.with(&name, |node| {
                (node.is_up, node.is_paused) = (true, false);
                node.boot += 1;
                node.started(&container);
                node.is_storage
            });
            if is_storage == Some(true) {
                stores.push(name);
            }
        }
        Ok(stores)
    }

    /// Pauses them, or none.
    ///
    /// # Errors
    /// When the engine could not.
    pub(super) async fn pause(&self, nodes: &[String]) -> Result<(), String> {
        let mut failed = String::new();
        for _ in 0..=PAUSE_TRIES {
            let is = self.inspect(nodes).await?.into_iter();
            let running: Vec<String> = is.filter(|(_, is)| !is.state.paused).map(|(name, _)| name).collect();
            if running.is_empty() {
                self.are_paused(nodes, true);
                return Ok(());
            }
            if let Err(error) = docker::run(&["pause"], &self.ids(&running)?).await {
                failed = error;
            }
        }
        for node in nodes {
            // Those that were not paused are told so.
            let _ = docker::run(&["unpause"], &self.ids(std::slice::from_ref(node))?).await;
        }
        Err(failed)
    }

    /// # Errors
    /// When the engine could not.
    pub(super) async fn unpause(&self, nodes: &[String]) -> Result<(), String> {
        docker::run(&["unpause"], &self.ids(nodes)?).await?;
        self.are_paused(nodes, false);
        Ok(())
    }

    fn are_paused(&self, nodes: &[String], are: bool) {
        for name in nodes {
            self.with(name, |node| node.is_paused = are);
        }
    }

    /// Takes a node all networks in which it still is.
    ///
    /// # Errors
    /// When the engine could not.
    pub(super) async fn disconnect(&self, name: &String) -> Result<(), String> {
        let is = self.inspect(std::slice::from_ref(name)).await?.remove(0).1;
        let networks = self.with(name, |node| node.networks.clone()).unwrap_or_default();
        for attachment in networks.iter().filter(|attachment| is.is_in(&attachment.network)) {
            docker::run(&["network", "disconnect", &attachment.network, &is.id], &[]).await?;
        }
        Ok(())
    }

    /// Puts a node back into the networks in which it was started, under the names that it had there.
    ///
    /// # Errors
    /// When the engine could not.
    pub(super) async fn reconnect(&self, name: &str, is: &Container) -> Result<(), String> {
        let networks = self.with(name, |node| node.networks.clone()).unwrap_or_default();
        for attachment in networks.iter().filter(|attachment| !is.is_in(&attachment.network)) {
            docker::within(docker::WAIT, attachment.connect(&is.id)).await?;
        }
        Ok(())
    }

    /// What the process that a node runs now printed; `None` where there is none.
    pub(super) async fn log(&self, name: &str) -> Option<String> {
        let up = self.with(name, |node| node.is_up.then(|| (node.id.clone(), node.started_at.clone())));
        let (id, since) = up??;
        let said = docker::within(docker::WAIT, docker::words(&["logs", "--since", &since, &id], &[])).await;
        // What the engine does not say now it says at the next look.
        Some(said.map_or_else(|_| String::new(), |(out, err)| out + &err))
    }

    /// Where the first front listens that runs and is in its network.
    pub(super) fn hearing_front(&self, hears: impl Fn(&str) -> bool) -> Option<String> {
        let cluster = self.0.borrow();
        let mut fronts = cluster.nodes.iter().filter(|(_, node)| !node.addresses.otlp_http.is_empty());
        fronts.find(|(name, _)| hears(name)).map(|(_, front)| front.addresses.query.clone())
    }
}
