//! Carries faults out on containers, and collects what proves that they struck. What the engine says of a container
//! counts, and not that a command succeeded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::container::Container;
use super::hands::Hands;
use super::witness::{Testimony, Witness};
use crate::coverage;
use crate::driver::sample::Seen;
use crate::driver::{self, Scene, rows_read_back};
use crate::history::event::{Died, Event, FaultBegan, FaultEnded};
use crate::history::recorder::Recorder;
use crate::nemesis::fault::{Fault, Link, Shape};
use crate::nemesis::schedule::Timed;
use crate::timeline::Timeline;

/// Between two looks at all containers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The faults in force on containers.
pub(super) struct Nemesis {
    hands: Hands,
    timeline: Timeline,
    recorder: Recorder,
    seen: Rc<RefCell<Seen>>,
    active: BTreeMap<u32, Active>,
    /// Storage nodes that did not say yet what they read back.
    starting: BTreeSet<String>,
    witness: Witness,
    looked: Instant,
    /// Whether no fault shall be left of any container.
    is_healing: bool,
    /// What could not be done, in words.
    notes: Vec<String>,
}

struct Active {
    timed: Timed,
    evidence: BTreeMap<&'static str, u64>,
    /// When it was in force for certain.
    since: Instant,
    /// The node without a network.
    isolated: Option<String>,
}

impl Nemesis {
    pub(super) fn new(cluster: Rc<RefCell<Cluster>>, scene: Scene) -> Self {
        Nemesis {
            hands: Hands::new(cluster),
            timeline: scene.timeline,
            recorder: scene.recorder,
            seen: scene.seen,
            active: BTreeMap::new(),
            starting: BTreeSet::new(),
            witness: Witness::default(),
            looked: Instant::now(),
            is_healing: false,
            notes: Vec::new(),
        }
    }

    /// Does what is done at the beginning.
    async fn strike(&mut self, active: &mut Active) -> Result<(), String> {
        let leader = self.seen.borrow().leader.clone();
        let led = leader.is_some_and(|leader| active.struck().contains(&leader));
        let fault = active.timed.fault.clone();
        match &fault {
            Fault::Kill { nodes } | Fault::Meta { nodes, pauses: false } => self.kill(active, nodes).await?,
            Fault::Pause { .. } | Fault::Meta { pauses: true, .. } => {
                self.hands.pause(&fault.nodes()).await?
            }
            Fault::Partition { .. } => match &active.isolated {
                Some(node) => self.hands.disconnect(node).await?,
                None => return Err("the compose driver cannot cut single links, use --driver local".into()),
            },
            _ => return Err("the compose driver cannot do that, use --driver local".into()),
        }
        active.since = Instant::now();
        active.count(coverage::LEADER_HIT, u64::from(led));
        Ok(())
    }

    /// It counts what ran before, and ended by SIGKILL and not by itself.
    async fn kill(&mut self, active: &mut Active, nodes: &[String]) -> Result<(), String> {
        let before = self.hands.inspect(nodes).await?;
        for (name, container) in &before {
            self.notice_end(name, container);
            self.hands.with(name, |node| node.is_up = false);
        }
        let running = before.into_iter().filter(|(_, container)| container.runs()).collect();
        for (name, was, is) in self.hands.kill(running).await? {
            if was.state.started_at == is.state.started_at && is.was_killed() {
                active.count(coverage::KILLED, 1);
            } else {
                self.notes.push(format!("{name} was not killed: {}", is.how_it_ended()));
            }
        }
        Ok(())
    }

    /// Records an end that no fault brought about; says whether there was one.
    fn notice_end(&self, name: &str, container: &Container) -> bool {
        let was_up = |node: &mut super::cluster::Node| std::mem::take(&mut node.is_up);
        let ended = container.is_gone() && self.hands.with(name, was_up) == Some(true);
        if ended {
            let (at_us, how) = (self.timeline.now_us(), container.how_it_ended());
            self.recorder.record(Event::Died(Died { at_us, node: name.to_owned(), how }));
        }
        ended
    }

    /// Does what is done at the end.
    async fn undo(&mut self, active: &mut Active) -> Result<(), String> {
        let nodes = active.timed.fault.nodes();
        match &active.timed.fault {
            Fault::Kill { .. } | Fault::Meta { pauses: false, .. } => self.start(&nodes).await,
            Fault::Pause { .. } | Fault::Meta { pauses: true, .. } => {
                let is = self.hands.inspect(&nodes).await?;
                let paused = is.iter().filter(|(_, container)| container.state.paused).count() as u64;
                active.count(coverage::PAUSED_MS, paused * active.since.elapsed().as_millis() as u64);
                self.hands.unpause(&nodes).await
            }
            Fault::Partition { .. } => {
                let Some(node) = &active.isolated else { return Ok(()) };
                if self.active.values().any(|other| other.isolated.as_ref() == Some(node)) {
                    return Ok(());
                }
                let is = self.hands.inspect(std::slice::from_ref(node)).await?.remove(0).1;
                self.hands.reconnect(node, &is).await
            }
            _ => Ok(()),
        }
    }

    async fn start(&mut self, nodes: &[String]) -> Result<(), String> {
        self.starting.extend(self.hands.start(nodes).await?);
        Ok(())
    }

