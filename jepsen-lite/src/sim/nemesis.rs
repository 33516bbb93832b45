//! Carries out faults on simulated machines, and says what proves that they struck.
//!
//! What a simulation cannot do: stop a process while its clock goes on (`pause`), delay or throttle a link by so much
//! (links that are to be slow are held and released at the end), or let a clock drift (it jumps).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oteld_env::Disk;
use oteld_env::disk::{Fault as DiskFault, On, POINTS};

use super::trace::{Observed, Trace};
use super::world::{DATA_DIR, DISK_BYTES, Machine, World};
use crate::coverage;
use crate::history::event::{FaultBegan, FaultEnded};
use crate::nemesis::fault::{DiskHow, DiskOp, Fault, FaultKind, LinkHow};
use crate::nemesis::schedule::Timed;

/// The kinds of fault that a simulation can do.
pub const KINDS: [FaultKind; 8] = [
    FaultKind::Kill,
    FaultKind::Power,
    FaultKind::Partition,
    FaultKind::Link,
    FaultKind::Disk,
    FaultKind::Clock,
    FaultKind::Wipe,
    FaultKind::Meta,
];

/// Changes of a disk within which a power loss strikes.
const CHANGES_BEFORE_POWER_LOSS: u64 = 12;

/// Operations of a disk that fail after each other, while an I/O fault lasts.
const DISK_FAILURES: u64 = 400;

type Evidence = BTreeMap<String, u64>;

/// Faults in force.
pub(super) struct Nemesis {
    trace: Trace,
    in_force: BTreeMap<u32, InForce>,
}

struct InForce {
    evidence: Evidence,
    /// Nodes that lose power with the first of them that is in the middle of a write, or then at the latest.
    powerless_soon: Option<(Vec<String>, u64)>,
    before: Observed,
    struck_before: u64,
}

impl Nemesis {
    pub(super) fn new(trace: Trace) -> Self {
        Nemesis { trace, in_force: BTreeMap::new() }
    }

    pub(super) fn begin(&mut self, world: &mut World, timed: &Timed) -> FaultBegan {
        self.trace.add(&timed.to_string());
        let fault = &timed.fault;
        let struck_before = match fault {
            Fault::Disk { node, .. } => struck(&world.machines[node]),
            _ => 0,
        };
        let before = self.trace.seen();
        let powerless_soon = match fault {
            Fault::Power { nodes } => {
                self.wait_for_a_write(world, nodes);
                Some((nodes.clone(), timed.at_ms + timed.lasts_ms / 4))
            }
            _ => None,
        };
        let evidence = self.strike(world, fault);
        self.in_force.insert(timed.id, InForce { evidence, powerless_soon, before, struck_before });
        FaultBegan::of(timed, world.sim.elapsed().as_micros() as u64)
    }

    fn strike(&self, world: &mut World, fault: &Fault) -> Evidence {
        let mut evidence = Evidence::new();
        match fault {
            Fault::Kill { nodes } => self.end(world, nodes, &mut evidence, lose_nothing),
            // See `notice_power_loss`.
            Fault::Power { .. } => {}
            Fault::Wipe { node } => {
                self.end(world, std::slice::from_ref(node), &mut evidence, wipe);
            }
            Fault::Disk { node, how: DiskHow::FlipBits { bits } } => {
                let bits = *bits;
                self.end(world, std::slice::from_ref(node), &mut evidence, |machine, evidence| {
                    lose_unsynced(machine, evidence);
                    flip_bits(machine, bits, evidence);
                });
            }
            Fault::Disk { node, how } => hurt_disk(&world.machines[node], *how),
            Fault::CrashAt { node, point, nth } => {
                let known = POINTS.iter().find(|known| *known == point).expect("schedules name known points");
                world.machines[node].disk.arm(known, *nth);
            }
            Fault::Pause { .. } => unreachable!("a simulation has no pauses, and KINDS says so"),
            Fault::Partition { cut, .. } => cut.iter().for_each(|link| world.cut(link)),
            Fault::Link { links, how: LinkHow::Reset | LinkHow::Refuse } => {
                links.iter().for_each(|link| world.cut(link));
            }
            Fault::Link { links, .. } => links.iter().for_each(|link| world.hold(link)),
            Fault::Clock { node, offset_ms, .. } => {
                world.machines[node].clock.set_offset_nanos(offset_ms * 1_000_000);
                evidence.insert(coverage::CLOCK_WRONG.into(), 1);
            }
            Fault::Meta { nodes, pauses: false } => self.end(world, nodes, &mut evidence, lose_nothing),
            Fault::Meta { nodes, pauses: true } => {
                for link in links_of(world, nodes) {
                    world.cut(&link);
                }
            }
        }
        evidence
    }

