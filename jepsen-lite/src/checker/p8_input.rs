//! P8 input cannot hurt: what must be refused is refused with the right status and a reason, and no process dies.
//!
//! Proves it of the kinds of input that probes send. A server error or no answer counts only where no fault was in
//! force or just over. A process that died by itself counts unless a fault was in force that explains it: one that
//! ends processes, or one that strikes the disk of that very node.

use super::faults::AFTERMATH_US;
use super::words::{front, seconds};
use super::{Found, Promise, Scene};
use crate::history::event::{Died, Probe};
use crate::nemesis::fault::FaultKind;

pub(crate) fn probe(probe: &Probe, scene: &Scene, found: &mut Found) {
    let faulty = || scene.faults.any(probe.invoked_us, probe.completed_us, AFTERMATH_US);
    let wrong = match probe.status {
        Some(status) if probe.expect.contains(&status) => {
            let refused = status >= 400 && !probe.explained;
            refused.then(|| format!("refused with {status} and no reason"))
        }
        Some(status @ 200..300) => Some(format!("accepted with {status}")),
        // Overload is said so, and is P9's.
        Some(429 | 503) if super::p9_overload::is_overload(probe) => None,
        Some(status) if status < 500 => Some(format!("answered with {status}")),
        Some(status) => (!faulty()).then(|| format!("answered with {status}, and no fault was in force")),
        None => (!faulty()).then(|| "not answered at all, and no fault was in force".to_owned()),
    };
    if let Some(wrong) = wrong {
        let what = format!(
            "{}, sent to {} at {}, was {wrong}; right is {}",
            probe.kind,
            front(&scene.start, probe.front),
            seconds(probe.invoked_us),
            probe.expect.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
        );
        found.add(Promise::P8, probe.completed_us, what, None);
    }
}

pub(crate) fn died(died: &Died, scene: &Scene, found: &mut Found) {
    let explains = |kind: FaultKind| match kind {
        // The driver may see the end before it has said that it caused it.
        FaultKind::Kill | FaultKind::Power | FaultKind::Wipe => Some(0),
        FaultKind::Disk => Some(AFTERMATH_US),
        FaultKind::Pause
        | FaultKind::Partition
        | FaultKind::Link
        | FaultKind::Clock
        | FaultKind::Store
        | FaultKind::Meta => None,
    };
    let explained = scene.faults.touching(died.at_us, died.at_us, AFTERMATH_US).any(|(_, fault)| {
        let aftermath = explains(fault.began.kind);
        let here = fault.began.nodes.contains(&died.node);
        here && aftermath.is_some_and(|aftermath| fault.touches(died.at_us, died.at_us, aftermath))
    });
    if !explained {
        let faults = scene.faults.touching(died.at_us, died.at_us, AFTERMATH_US);
        let faults: Vec<usize> = faults.map(|(place, _)| place).collect();
        let (node, at) = (&died.node, seconds(died.at_us));
        let what = format!("{node} died by itself at {at}, {}: {}", scene.faults.words(&faults), died.how);
        found.add(Promise::P8, died.at_us, what, None);
    }
}
