//! Deleting what is below the retention floors. Rows below are invisible from the moment that the floor is
//! raised; this only frees their space.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::StoreError;
use crate::floors::{Floors, floor_of};
use crate::model::{Signal, Tenant, Window};

impl Engine {
    /// Deletes segments of windows that are below the floors of all tenants that have rows there, and forgets
    /// the windows' ids.
    pub(crate) async fn delete_expired(self: &Arc<Self>) -> Result<(), StoreError> {
        let expired: BTreeSet<u64> = {
            let state = self.state.lock();
            let segments = state.segments.0.iter().filter(|segment| {
                let (signal, window) = segment.key();
                let tenants = segment.segment.groups().iter().map(|group| &group.tenant);
                is_expired(&state.floors, signal, window, tenants)
            });
            segments.map(|segment| segment.meta.id).collect()
        };
        if expired.is_empty() {
            return Ok(());
        }
        tracing::info!(segments = expired.len(), "deleting segments below the retention floor");
        let before = self.state.lock().segments.clone();
        let windows: BTreeSet<(Signal, Window)> =
            before.0.iter().filter(|segment| expired.contains(&segment.meta.id)).map(|s| s.key()).collect();
        self.commit_segments(expired, Vec::new(), Vec::new(), move |state| {
            let unflushed = state.unflushed_windows();
            for (signal, window) in windows {
                let is_empty = state.segments.of(signal, window).is_empty();
                if is_empty && !unflushed.contains(&(signal, window)) {
                    state.ids.forget((signal, window));
                }
            }
        })
        .await
    }
}

/// Whether no tenant has a row that exists in the window.
fn is_expired<'a>(
    floors: &Floors,
    signal: Signal,
    window: Window,
    mut tenants: impl Iterator<Item = &'a Tenant>,
) -> bool {
    tenants.all(|tenant| floor_of(floors, signal, tenant) >= window.end_unix_nano())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_expires_when_it_is_below_the_floor_of_everyone_in_it() {
        let (one, other) = (Tenant::new("one"), Tenant::new("other"));
        let end = Window(5).end_unix_nano();
        let own = [(Signal::Logs, [(one.clone(), end), (other.clone(), end - 1)].into())].into();
        let floors = Floors { own, ..Floors::default() };
        let expired =
            |signal, tenants: &[&Tenant]| is_expired(&floors, signal, Window(5), tenants.iter().copied());
        assert!(expired(Signal::Logs, &[&one]));
        assert!(!expired(Signal::Logs, &[&one, &other]));
        assert!(!expired(Signal::Traces, &[&one]));
        assert!(!expired(Signal::Logs, &[&Tenant::default()]));
    }
}
