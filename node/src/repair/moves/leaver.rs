//! Deletes what a store has of shards that it is no replica of any more (PROTOCOL, M5, and the newcomers of M6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oteld_cluster::shard_map::{Entry, Member};
use oteld_store::model::Shard;
use oteld_store::{Store, StoreError};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::rpc::fence::Fence;

/// Before deleting is tried again after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Follows the fence until it is dropped.
pub async fn run(store: Store, fence: Arc<Fence>) {
    let mut changes = fence.changes();
    loop {
        changes.borrow_and_update();
        if let Err(error) = leave(&store, &fence).await {
            warn!(%error, "cannot delete what is here of shards that this store left; trying again");
            sleep(RETRY_PAUSE).await;
        } else if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn leave(store: &Store, fence: &Fence) -> Result<(), StoreError> {
    if left(store, fence).is_empty() {
        return Ok(());
    }
    let leaving = store.prepare_leave().await?;
    // While epochs stand still this store cannot become a replica again, and begin to pull what is deleted here.
    let _epochs = fence.hold().await;
    let shards = left(store, fence);
    if shards.is_empty() {
        return Ok(());
    }
    info!(?shards, "deleting shards that this store is no replica of any more");
    leaving.leave(shards).await
}

/// Shards with rows here whose durable entry is without this store. A joint entry names those who are to leave too,
/// so that one without it is of epoch e + 2 or later: the others hold all that counts.
fn left(store: &Store, fence: &Fence) -> BTreeSet<Shard> {
    let is_leaving = |entry: &Entry| {
        let stays = |new: &Vec<Member>| new.iter().any(|member| member.replica == fence.me());
        entry.new.as_ref().is_some_and(|new| !stays(new)) && oteld_env::mutant("leaver-deletes-early")
    };
    let without_me =
        |shard: &Shard| fence.entry(*shard).is_some_and(|entry| !entry.has(fence.me()) || is_leaving(&entry));
    store.held_shards().into_iter().filter(without_me).collect()
}
