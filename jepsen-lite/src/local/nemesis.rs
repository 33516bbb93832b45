//! Carries faults out on processes and proxies, and collects what proves that they struck.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use oteld_env::Random;
use oteld_env::faults::{FaultCommand, FaultStats};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::control::{self, ControlError};
use super::flip::flip;
use super::link::{Counts, Rule};
use crate::coverage;
use crate::driver::sample::Seen;
use crate::driver::{self, Scene, rows_read_back};
use crate::history::event::{Died, Event, FaultBegan, FaultEnded};
use crate::history::recorder::Recorder;
use crate::nemesis::fault::{DiskHow, Fault, Link, LinkHow};
use crate::nemesis::schedule::Timed;
use crate::timeline::Timeline;

/// How long a power loss waits for something unsynced before it strikes all the same.
const UNSYNCED_WAIT: Duration = Duration::from_secs(1);

/// An end this soon after a fault of the node's disk comes from it.
const AFTERMATH_US: u64 = 5_000_000;

/// The faults in force on a cluster.
pub(crate) struct Nemesis {
    cluster: Rc<RefCell<Cluster>>,
    timeline: Timeline,
    recorder: Recorder,
    seen: Rc<RefCell<Seen>>,
    random: Random,
    active: BTreeMap<u32, Active>,
    /// Nodes whose process does not know yet which faults are in force.
    unsettled: BTreeSet<String>,
    /// Storage nodes that did not say yet what they read back.
    starting: BTreeSet<String>,
    /// When a node's disk failed last.
    disk_failed_us: BTreeMap<String, u64>,
    has_destroyed: bool,
    /// What could not be done, in words.
    notes: Vec<String>,
}

struct Active {
    timed: Timed,
    evidence: BTreeMap<&'static str, u64>,
    links: Vec<Link>,
    links_before: Counts,
    since: Instant,
    /// Boot of the node, and how often its disk had struck when the fault began or the process started.
    struck_before: (u32, u64),
    /// A fault that strikes once has been commanded.
    is_spent: bool,
}

impl Active {
    fn count(&mut self, what: &'static str, count: u64) {
        *self.evidence.entry(what).or_default() += count;
    }

    /// What the node's process has to be told, as long as the fault is in force.
    fn command(&self) -> Option<FaultCommand> {
        match &self.timed.fault {
            Fault::Clock { offset_ms, drift_ppm, .. } => {
                Some(FaultCommand::Clock { offset_ms: *offset_ms, drift_ppm: *drift_ppm })
            }
            Fault::CrashAt { point, nth, .. } => {
                Some(FaultCommand::CrashAt { point: point.clone(), nth: *nth })
            }
            Fault::Disk { how: DiskHow::FailedSync, .. } if self.is_spent => None,
            Fault::Disk { how, .. } => control::disk(*how),
            _ => None,
        }
    }
}

impl Nemesis {
    pub(super) fn new(cluster: Rc<RefCell<Cluster>>, scene: Scene) -> Self {
        let Scene { timeline, recorder, seen, seed } = scene;
        Nemesis {
            cluster,
            timeline,
            recorder,
            seen,
            random: Random::from_seed(seed),
            active: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            starting: BTreeSet::new(),
            disk_failed_us: BTreeMap::new(),
            has_destroyed: false,
            notes: Vec::new(),
        }
    }

    /// Does what is done at the beginning, other than commands to a process.
    async fn strike(&mut self, active: &mut Active) -> Result<(), String> {
        let (id, fault) = (active.timed.id, active.timed.fault.clone());
        if fault.stops_nodes() || matches!(fault, Fault::Partition { .. }) {
            let leader = self.seen.borrow().leader.clone();
            let led = leader.is_some_and(|leader| fault.nodes().contains(&leader));
            active.count(coverage::LEADER_HIT, u64::from(led));
        }
        match &fault {
            Fault::Kill { nodes } | Fault::Meta { nodes, pauses: false } => self.kill(active, nodes),
            Fault::Power { nodes } => {
                let bytes = self.in_a_sync(nodes).await;
                self.kill(active, nodes);
                active.count(coverage::UNSYNCED_BYTES, bytes);
            }
            Fault::Pause { node } => self.pause(active, std::slice::from_ref(node))?,
            Fault::Meta { nodes, pauses: true } => self.pause(active, nodes)?,
            Fault::Partition { cut, .. } => {
                let rule = Rule { cut: true, ..Rule::default() };
                self.cluster.borrow().mesh.impose(id, cut, rule);
            }
            Fault::Link { links, how } => self.cluster.borrow().mesh.impose(id, links, rule_of(*how)),
            Fault::Wipe { node } => {
                self.kill(active, std::slice::from_ref(node));
                let bytes = self.cluster.borrow_mut().node(node)?.wipe();
                let bytes = bytes.map_err(|error| format!("cannot remove the store: {error}"))?;
                active.count(coverage::WIPED, u64::from(bytes > 0));
            }
            Fault::Disk { node, how: DiskHow::FlipBits { bits } } => {
                self.kill(active, std::slice::from_ref(node));
                let files = self.cluster.borrow_mut().node(node)?.store_files();
                let flipped = files.and_then(|files| flip(&self.random, &files, *bits));
                let flipped = flipped.map_err(|error| format!("cannot flip bits: {error}"))?;
                active.count(coverage::BITS_FLIPPED, flipped);
            }
            Fault::Disk { node, .. } => {
                active.struck_before = match self.stats(node).await {
                    Ok((boot, stats)) => (boot, control::disk_struck(stats.struck)),
                    Err(_) => (0, 0),
                };
            }
            Fault::Clock { .. } | Fault::CrashAt { .. } => {}
        }
        Ok(())
    }

