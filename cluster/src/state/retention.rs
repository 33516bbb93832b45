//! How long data is kept, and the floors that follow from it. A floor never falls, whatever is set.

use super::ClusterState;
use crate::command::Applied;
use crate::ids::Signal;
use crate::retention::{WINDOW_NANOS, floor_at, parse_retention};

/// The named setting that holds how long a signal's data is kept, as [`parse_retention`] reads it.
pub fn retention_setting(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "retention.metrics",
        Signal::Logs => "retention.logs",
        Signal::Traces => "retention.traces",
    }
}

/// The signal whose retention a named setting holds.
pub(super) fn signal_of(setting: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| retention_setting(*signal) == setting)
}

impl ClusterState {
    /// How long data of tenants without a retention of their own is kept, in seconds; 0 is for ever.
    pub fn retention_seconds(&self, signal: Signal) -> u64 {
        let set = self.options.get(retention_setting(signal)).and_then(|text| parse_retention(text).ok());
        set.or(self.settings.retention_seconds.get(&signal).copied()).unwrap_or(0)
    }

    /// Event time in nanoseconds; rows of the tenant below it do not exist anywhere.
    pub fn floor(&self, tenant: &str, signal: Signal) -> u64 {
        let everyone = self.floors.get(&signal).copied().unwrap_or(0);
        self.own_floor(tenant, signal).unwrap_or(everyone)
    }

    /// The tenant's floor where it is not that of everyone: it has a retention of its own, or was raised above.
    pub fn own_floor(&self, tenant: &str, signal: Signal) -> Option<u64> {
        let everyone = self.floors.get(&signal).copied().unwrap_or(0);
        let entry = self.tenants.get(tenant)?;
        let own = entry.floors.get(&signal).copied().unwrap_or(0);
        (entry.limits.retention_seconds.contains_key(&signal) || own > everyone).then_some(own)
    }

    /// Whether [`AdvanceTime`](crate::command::Command::AdvanceTime) would raise a floor, or a window has passed
    /// since the last one.
    pub fn is_time_due(&self, unix_nano: u64) -> bool {
        self.time_unix_nano / WINDOW_NANOS != unix_nano / WINDOW_NANOS
            || !self.floors_due(unix_nano).is_empty()
    }

    /// The floors that are higher at a time than they are: of a tenant, or of everyone.
    fn floors_due(&self, unix_nano: u64) -> Vec<(Option<String>, Signal, u64)> {
        let mut due = Vec::new();
        for signal in Signal::ALL {
            let seconds = self.retention_seconds(signal);
            if seconds > 0 {
                due.push((None, signal, floor_at(unix_nano, seconds)));
            }
        }
        for (tenant, entry) in &self.tenants {
            for (signal, seconds) in
                entry.limits.retention_seconds.iter().filter(|(_, seconds)| **seconds > 0)
            {
                due.push((Some(tenant.clone()), *signal, floor_at(unix_nano, *seconds)));
            }
        }
        due.retain(|(tenant, signal, floor)| {
            let known = match tenant {
                Some(tenant) => self.floor(tenant, *signal),
                None => self.floors.get(signal).copied().unwrap_or(0),
            };
            *floor > known
        });
        due
    }

    /// Takes the agreed time, which may also be an earlier one, and raises the floors that are due.
    pub(super) fn advance_time(&mut self, unix_nano: u64) -> Applied {
        if !self.is_time_due(unix_nano) {
            return Applied::Unchanged;
        }
        for (tenant, signal, floor) in self.floors_due(unix_nano) {
            let floors = match tenant {
                Some(tenant) => &mut self.tenants.entry(tenant).or_default().floors,
                None => &mut self.floors,
            };
            floors.insert(signal, floor);
        }
        self.time_unix_nano = unix_nano;
        Applied::Done
    }
}
