//! P9 slows, never breaks: overload is answered with a delay after which to try again, and memory stays in its budget.
//!
//! Proves it of the probes that overload a front, and of the resident memory that nodes have when they are asked; a
//! peak between two samples is not seen.

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
    /// By node, the most over the budget: when, and bytes.
    over: BTreeMap<String, (u64, u64)>,
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
        let most = scene.start.resident_bytes_max;
        if most == 0 || sample.resident_bytes <= most {
            return;
        }
        let over = self.over.entry(sample.node.clone()).or_default();
        if sample.resident_bytes > over.1 {
            *over = (sample.at_us, sample.resident_bytes);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.over.len()
    }

    pub(crate) fn finish(self, scene: &Scene, found: &mut Found) {
        let mib = |bytes: u64| bytes / (1 << 20);
        for (node, (at_us, bytes)) in self.over {
            let most = mib(scene.start.resident_bytes_max);
            let what = format!(
                "{node} has {} MiB resident at {}; {most} MiB is the most",
                mib(bytes),
                seconds(at_us)
            );
            found.add(Promise::P9, at_us, what, None);
        }
    }
}