    fn kill(&self, active: &mut Active, nodes: &[String]) {
        active.count(coverage::KILLED, self.end_processes(nodes));
    }

    /// SIGKILL to all that run; says how many.
    fn end_processes(&self, nodes: &[String]) -> u64 {
        let mut cluster = self.cluster.borrow_mut();
        let mut running = Vec::new();
        for name in nodes {
            let Some(node) = cluster.nodes.get_mut(name) else { continue };
            if let Some(status) = node.ended() {
                let (at_us, how) = (self.timeline.now_us(), status.to_string());
                self.recorder.record(Event::Died(Died { at_us, node: name.clone(), how }));
            }
            if node.runs() {
                running.push(name);
            }
        }
        // All at the same moment, and only then is waited for their ends.
        running.iter().for_each(|name| cluster.nodes[*name].strike());
        for name in nodes {
            if let Some(node) = cluster.nodes.get_mut(name) {
                node.reap();
            }
        }
        running.len() as u64
    }

    fn pause(&self, active: &mut Active, nodes: &[String]) -> Result<(), String> {
        let mut cluster = self.cluster.borrow_mut();
        for name in nodes {
            cluster.node(name)?.pause()?;
        }
        active.since = Instant::now();
        Ok(())
    }

    /// Makes syncs slow and waits until one holds something back that a power loss would lose; says how many bytes that
    /// is.
    async fn in_a_sync(&self, nodes: &[String]) -> u64 {
        for name in nodes {
            let Ok(socket) = self.cluster.borrow_mut().node(name).map(|node| node.control.clone()) else {
                continue;
            };
            let slow = DiskHow::Slow { ms: 2 * UNSYNCED_WAIT.as_millis() as u64 };
            // Who does not answer now has no sync to be struck in either.
            let _ = control::tell(&socket, control::disk(slow).as_slice()).await;
        }
        let deadline = Instant::now() + UNSYNCED_WAIT;
        while Instant::now() < deadline {
            let mut answered = false;
            for name in nodes {
                let Ok((_, stats)) = self.stats(name).await else { continue };
                answered = true;
                if stats.unsynced_bytes > 0 {
                    return stats.unsynced_bytes;
                }
            }
            if !answered {
                break;
            }
        }
        0
    }

    /// Boot of the node, and what its process has felt.
    async fn stats(&self, name: &str) -> Result<(u32, FaultStats), String> {
        let (boot, socket) = {
            let mut cluster = self.cluster.borrow_mut();
            let node = cluster.node(name)?;
            if !node.runs() {
                return Err(format!("{name} does not run"));
            }
            (node.boot, node.control.clone())
        };
        let stats = control::stats(&socket).await.map_err(|error| error.to_string())?;
        Ok((boot, stats))
    }

    fn undo(&mut self, active: &mut Active) -> Result<(), String> {
        let fault = active.timed.fault.clone();
        match &fault {
            Fault::Partition { .. } | Fault::Link { .. } => {
                let counts = {
                    let cluster = self.cluster.borrow();
                    cluster.mesh.lift(active.timed.id);
                    cluster.mesh.counts(&active.links).since(active.links_before)
                };
                if matches!(fault, Fault::Partition { .. }) {
                    active.count(coverage::HELD_BACK, counts.held_back);
                } else {
                    active.count(coverage::DELAYED, counts.delayed);
                    active.count(coverage::RESET, counts.reset);
                }
            }
            Fault::Pause { .. } | Fault::Meta { pauses: true, .. } => {
                for name in fault.nodes() {
                    let mut cluster = self.cluster.borrow_mut();
                    let node = cluster.node(&name)?;
                    if node.is_stopped() {
                        active.count(coverage::PAUSED_MS, active.since.elapsed().as_millis() as u64);
                    }
                    node.go_on()?;
                }
            }
            _ => {}
        }
        if !active.evidence.contains_key(coverage::POINT_HIT) && matches!(fault, Fault::CrashAt { .. }) {
            // What would have been lost.
            active.evidence.remove(coverage::UNSYNCED_BYTES);
        }
        let has_struck = active.evidence.get(coverage::DISK_STRUCK).is_some_and(|struck| *struck > 0);
        if has_struck && matches!(&fault, Fault::Disk { how, .. } if how.needs_restart()) {
            // Whoever changed the disk does that.
            self.end_processes(&fault.nodes());
        }
        if fault.stops_nodes() || matches!(fault, Fault::Disk { .. }) {
            for name in fault.nodes() {
                self.start(&name)?;
            }
        }
        Ok(())
    }