    /// Ends processes, and does `then` to their machines.
    fn end(
        &self,
        world: &mut World,
        nodes: &[String],
        evidence: &mut Evidence,
        then: impl Fn(&Machine, &mut Evidence),
    ) {
        let leader = self.trace.seen().leader.map(|(_, name)| name);
        for name in nodes {
            if world.machines[name].is_running.get() {
                add(evidence, coverage::KILLED, 1);
                add(evidence, coverage::LEADER_HIT, u64::from(leader.as_ref() == Some(name)));
            }
            world.end_process(name);
            then(&world.machines[name], evidence);
        }
    }

    /// What a simulated process writes it syncs in the same instant: power that goes between two of them finds nothing
    /// unsynced. So it goes in the middle of one.
    fn wait_for_a_write(&self, world: &World, nodes: &[String]) {
        for machine in nodes.iter().map(|name| &world.machines[name]) {
            let after = machine.random.in_range(0..CHANGES_BEFORE_POWER_LOSS);
            machine.disk.inject(On::AnyChange, after, DiskFault::PowerLoss);
        }
    }

    /// The others of a power loss whose first machine is dark, or all of them when none wrote anything for long.
    fn finish_power_losses(&mut self, world: &mut World) {
        let now_ms = world.sim.elapsed().as_millis() as u64;
        let ids: Vec<u32> = self.in_force.keys().copied().collect();
        for id in ids {
            let in_force = self.in_force.get_mut(&id).expect("nobody else ends faults");
            let Some((nodes, until_ms)) = in_force.powerless_soon.take() else { continue };
            let is_dark = nodes.iter().any(|name| world.machines[name].disk.is_powerless());
            if !is_dark && now_ms < until_ms {
                in_force.powerless_soon = Some((nodes, until_ms));
                continue;
            }
            let mut evidence = Evidence::new();
            self.end(world, &nodes, &mut evidence, lose_unsynced);
            let in_force = self.in_force.get_mut(&id).expect("nobody else ends faults");
            evidence.iter().for_each(|(what, count)| add(&mut in_force.evidence, what, *count));
        }
    }

    /// A machine whose power is gone: its process ends too.
    pub(super) fn notice_power_loss(&mut self, world: &mut World, schedule: &[Timed]) {
        self.finish_power_losses(world);
        let dark = world.machines.values().filter(|machine| machine.disk.is_powerless());
        let dark: Vec<String> = dark.map(|machine| machine.name.clone()).collect();
        for name in dark {
            let mut evidence = Evidence::new();
            self.trace.add(&format!("the power of {name} is gone"));
            self.end(world, std::slice::from_ref(&name), &mut evidence, lose_unsynced);
            add(&mut evidence, coverage::POINT_HIT, 1);
            let armed = schedule.iter().find(|timed| {
                self.in_force.contains_key(&timed.id)
                    && matches!(&timed.fault, Fault::CrashAt { node, .. } if *node == name)
            });
            let Some(in_force) = armed.and_then(|timed| self.in_force.get_mut(&timed.id)) else { continue };
            evidence.iter().for_each(|(what, count)| add(&mut in_force.evidence, what, *count));
        }
    }

    pub(super) fn finish(&mut self, world: &mut World, timed: &Timed) -> FaultEnded {
        let InForce { mut evidence, before, struck_before, .. } =
            self.in_force.remove(&timed.id).expect("a fault ends once, after it began");
        self.trace.add(&format!("end of {timed}"));
        let mut held = |links: &[(String, String)], what: &str, world: &World| {
            let now = self.trace.seen();
            let count =
                |seen: &Observed, link: &(IpAddr, IpAddr)| seen.held_back.get(link).copied().unwrap_or(0);
            let links = links.iter().map(|(from, to)| (world.address(from), world.address(to)));
            let sum: u64 = links.map(|link| count(&now, &link) - count(&before, &link)).sum();
            add(&mut evidence, what, sum);
        };
        match &timed.fault {
            Fault::Partition { cut, .. } => {
                held(cut, coverage::HELD_BACK, world);
                cut.iter().for_each(|link| world.mend(link));
            }
            Fault::Link { links, how } => {
                held(links, coverage::DELAYED, world);
                match how {
                    LinkHow::Reset | LinkHow::Refuse => links.iter().for_each(|link| world.mend(link)),
                    _ => links.iter().for_each(|link| world.release(link)),
                }
            }
            Fault::Clock { node, .. } => world.machines[node].clock.set_offset_nanos(0),
            Fault::Disk { node, how } => {
                let machine = world.machines[node].clone();
                let struck = struck(&machine) - struck_before;
                machine.disk.clear_faults();
                machine.work.slow_by(Duration::ZERO);
                machine.disk.set_capacity_bytes(DISK_BYTES);
                add(&mut evidence, coverage::DISK_STRUCK, struck);
                // Whoever changed the disk does that.
                if how.needs_restart() && struck > 0 && machine.is_running.get() {
                    world.end_process(node);
                    machine.disk.kill();
                }
                start_again(world, node);
            }
            Fault::Meta { nodes, pauses } => {
                // A majority that does not run, or that nobody hears, has no leader.
                let links = if *pauses { links_of(world, nodes) } else { Vec::new() };
                if *pauses {
                    held(&links, coverage::LEADERLESS, world);
                } else {
                    let killed = evidence.get(coverage::KILLED).copied().unwrap_or(0);
                    add(&mut evidence, coverage::LEADERLESS, killed);
                }
                links.iter().for_each(|link| world.mend(link));
                nodes.iter().for_each(|node| start_again(world, node));
            }
            Fault::CrashAt { node, .. } => {
                world.machines[node].disk.disarm();
                start_again(world, node);
            }
            fault => fault.nodes().iter().for_each(|node| start_again(world, node)),
        }
        FaultEnded { id: timed.id, at_us: world.sim.elapsed().as_micros() as u64, evidence }
    }
}

