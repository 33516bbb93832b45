//! The storage role: from an open store to a member of its cluster.

use std::path::Path;
use std::sync::Arc;

use oteld_cluster::ids::{ClusterId, ReplicaId};
use oteld_env::Env;
use oteld_store::{OpenError, Store, StoreOptions};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::retention;
use super::set_aside::{self, LOST_MAX, StoreDirs};
use crate::config::StorageConfig;
use crate::read::complete::Completer;
use crate::read::leaf::Leaf;
use crate::repair::moves::leaver;
use crate::repair::snapshots::Snapshots;
use crate::repair::tails::Tails;
use crate::rpc::fence::Fence;
use crate::rpc::peers::Peers;
use crate::rpc::service::StorageParts;
use crate::view::ClusterView;
use crate::write::append::Appender;

/// Why a store cannot serve a cluster.
#[derive(Debug, Error)]
pub(super) enum JoinError {
    #[error(
        "the store in {dir} belongs to cluster {own}, and this node joined cluster {joined}: give the node the \
         data directory of its own cluster, or an empty one"
    )]
    OtherCluster { dir: String, own: ClusterId, joined: ClusterId },
    #[error("an entry of the shard map in the store is damaged: {0}")]
    Entry(#[from] oteld_cluster::shard_map::EntryError),
    #[error(transparent)]
    Store(#[from] oteld_store::StoreError),
}

/// Opens the store of a node; its replica id is born with the directory. A store that lost synced data is set aside
/// and an empty one opened in its place, which has another id: the leader moves the shards of the lost one to it.
pub(super) async fn open(env: &Env, data_dir: &Path, config: &StorageConfig) -> Result<Store, OpenError> {
    loop {
        let (disk, data_dir) = (env.disk.clone(), data_dir.to_owned());
        let find = move || {
            disk.create_dir_all(&data_dir)?;
            set_aside::find(&*disk, &data_dir)
        };
        let dirs = env.tasks.blocking(find).await;
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| OpenError::Io { what, source }
        };
        let StoreDirs { current, lost } = dirs.map_err(io("cannot look for the store's directory"))?;
        let options = StoreOptions {
            dir: current.clone(),
            memtable_bytes_max: config.memtable_bytes_max,
            min_free_bytes: config.min_free_bytes,
            wal_keep_bytes: config.wal_keep_bytes,
            ..StoreOptions::default()
        };
        let failed = match Store::open(env.clone(), options.clone()).await {
            Ok(store) => return Ok(store),
            Err(failed) => failed,
        };
        let Some(what) = set_aside::loss(&failed) else { return Err(failed) };
        if lost.len() >= LOST_MAX {
            error!(
                store = %current.display(),
                what,
                "this store lost data and is not replaced, since {LOST_MAX} others were before and are kept: find out \
                 why, remove what is not needed of the directories with a file LOST, and restart"
            );
            // The node's other roles go on, and whoever asks for its rows is told why there are none.
            return Store::open_lost(env.clone(), options, &what).await;
        }
        error!(
            store = %current.display(),
            what,
            "this store lost data that was synced: its directory is set aside, and the node goes on with an empty \
             one, as a new replica that gets its shards from the others"
        );
        let disk = env.disk.clone();
        let set_aside = move || set_aside::set_aside(&*disk, &current, &what);
        env.tasks.blocking(set_aside).await.map_err(io("cannot set the store's directory aside"))?;
    }
}

/// Binds the store to its cluster, for good, and starts what a replica does.
pub(super) async fn join(
    env: &Env,
    store: &Store,
    dir: &Path,
    cluster: ClusterId,
    view: &ClusterView,
    peers: &Peers,
    stop: CancellationToken,
) -> Result<StorageParts, JoinError> {
    match store.cluster_id().map(ClusterId) {
        Some(own) if own != cluster => {
            let dir = dir.display().to_string();
            return Err(JoinError::OtherCluster { dir, own, joined: cluster });
        }
        Some(_) => {}
        None => store.set_cluster_id(cluster.0).await?,
    }
    retention::raise(store, &view.state()).await?;
    let following = retention::follow(store.clone(), view.changes());
    env.tasks.spawn(stop.clone().run_until_cancelled_owned(following));
    let fence = Arc::new(Fence::open(env.tasks.clone(), store.clone(), cluster)?);
    let appender = Appender::new(store.clone(), fence.clone());
    let tails =
        Tails::start(env.clone(), store.clone(), fence.clone(), view.clone(), peers.clone(), stop.clone());
    let leaving = leaver::run(store.clone(), fence.clone());
    env.tasks.spawn(async move { stop.run_until_cancelled_owned(leaving).await });
    let completer = Completer {
        store: store.clone(),
        fence: fence.clone(),
        tails: tails.clone(),
        view: view.clone(),
        connections: peers.clone(),
    };
    let leaf = Leaf::new(env.clone(), completer);
    let snapshots = Snapshots::new(env.clone(), store.clone());
    Ok(StorageParts { store: store.clone(), fence, appender, tails, leaf, snapshots })
}

/// The store's id as the cluster knows it.
pub(super) fn replica_of(store: &Store) -> ReplicaId {
    ReplicaId(store.replica().0)
}