    /// Starts a node that has no process.
    fn start(&mut self, name: &str) -> Result<(), String> {
        let mut cluster = self.cluster.borrow_mut();
        let node = cluster.node(name)?;
        if node.pid().is_some() {
            return Ok(());
        }
        node.start()?;
        self.unsettled.insert(name.to_owned());
        if node.is_storage {
            self.starting.insert(name.to_owned());
        }
        Ok(())
    }

    fn notice_ends(&mut self) {
        let mut ended = Vec::new();
        for (name, node) in &mut self.cluster.borrow_mut().nodes {
            if let Some(status) = node.ended() {
                ended.push((name.clone(), status.to_string()));
            }
        }
        for (name, how) in ended {
            let strikes = |active: &&mut Active| active.timed.fault.nodes().contains(&name);
            let mut by_fault = false;
            for active in self.active.values_mut().filter(strikes) {
                match &active.timed.fault {
                    Fault::CrashAt { .. } => {
                        active.count(coverage::POINT_HIT, 1);
                        active.count(coverage::KILLED, 1);
                        by_fault = true;
                    }
                    // It gave up because of its disk, and starts again when the disk is well.
                    Fault::Disk { .. } => by_fault = true,
                    _ => {}
                }
            }
            if by_fault {
                continue;
            }
            let at_us = self.timeline.now_us();
            let failed_us = self.disk_failed_us.get(&name);
            if failed_us.is_none_or(|failed_us| at_us > failed_us + AFTERMATH_US) {
                self.recorder.record(Event::Died(Died { at_us, node: name.clone(), how }));
            }
            if let Err(error) = self.start(&name) {
                self.notes.push(error);
            }
        }
    }

    /// How many rows the nodes that started read back from their logs.
    fn read_logs(&mut self) {
        let (cluster, recorder) = (self.cluster.borrow(), &self.recorder);
        self.starting.retain(|name| {
            let Some(node) = cluster.nodes.get(name).filter(|node| node.pid().is_some()) else {
                return false;
            };
            match rows_read_back(&node.output()) {
                Some(rows) => {
                    recorder.add(coverage::REPLAYED_ROWS, rows);
                    false
                }
                None => true,
            }
        });
    }

    /// Tells processes which faults are in force. One that does not answer is told again later.
    async fn settle(&mut self) {
        for name in std::mem::take(&mut self.unsettled) {
            let of_node = |active: &&mut Active| active.timed.fault.nodes().contains(&name);
            let commands: Vec<FaultCommand> =
                self.active.values_mut().filter(of_node).filter_map(|active| active.command()).collect();
            let socket = {
                let cluster = self.cluster.borrow();
                cluster.nodes.get(&name).filter(|node| node.runs()).map(|node| node.control.clone())
            };
            // One that does not run is told when it does.
            let Some(socket) = socket else { continue };
            let all: Vec<FaultCommand> = std::iter::once(FaultCommand::Heal).chain(commands).collect();
            match control::tell(&socket, &all).await {
                Ok(()) => self.active.values_mut().filter(of_node).for_each(|active| active.is_spent = true),
                Err(ControlError::Refused(error)) => self.notes.push(format!("{name}: {error}")),
                Err(ControlError::Silent(_)) => {
                    self.unsettled.insert(name);
                }
            }
        }
    }

    /// A look at which no meta member that a fault is to stop was running: there is no majority, whatever nodes think.
    fn look_for_leaders(&mut self) {
        let cluster = self.cluster.borrow();
        for active in self.active.values_mut() {
            let Fault::Meta { nodes, .. } = &active.timed.fault else { continue };
            let stopped = |name: &String| {
                cluster.nodes.get(name).is_some_and(|node| node.pid().is_none() || node.is_stopped())
            };
            if nodes.iter().all(stopped) {
                active.count(coverage::LEADERLESS, 1);
            }
        }
    }

