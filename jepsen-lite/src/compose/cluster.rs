//! The containers of a run: started, asked whether they are ready, and removed at the end.

#![allow(clippy::disallowed_methods, reason = "starts what is tested, and is part of no node")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use oteld_client::admin::{CLUSTER_STATUS_PATH, ClusterStatus};
use tokio::time::Instant;

use super::container::{Attachment, Container};
use super::docker::{self, words};
use super::nemesis::Nemesis;
use super::plan::Plan;
use crate::driver::{self, Addresses, Running, Scene, ask};
use crate::local::process::resident_bytes;

/// How long a busy machine may take to make and start all containers, and then until all nodes are ready.
const START_WAIT: Duration = Duration::from_secs(120);

/// Lines of a log that an error shows.
const TAIL_LINES: &str = "20";

/// A container, and what the run knows of it.
pub(super) struct Node {
    pub(super) id: String,
    pub(super) addresses: Addresses,
    /// As it was started: a container that is cut off goes back there.
    pub(super) networks: Vec<Attachment>,
    pub(super) is_storage: bool,
    /// Whether it was started and not killed since.
    pub(super) is_up: bool,
    pub(super) is_paused: bool,
    /// How many times it was started.
    pub(super) boot: u32,
    /// When its process started, as the engine says it.
    pub(super) started_at: String,
    pid: u32,
}

impl Node {
    /// Takes over what the engine says of a process that was started.
    pub(super) fn started(&mut self, container: &Container) {
        self.started_at.clone_from(&container.state.started_at);
        self.pid = container.state.pid;
    }

    /// 0 where the engine's processes are not those of this machine.
    fn resident_bytes(&self) -> u64 {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        if groups.contains(&self.id) { resident_bytes(self.pid) } else { 0 }
    }
}

/// Dropping it removes its containers, networks and volumes, unless they are to be kept.
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<String, Node>,
    plan: Plan,
    dir: PathBuf,
    /// The Compose file of the run.
    file: PathBuf,
    /// Whether there may be something to remove.
    was_started: bool,
}

impl Cluster {
    /// Everything but the containers.
    ///
    /// # Errors
    /// When the Compose file cannot be written to `dir`.
    pub(super) fn prepare(plan: Plan, dir: &Path) -> Result<Cluster, String> {
        let file = dir.join("compose.json");
        let text = serde_json::to_string_pretty(&plan.document).map_err(|error| error.to_string());
        text.and_then(|text| std::fs::write(&file, text).map_err(|error| error.to_string()))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        Ok(Cluster { nodes: BTreeMap::new(), plan, dir: dir.to_owned(), file, was_started: false })
    }

    fn compose(&self, command: &[&str]) -> Vec<String> {
        let (project, file) = (&self.plan.options.project, self.file.display().to_string());
        words(&["compose", "--project-name", project, "--file", &file], &words(command, &[]))
    }

    /// Makes and starts the containers.
    async fn up(&mut self) -> Result<(), String> {
        self.was_started = true;
        let up = ["up", "--detach", "--no-build", "--pull", "never"];
        docker::within(START_WAIT, self.compose(&up)).await?;
        let (ids, _) = docker::within(docker::WAIT, self.compose(&["ps", "--all", "--quiet"])).await?;
        let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
        for container in Container::parse(&docker::run(&["inspect"], &ids).await?)? {
            let name = container.service().unwrap_or_default().to_owned();
            let addresses = self.plan.addresses.get(&name);
            let addresses = addresses.ok_or_else(|| format!("service `{name}` is not of this run"))?.clone();
            let mut node = Node {
                id: container.id.clone(),
                addresses,
                networks: container.attachments(),
                is_storage: self.plan.topology.storage.contains(&name),
                is_up: true,
                is_paused: false,
                boot: 1,
                started_at: String::new(),
                pid: 0,
            };
            node.started(&container);
            if self.nodes.insert(name.clone(), node).is_some() {
                return Err(format!("service {name} has more than one container"));
            }
        }
        let missing = self.plan.addresses.keys().find(|name| !self.nodes.contains_key(*name));
        missing.map_or(Ok(()), |name| Err(format!("service {name} has no container")))
    }