    /// Looks at all containers: who ended by itself, and what proves the faults in force.
    async fn look(&mut self) {
        self.looked = Instant::now();
        let testimony = if self.witness.has_answered() { self.witness.answer().await } else { None };
        let containers: BTreeMap<String, Container> = match self.hands.inspect(&self.hands.names()).await {
            Ok(containers) => containers.into_iter().collect(),
            Err(error) => return self.notes.push(error),
        };
        let ended = containers.iter().filter(|(name, container)| self.notice_end(name, container));
        let ended: Vec<String> = ended.map(|(name, _)| name.clone()).collect();
        for active in self.active.values_mut() {
            active.look(&containers, testimony.as_ref());
        }
        if let Err(error) = self.start(&ended).await {
            self.notes.push(error);
        }
        self.read_logs().await;
        if self.is_healing {
            self.mend(&containers).await;
        }
        self.call_witness(&containers);
    }

    /// Asks a front that is in its network, as long as a node is without.
    fn call_witness(&mut self, containers: &BTreeMap<String, Container>) {
        let isolated = self.active.values().any(|active| active.isolated.is_some());
        if !isolated || self.witness.is_asked() {
            return;
        }
        let hears = |name: &str| {
            let container = containers.get(name);
            container.is_some_and(|container| container.runs() && !container.is_isolated())
        };
        if let Some(query) = self.hands.hearing_front(hears) {
            self.witness.ask(query);
        }
    }

    /// How many rows the nodes that started read back from their logs.
    async fn read_logs(&mut self) {
        for name in std::mem::take(&mut self.starting) {
            let Some(log) = self.hands.log(&name).await else { continue };
            match rows_read_back(&log) {
                Some(rows) => self.recorder.add(coverage::REPLAYED_ROWS, rows),
                None => drop(self.starting.insert(name)),
            }
        }
    }

    /// Takes away what a fault left of itself, where its end failed.
    async fn mend(&mut self, containers: &BTreeMap<String, Container>) {
        for (name, container) in containers {
            let nodes = std::slice::from_ref(name);
            let mut mended = self.start(nodes).await;
            if mended.is_ok() && container.state.paused {
                mended = self.hands.unpause(nodes).await;
            }
            if mended.is_ok() {
                mended = self.hands.reconnect(name, container).await;
            }
            if let Err(error) = mended {
                self.notes.push(format!("{name} is not healed yet: {error}"));
            }
        }
    }
}

impl Active {
    fn count(&mut self, what: &'static str, count: u64) {
        *self.evidence.entry(what).or_default() += count;
    }

    /// The nodes that do not go on as others do.
    fn struck(&self) -> Vec<String> {
        match &self.isolated {
            Some(node) => vec![node.clone()],
            None => self.timed.fault.nodes(),
        }
    }

    /// Counts what containers and a front say in favour of it.
    fn look(&mut self, containers: &BTreeMap<String, Container>, testimony: Option<&Testimony>) {
        if let Fault::Meta { nodes, .. } = &self.timed.fault {
            let stopped = |name: &String| containers.get(name).is_some_and(|container| !container.runs());
            // No majority, whatever nodes think.
            let leaderless = nodes.iter().all(stopped);
            self.count(coverage::LEADERLESS, u64::from(leaderless));
        }
        let (Some(node), Some(testimony)) = (&self.isolated, testimony) else { return };
        // Cut off before the question and after the answer, by a process that could answer if it were not.
        let is_cut =
            containers.get(node).is_some_and(|container| container.runs() && container.is_isolated());
        if is_cut && testimony.asked >= self.since && testimony.silent.contains(node) {
            self.count(coverage::HELD_BACK, 1);
        }
    }
}

impl driver::Nemesis for Nemesis {
    async fn begin(&mut self, timed: &Timed) {
        let fault = &timed.fault;
        let isolated = match fault {
            Fault::Partition { shape: Shape::Single, cut } => isolated(cut),
            _ => None,
        };
        let (evidence, since) = (BTreeMap::new(), Instant::now());
        let mut active = Active { timed: timed.clone(), evidence, since, isolated };
        self.recorder.record(Event::FaultBegan(FaultBegan::of(timed, self.timeline.now_us())));
        if let Err(error) = self.strike(&mut active).await {
            self.notes.push(format!("#{} {fault}: {error}", timed.id));
        }
        self.active.insert(timed.id, active);
        // A short partition has no time to lose for its proof.
        if matches!(fault, Fault::Partition { .. }) {
            self.look().await;
        }
    }

    async fn end(&mut self, id: u32) {
        self.look().await;
        let Some(mut active) = self.active.remove(&id) else { return };
        if let Err(error) = self.undo(&mut active).await {
            self.notes.push(format!("#{id} {}: {error}", active.timed.fault));
        }
        let at_us = self.timeline.now_us();
        self.recorder.record(Event::FaultEnded(FaultEnded::new(id, at_us, active.evidence)));
    }

    async fn tick(&mut self) {
        if self.witness.has_answered() || self.looked.elapsed() >= LOOK_EVERY {
            self.look().await;
        }
    }

    async fn heal(&mut self) {
        let ids: Vec<u32> = self.active.keys().copied().collect();
        for id in ids {
            self.end(id).await;
        }
        self.is_healing = true;
        self.look().await;
    }

    fn in_force(&self) -> Vec<String> {
        self.active.values().map(|active| active.timed.fault.to_string()).collect()
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

/// The node that a partition cuts from all others: it is at an end of every link.
fn isolated(cut: &[Link]) -> Option<String> {
    let (first, second) = cut.first()?;
    let at_every = |node: &&String| cut.iter().all(|(from, to)| from == *node || to == *node);
    [first, second].into_iter().find(at_every).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::partition;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("n{number}")).collect()
    }

    #[test]
    fn the_node_that_is_alone_is_found() {
        for count in 2..6 {
            assert_eq!(isolated(&partition::cut(Shape::Single, &names(count))).as_deref(), Some("n0"));
        }
        assert_eq!(isolated(&partition::cut(Shape::Halves, &names(4))), None);
        assert_eq!(isolated(&[]), None);
    }
}
