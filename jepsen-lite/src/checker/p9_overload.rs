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
    /// By node, the most over the budget: when, and bytes.
    over: BTreeMap<String, (u64, u64)>,
    /// The same of what requests in flight hold.
    requests_over: BTreeMap<String, (u64, u64, u64)>,
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
        let (held, budget) = (sample.request_bytes, sample.request_bytes_max);
        if budget > 0 && held > budget {
            let over = self.requests_over.entry(sample.node.clone()).or_default();
            if held > over.1 {
                *over = (sample.at_us, held, budget);
            }
        }
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
        self.over.len() + self.requests_over.len()
    }

    pub(crate) fn finish(self, scene: &Scene, found: &mut Found) {
        for (node, (at_us, held, budget)) in self.requests_over {
            let at = seconds(at_us);
            let what =
                format!("requests in flight hold {held} bytes of {node} at {at}; its budget is {budget}");
            found.add(Promise::P9, at_us, what, None);
        }
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