    /// Waits until every node does all that its roles promise.
    async fn ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_WAIT;
        for (name, node) in &self.nodes {
            while let Err(says) = ask::is_ready(&node.addresses.query).await {
                let container = self.inspect(std::slice::from_ref(name)).await?.remove(0).1;
                let wrong = if container.is_gone() {
                    container.how_it_ended()
                } else if Instant::now() >= deadline {
                    format!("not ready after {} s ({says})", START_WAIT.as_secs())
                } else {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                };
                let tail = docker::output(&words(&["logs", "--tail", TAIL_LINES, &node.id], &[]));
                let tail = tail.map_or_else(|error| error, |(out, err)| out + &err);
                return Err(format!("{name}: {wrong}:\n{tail}"));
            }
        }
        Ok(())
    }

    /// The services' names say who is in the meta group; their configuration decides it.
    async fn check_meta(&self) -> Result<(), String> {
        let topology = &self.plan.topology;
        let query = &self.nodes[&topology.fronts[0]].addresses.query;
        let status: ClusterStatus = ask::get_json(query, CLUSTER_STATUS_PATH, START_WAIT).await?;
        let members: Vec<&String> = status.meta.members.iter().map(|member| &member.node).collect();
        let mut named: Vec<&String> = topology.meta.iter().collect();
        named.sort();
        if members == named {
            return Ok(());
        }
        Err(format!("the meta group is {members:?}, and by the names of the services it is {named:?}"))
    }

    /// The ids of these nodes.
    ///
    /// # Errors
    /// When there is no such node: a schedule for another cluster.
    pub(super) fn ids(&self, names: &[String]) -> Result<Vec<String>, String> {
        let id = |name: &String| match self.nodes.get(name) {
            Some(node) => Ok(node.id.clone()),
            None => Err(format!("there is no node {name}")),
        };
        names.iter().map(id).collect()
    }

    /// What the engine says of these nodes now.
    async fn inspect(&self, names: &[String]) -> Result<Vec<(String, Container)>, String> {
        inspect(names, &self.ids(names)?).await
    }
}

/// What the engine says now of the nodes `names` with these `ids`.
pub(super) async fn inspect(names: &[String], ids: &[String]) -> Result<Vec<(String, Container)>, String> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let containers = Container::parse(&docker::run(&["inspect"], ids).await?)?;
    if containers.len() != names.len()
        || containers.iter().zip(ids).any(|(container, id)| container.id != *id)
    {
        return Err("docker inspect answers for other containers than it was asked for".into());
    }
    Ok(names.iter().cloned().zip(containers).collect())
}

impl driver::Cluster for Cluster {
    type Nemesis = Nemesis;

    async fn start(&mut self) -> Result<(), String> {
        self.up().await?;
        self.ready().await?;
        self.check_meta().await
    }

    fn addresses(&self) -> BTreeMap<String, Addresses> {
        self.plan.addresses.clone()
    }

    fn running(&self) -> Vec<Running> {
        let running = self.nodes.iter().filter(|(_, node)| node.is_up && !node.is_paused);
        let running = running.map(|(name, node)| Running {
            node: name.clone(),
            boot: node.boot,
            resident_bytes: node.resident_bytes(),
            query: node.addresses.query.clone(),
        });
        running.collect()
    }

    fn nemesis(cluster: Rc<RefCell<Self>>, scene: Scene) -> Nemesis {
        Nemesis::new(cluster, scene)
    }
}

/// However a run ends, nothing waits for this any more: it may block.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.was_started {
            return;
        }
        for (name, node) in &self.nodes {
            // What it said, as far as it can still be had.
            if let Ok((out, err)) = docker::output(&words(&["logs", "--timestamps", &node.id], &[])) {
                let _ = std::fs::write(self.dir.join(format!("{name}.log")), out + &err);
            }
        }
        let project = &self.plan.options.project;
        if self.plan.options.keep {
            eprintln!("kept; remove it with `docker compose -p {project} down --volumes`");
        } else {
            let down = self.compose(&["down", "--volumes", "--timeout", "0"]);
            let removed = docker::now(&down).and_then(|_| docker::check_is_free(project));
            // What the engine was still at when the run was interrupted is there only now.
            let removed =
                removed.or_else(|_| docker::now(&down).and_then(|_| docker::check_is_free(project)));
            if let Err(error) = removed {
                eprintln!("project {project} could not be removed: {error}");
            }
        }
    }
}