fn add(evidence: &mut Evidence, what: &str, count: u64) {
    *evidence.entry(what.to_owned()).or_default() += count;
}

/// Operations of a machine's disk that failed or were slow so far.
fn struck(machine: &Machine) -> u64 {
    machine.disk.struck() + machine.work.slowed()
}

fn start_again(world: &mut World, node: &str) {
    if !world.machines[node].is_running.get() {
        world.start_process(node);
    }
}

/// SIGKILL: what the kernel has stays. Nothing of a process is in the simulated Raft log.
fn lose_nothing(machine: &Machine, _: &mut Evidence) {
    machine.disk.kill();
}

fn lose_unsynced(machine: &Machine, evidence: &mut Evidence) {
    machine.disk.crash();
    machine.log.crash(&machine.random);
    add(evidence, coverage::UNSYNCED_BYTES, machine.disk.lost().unsynced.bytes);
}

/// Removes every file of the store that the machine writes to.
fn wipe(machine: &Machine, evidence: &mut Evidence) {
    lose_unsynced(machine, &mut Evidence::new());
    let store = current_store(machine);
    let mut removed = 0;
    for dir in [store.join("wal"), store.join("segments"), store] {
        // A machine that had not started yet has no such directory.
        for file in machine.disk.list(&dir).unwrap_or_default() {
            machine.disk.remove_file(&file).expect("a listed file of a disk without faults can be removed");
            removed += 1;
        }
        let _ = machine.disk.sync_dir(&dir);
    }
    add(evidence, coverage::WIPED, u64::from(removed > 0));
}

/// The store's directory with the highest number: earlier ones were set aside.
fn current_store(machine: &Machine) -> PathBuf {
    let data = Path::new(DATA_DIR);
    let numbered = (2..10).rev().map(|number| data.join(format!("store-{number}")));
    let mut numbered = numbered.filter(|dir| machine.disk.list(&dir.join("wal")).is_ok());
    numbered.next().unwrap_or_else(|| data.join("store"))
}

fn flip_bits(machine: &Machine, bits: u32, evidence: &mut Evidence) {
    let store = current_store(machine);
    let dirs = [store.join("segments"), store.join("wal")];
    let files: Vec<PathBuf> =
        dirs.iter().flat_map(|dir| machine.disk.list(dir).unwrap_or_default()).collect();
    if files.is_empty() {
        return;
    }
    for _ in 0..bits {
        let file = &files[machine.random.in_range(0..files.len() as u64) as usize];
        let len = machine.disk.open(file, false).and_then(|open| open.len()).unwrap_or(0);
        if len > 0 {
            let (offset, bit) = (machine.random.in_range(0..len), machine.random.in_range(0..8) as u8);
            let flipped = machine.disk.flip_bit(file, offset, bit);
            add(evidence, coverage::BITS_FLIPPED, u64::from(flipped.is_ok()));
        }
    }
}

fn hurt_disk(machine: &Machine, how: DiskHow) {
    let disk = &machine.disk;
    let repeat = |on: On| (0..DISK_FAILURES).for_each(|after| disk.inject(on, after, DiskFault::Io));
    match how {
        DiskHow::Eio { on: DiskOp::Read } => repeat(On::Read),
        DiskHow::Eio { on: DiskOp::Write } => repeat(On::Write),
        DiskHow::Eio { on: DiskOp::Sync } => repeat(On::Sync),
        DiskHow::FailedSync => disk.inject(On::Sync, 0, DiskFault::Io),
        DiskHow::Slow { ms } => machine.work.slow_by(Duration::from_millis(ms)),
        DiskHow::NoSpace => disk.set_capacity_bytes(0),
        DiskHow::FlipBits { .. } => unreachable!("bits flip on machines that are off"),
    }
}

/// All links of these nodes to others, both ways.
fn links_of(world: &World, nodes: &[String]) -> Vec<(String, String)> {
    let others: Vec<&String> = world.machines.keys().collect();
    let pairs =
        nodes.iter().flat_map(|node| others.iter().map(move |other| (node.clone(), (*other).clone())));
    let pairs = pairs.filter(|(a, b)| a != b);
    pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect()
}
