//! P9 slows, never breaks: overload is answered with a delay after which to try again, and memory stays in its budget.
//!
//! Proves it of the probes that overload a front, and of the memory that nodes have when they are asked: all that is
//! resident, and what a front counts as held by requests in flight; a peak between two samples is not seen.

use std::collections::BTreeMap;

use super::words::{front, seconds};
use super::{Found, Promise, Scene};
use crate::history::event::{Probe, Sample};

/// Whether a probe is there to be slowed and not to be refused.
pub(crate) fn is_overload(probe: &Probe) -> bool {
    probe.kind.contains("overload") || probe.expect.iter().any(|status| [429, 503].contains(status))
}

#[derive(Default)]
pub(crate) struct Overload {
    /// Memory over its budget, by node.
    over: BTreeMap<(Memory, String), Most>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    Requests,
    Resident,
}

/// The most bytes that were seen, and when.
#[derive(Clone, Copy)]
struct Most {
    at_us: u64,
    bytes: u64,
    budget: u64,
}

impl Overload {
    pub(crate) fn probe(&mut self, probe: &Probe, scene: &Scene, found: &mut Found) {
        let Some(status @ (429 | 503)) = probe.status else { return };
        if is_overload(probe) && !probe.retry_after {
            let what = format!(
                "{}, sent to {} at {}, was answered with {status} and no delay after which to try again",
                probe.kind,
                front(&scene.start, probe.front),
                seconds(probe.invoked_us)
            );
            found.add(Promise::P9, probe.completed_us, what, None);
        }
    }

    pub(crate) fn sample(&mut self, sample: &Sample, scene: &Scene) {
        for (memory, bytes, budget) in [
            (Memory::Requests, sample.request_bytes, sample.request_bytes_max),
            (Memory::Resident, sample.resident_bytes, scene.start.resident_bytes_max),
        ] {
            // 0: there is none, or it is not known.
            if budget == 0 || bytes <= budget {
                continue;
            }
            let now = Most { at_us: sample.at_us, bytes, budget };
            let most = self.over.entry((memory, sample.node.clone()));
            let most = most.or_insert(now);
            if bytes > most.bytes {
                *most = now;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.over.len()
    }

    pub(crate) fn finish(self, found: &mut Found) {
        let mib = |bytes: u64| bytes / (1 << 20);
        for ((memory, node), Most { at_us, bytes, budget }) in self.over {
            let at = seconds(at_us);
            let what = match memory {
                Memory::Requests => {
                    format!("requests in flight hold {bytes} bytes of {node} at {at}; its budget is {budget}")
                }
                Memory::Resident => {
                    let (bytes, budget) = (mib(bytes), mib(budget));
                    format!("{node} has {bytes} MiB resident at {at}; {budget} MiB is the most")
                }
            };
            found.add(Promise::P9, at_us, what, None);
        }
    }
}
