//! Retention floors: event time below which rows do not exist. They come from the cluster's metadata and never fall.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Signal, Tenant};

/// Floors in nanoseconds of event time; an absent one is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Floors {
    /// Of every tenant that is not in `own`.
    pub everyone: BTreeMap<Signal, u64>,
    /// Of single tenants, instead of that of everyone, higher or lower.
    pub own: BTreeMap<Signal, BTreeMap<Tenant, u64>>,
    /// Which state of the metadata they are of: floors of an older one are not taken.
    pub version: u64,
}

impl Floors {
    /// Event time below which rows of a tenant do not exist.
    pub fn of(&self, signal: Signal, tenant: &Tenant) -> u64 {
        let own = self.own.get(&signal).and_then(|tenants| tenants.get(tenant));
        own.or(self.everyone.get(&signal)).copied().unwrap_or(0)
    }

    /// Takes newer floors; a tenant whose floor would fall keeps the one it has. Says whether a floor changed.
    pub(crate) fn raise(&mut self, newer: &Floors) -> bool {
        if newer.version < self.version {
            return false;
        }
        let mut next = newer.clone();
        for (signal, floor) in &self.everyone {
            let raised = next.everyone.entry(*signal).or_default();
            *raised = (*floor).max(*raised);
        }
        for (signal, tenants) in &mut next.own {
            for (tenant, floor) in tenants {
                *floor = self.of(*signal, tenant).max(*floor);
            }
        }
        for (signal, tenants) in &self.own {
            for (tenant, floor) in tenants {
                if next.of(*signal, tenant) < *floor {
                    next.own.entry(*signal).or_default().insert(tenant.clone(), *floor);
                }
            }
        }
        let changed = (&self.everyone, &self.own) != (&next.everyone, &next.own);
        if changed {
            *self = next;
        }
        changed
    }
}

/// See [`Floors::of`].
pub(crate) fn floor_of(floors: &Floors, signal: Signal, tenant: &Tenant) -> u64 {
    floors.of(signal, tenant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn floors(version: u64, everyone: u64, own: &[(&str, u64)]) -> Floors {
        let own = own.iter().map(|(tenant, floor)| (Tenant::new(tenant), *floor)).collect();
        Floors { everyone: [(Signal::Logs, everyone)].into(), own: [(Signal::Logs, own)].into(), version }
    }

    #[test]
    fn a_tenant_that_keeps_its_data_longer_is_below_everyone_and_never_falls() {
        let of = |floors: &Floors, tenant| floors.of(Signal::Logs, &Tenant::new(tenant));
        let mut known = Floors::default();
        assert!(known.raise(&floors(1, 10, &[("long", 5), ("short", 20)])));
        assert_eq!(["long", "short", "x"].map(|tenant| of(&known, tenant)), [5, 20, 10]);
        assert!(!known.raise(&floors(2, 10, &[("long", 4), ("short", 20)])), "a floor does not fall");
        assert!(known.raise(&floors(3, 30, &[("long", 5)])));
        assert_eq!(["long", "short", "x"].map(|tenant| of(&known, tenant)), [5, 30, 30]);
        assert!(!known.raise(&floors(2, 40, &[])), "an older state says nothing");
        assert!(known.raise(&floors(4, 30, &[])));
        assert_eq!(of(&known, "long"), 30, "it has no retention of its own any more");
        assert!(known.raise(&floors(5, 31, &[("long", 30)])));
        assert_eq!(of(&known, "long"), 30);
    }

    proptest! {
        #[test]
        fn no_floor_ever_falls(
            states in prop::collection::vec((0u64..6, 0u64..9, prop::collection::vec((0u8..3, 0u64..9), 0..3)), 1..20)
        ) {
            let mut known = Floors::default();
            let tenants = ["a", "b", "c"];
            for (version, everyone, own) in states {
                let own: Vec<(&str, u64)> = own.iter().map(|(t, floor)| (tenants[*t as usize], *floor)).collect();
                let before = known.clone();
                known.raise(&floors(version, everyone, &own));
                for tenant in tenants.map(Tenant::new) {
                    let (old, new) = (before.of(Signal::Logs, &tenant), known.of(Signal::Logs, &tenant));
                    prop_assert!(old <= new, "{tenant:?} fell from {old} to {new}");
                }
            }
        }
    }
}