    /// Asks processes for what proves that faults in force strike.
    async fn look(&mut self) {
        self.look_for_leaders();
        let watched = |fault: &Fault| match fault {
            Fault::Clock { node, .. } => Some(node.clone()),
            Fault::Disk { node, how } if control::disk(*how).is_some() => Some(node.clone()),
            Fault::CrashAt { node, .. } => Some(node.clone()),
            _ => None,
        };
        let watched: Vec<(u32, String)> = (self.active.iter())
            .filter_map(|(id, active)| Some((*id, watched(&active.timed.fault)?)))
            .collect();
        for (id, name) in watched {
            let Ok((boot, stats)) = self.stats(&name).await else { continue };
            let Some(active) = self.active.get_mut(&id) else { continue };
            if matches!(active.timed.fault, Fault::Clock { .. }) {
                if stats.clock_offset_ms != 0 {
                    active.evidence.insert(coverage::CLOCK_WRONG, 1);
                }
                continue;
            }
            if matches!(active.timed.fault, Fault::CrashAt { .. }) {
                // As of the last look before the point.
                active.evidence.insert(coverage::UNSYNCED_BYTES, stats.unsynced_bytes);
                continue;
            }
            if active.struck_before.0 != boot {
                active.struck_before = (boot, 0);
            }
            let struck = control::disk_struck(stats.struck).saturating_sub(active.struck_before.1);
            let most = active.evidence.entry(coverage::DISK_STRUCK).or_default();
            *most = struck.max(*most);
        }
    }
}

impl driver::Nemesis for Nemesis {
    async fn begin(&mut self, timed: &Timed) {
        let fault = &timed.fault;
        if fault.destroys() {
            if self.has_destroyed && !self.seen.borrow().is_whole {
                self.notes
                    .push(format!("#{} left out, because the cluster is not whole again: {fault}", timed.id));
                return;
            }
            self.has_destroyed = true;
        }
        let links = match fault {
            Fault::Partition { cut, .. } => cut.clone(),
            Fault::Link { links, .. } => links.clone(),
            _ => Vec::new(),
        };
        let mut active = Active {
            timed: timed.clone(),
            evidence: BTreeMap::new(),
            links_before: self.cluster.borrow().mesh.counts(&links),
            links,
            since: Instant::now(),
            struck_before: (0, 0),
            is_spent: false,
        };
        self.recorder.record(Event::FaultBegan(FaultBegan::of(timed, self.timeline.now_us())));
        if let Err(error) = self.strike(&mut active).await {
            self.notes.push(format!("#{} {fault}: {error}", timed.id));
        }
        let node = timed.fault.nodes().into_iter().next().unwrap_or_default();
        let has_command = active.command().is_some();
        self.active.insert(timed.id, active);
        if has_command {
            self.unsettled.insert(node);
            self.settle().await;
        }
    }

    async fn end(&mut self, id: u32) {
        // For a fault that was left out there is nothing to end.
        if !self.active.contains_key(&id) {
            return;
        }
        self.look().await;
        let Some(mut active) = self.active.remove(&id) else { return };
        if let Err(error) = self.undo(&mut active) {
            self.notes.push(format!("#{id} {}: {error}", active.timed.fault));
        }
        let at_us = self.timeline.now_us();
        if matches!(active.timed.fault, Fault::Disk { .. }) {
            self.disk_failed_us.extend(active.timed.fault.nodes().into_iter().map(|node| (node, at_us)));
        }
        let had_command = active.command().is_some() || active.is_spent;
        self.recorder.record(Event::FaultEnded(FaultEnded::new(id, at_us, active.evidence)));
        if had_command {
            self.unsettled.extend(active.timed.fault.nodes());
            self.settle().await;
        }
    }

    async fn tick(&mut self) {
        self.notice_ends();
        self.read_logs();
        self.settle().await;
        self.look().await;
    }

    async fn heal(&mut self) {
        let ids: Vec<u32> = self.active.keys().copied().collect();
        for id in ids {
            self.end(id).await;
        }
        let names: Vec<String> = self.cluster.borrow().nodes.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.start(&name) {
                self.notes.push(error);
            }
        }
        self.tick().await;
    }

    fn in_force(&self) -> Vec<String> {
        self.active.values().map(|active| active.timed.fault.to_string()).collect()
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

fn rule_of(how: LinkHow) -> Rule {
    let pass = Rule::default();
    match how {
        LinkHow::Delay { ms } => Rule { delay_ms: ms, ..pass },
        LinkHow::Throttle { bytes_per_second } => Rule { bytes_per_second: Some(bytes_per_second), ..pass },
        LinkHow::Reset => Rule { reset: true, ..pass },
        LinkHow::Refuse => Rule { refuse: true, ..pass },
        LinkHow::Hold => Rule { hold: true, ..pass },
    }
}
