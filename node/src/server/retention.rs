//! The metadata's floors in the store of this node.

use std::sync::Arc;
use std::time::Duration;

use oteld_cluster::state::ClusterState;
use oteld_cluster::{ids, retention};
use oteld_store::model::{Signal, Tenant, Window};
use oteld_store::{Floors, Store, StoreError};
use tokio::sync::watch;
use tracing::warn;

/// Both crates know how long a window is, and neither knows the other.
const _: () = assert!(retention::WINDOW_NANOS == Window::NANOS);

/// Pause before a floor that could not be made durable is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The store's signal as the metadata has it.
pub fn metadata_signal(signal: Signal) -> ids::Signal {
    match signal {
        Signal::Metrics => ids::Signal::Metrics,
        Signal::Logs => ids::Signal::Logs,
        Signal::Traces => ids::Signal::Traces,
    }
}

/// The floors of a state as the store takes them.
fn floors_of(state: &ClusterState) -> Floors {
    let mut floors = Floors { version: state.changed_at, ..Floors::default() };
    for signal in Signal::ALL {
        let known = metadata_signal(signal);
        if let Some(floor) = state.floors.get(&known) {
            floors.everyone.insert(signal, *floor);
        }
        let tenants = state.tenants.keys();
        let own = tenants.filter_map(|tenant| Some((Tenant::new(tenant), state.own_floor(tenant, known)?)));
        floors.own.insert(signal, own.collect());
    }
    floors.own.retain(|_, tenants| !tenants.is_empty());
    floors
}

/// Takes the floors that are known now, before anything is served.
///
/// # Errors
/// Those of the disk.
pub(super) async fn raise(store: &Store, state: &ClusterState) -> Result<(), StoreError> {
    if store.lost().is_some() {
        // It shows no rows and can write nothing.
        return Ok(());
    }
    store.raise_floors(floors_of(state)).await
}

/// Takes the floors of every later state, until its sender is gone.
pub(super) async fn follow(store: Store, mut states: watch::Receiver<Arc<ClusterState>>) {
    loop {
        let state = states.borrow_and_update().clone();
        if let Err(error) = raise(&store, &state).await {
            warn!(%error, "the retention floors are not raised; what they drop is still shown here");
            tokio::time::sleep(RETRY_PAUSE).await;
            states.mark_changed();
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}
