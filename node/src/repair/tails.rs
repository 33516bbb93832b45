//! All the peers that this store tails: one task each, started and stopped as the shard map says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oteld_cluster::ids::{NodeId, ReplicaId};
use oteld_cluster::shard_map::Entry;
use oteld_env::Env;
use oteld_store::model::Shard;
use oteld_store::{Position, Store, StoreError};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::catch_up::{self, CatchUp};
use super::tail::{Progress, Tail, TailError};
use crate::rpc::fence::Fence;
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// Pauses after a peer could not be tailed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Another replica of some of this store's shards.
#[derive(Clone)]
struct Peer {
    node: NodeId,
    shards: BTreeSet<Shard>,
    stop: CancellationToken,
    held: watch::Receiver<Position>,
    /// Whether the last exchange failed or showed that there is more to pull; true before the first.
    behind: Arc<AtomicBool>,
}

/// The tailing tasks of a storage node.
pub struct Tails {
    env: Env,
    store: Store,
    fence: Arc<Fence>,
    view: ClusterView,
    connections: Peers,
    peers: RwLock<BTreeMap<ReplicaId, Peer>>,
    /// Held while segments of a peer are copied: what comes from one need not come from the next.
    catching_up: tokio::sync::Mutex<()>,
    progress: catch_up::Progress,
    /// Whether the log said last that this store may lack rows.
    said_behind: AtomicBool,
}

impl Tails {
    /// Starts tailing and follows the shard map until `stop`.
    pub fn start(
        env: Env,
        store: Store,
        fence: Arc<Fence>,
        view: ClusterView,
        connections: Peers,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let spawn = env.tasks;
        let tails = Arc::new(Tails {
            env,
            store,
            fence,
            view,
            connections,
            peers: RwLock::default(),
            catching_up: tokio::sync::Mutex::default(),
            progress: catch_up::Progress::default(),
            said_behind: AtomicBool::new(true),
        });
        let following = tails.clone();
        spawn.spawn(async move {
            stop.run_until_cancelled(following.follow()).await;
            for peer in std::mem::take(&mut *following.peers.write()).into_values() {
                peer.stop.cancel();
            }
        });
        tails
    }

    /// Waits until this store durably holds what `peer`'s log has of `shards` up to `position`; false when it does
    /// not by `deadline`, or does not tail all of `shards` yet.
    pub async fn await_held(
        &self,
        peer: ReplicaId,
        shards: &BTreeSet<Shard>,
        position: Position,
        deadline: Instant,
    ) -> bool {
        let held = self
            .peers
            .read()
            .get(&peer)
            .filter(|peer| shards.is_subset(&peer.shards))
            .map(|p| p.held.clone());
        let Some(mut held) = held else { return false };
        matches!(timeout_at(deadline, held.wait_for(|held| *held >= position)).await, Ok(Ok(_)))
    }

    /// Whether it is not known that this store holds what a quorum of the replicas of its shards hold.
    pub fn is_catching_up(&self) -> bool {
        let level = |peer: &Peer| !peer.behind.load(Ordering::Relaxed);
        let mut replicas: BTreeSet<ReplicaId> =
            self.peers.read().iter().filter(|(_, peer)| level(peer)).map(|(replica, _)| *replica).collect();
        replicas.insert(self.fence.me());
        let entries = self.fence.entries();
        let mut own = entries.values().filter(|entry| entry.has(self.fence.me()));
        own.any(|entry| !entry.quorum().is_reached(&replicas))
    }

    fn set_behind(&self, peer: &Peer, behind: bool) {
        if peer.behind.swap(behind, Ordering::Relaxed) == behind {
            return;
        }
        let is_catching_up = self.is_catching_up();
        if self.said_behind.swap(is_catching_up, Ordering::Relaxed) != is_catching_up {
            match is_catching_up {
                true => info!("this replica may lack rows that a majority has: catching up with its peers"),
                false => {
                    info!("caught up: this replica has all that a majority of its shards' replicas have")
                }
            }
        }
    }

    /// Of the segments that are being copied: bytes that came, and bytes in all.
    pub fn catch_up_bytes(&self) -> (u64, u64) {
        self.progress.bytes()
    }

    /// The metadata is one more teacher of entries; whoever taught one, the fence says whom to tail.
    async fn follow(self: &Arc<Self>) {
        let (mut metadata, mut fence) = (self.view.changes(), self.fence.changes());
        loop {
            metadata.borrow_and_update();
            fence.borrow_and_update();
            let learnt = self.learn_entries().await;
            self.adjust();
            tokio::select! {
                biased;
                changed = metadata.changed() => if changed.is_err() { return },
                changed = fence.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY_PAUSE_MAX), if learnt.is_err() => {}
            }
        }
    }

    async fn learn_entries(&self) -> Result<(), StoreError> {
        let state = self.view.state();
        let entries = state.shards.iter().map(|shard| (Shard(shard.shard.0), shard.entry.clone())).collect();
        self.fence.learn(&entries).await.inspect_err(|error| {
            warn!(%error, "cannot make the shard map's entries durable; trying again");
        })
    }

    fn adjust(self: &Arc<Self>) {
        let me = self.fence.me();
        let mut wanted: BTreeMap<ReplicaId, (NodeId, BTreeSet<Shard>)> = BTreeMap::new();
        for (shard, entry) in self.fence.entries() {
            if entry.has(me) {
                for member in entry.members().into_iter().filter(|member| member.replica != me) {
                    let shared = wanted.entry(member.replica).or_insert((member.node, BTreeSet::new()));
                    shared.1.insert(shard);
                }
            }
        }
        let mut peers = self.peers.write();
        peers.retain(|replica, peer| {
            let stays = wanted.get(replica).is_some_and(|(_, shards)| *shards == peer.shards);
            if !stays {
                peer.stop.cancel();
            }
            stays
        });
        for (replica, (node, shards)) in wanted {
            peers.entry(replica).or_insert_with(|| self.start_peer(replica, node, shards));
        }
    }

    fn start_peer(self: &Arc<Self>, replica: ReplicaId, node: NodeId, shards: BTreeSet<Shard>) -> Peer {
        let stop = CancellationToken::new();
        let (sender, held) = watch::channel(Position::default());
        let peer = Peer { node, shards, stop: stop.clone(), held, behind: Arc::new(true.into()) };
        let (tails, task_peer) = (self.clone(), peer.clone());
        self.env.tasks.spawn(async move {
            stop.run_until_cancelled(tails.run_peer(replica, task_peer, sender)).await;
        });
        peer
    }

    async fn run_peer(&self, replica: ReplicaId, peer: Peer, held: watch::Sender<Position>) {
        let mut pause = RETRY_PAUSE;
        let mut said_lost = false;
        // A replica that lost data may say nothing under its name any more, so nobody needs what it would pull.
        while self.store.lost().is_none() {
            match self.step(replica, &peer, &held).await {
                Ok(progress) => {
                    self.set_behind(&peer, progress == Progress::More);
                    pause = RETRY_PAUSE;
                }
                Err(error) => {
                    self.set_behind(&peer, true);
                    if let TailError::Refused(refusal) = &error {
                        self.learn_from(refusal).await;
                    }
                    if error.is_lost() && !std::mem::replace(&mut said_lost, true) {
                        warn!(peer = %self.view.name_of(replica), %error, "the peer lost data and serves nobody");
                    } else {
                        debug!(peer = %self.view.name_of(replica), %error, "cannot tail");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    /// One exchange with a peer, by its log or, where that does not reach back, by a snapshot.
    async fn step(
        &self,
        replica: ReplicaId,
        peer: &Peer,
        held: &watch::Sender<Position>,
    ) -> Result<Progress, TailError> {
        let unknown = || TailError::Append("its address is not known".into());
        let address = self.view.address(peer.node).ok_or_else(unknown)?;
        let mut tail = Tail {
            store: &self.store,
            fence: &self.fence,
            peer: replica,
            shards: peer.shards.clone(),
            client: self.connections.client(&address),
            held,
        };
        match tail.step().await {
            Err(error) if error.is_below_start() => {}
            stepped => return stepped,
        }
        self.set_behind(peer, true);
        let _one_at_a_time = self.catching_up.lock().await;
        let name = self.view.name_of(replica);
        let mut catch_up = CatchUp { env: &self.env, tail: &mut tail, name: &name, progress: &self.progress };
        let outcome = catch_up.run().await;
        if let Err(error) = &outcome {
            warn!(peer = name, %error, "catching up by a snapshot was interrupted and will be tried again");
        }
        outcome.map(|_| Progress::More)
    }

    async fn learn_from(&self, refusal: &oteld_proto::node::Refusal) {
        let mut entries = BTreeMap::new();
        for shard in &refusal.shards {
            if let Ok(entry) = Entry::decode(&shard.entry) {
                self.view.adopt(Shard(shard.shard), &entry);
                entries.insert(Shard(shard.shard), entry);
            }
        }
        if let Err(error) = self.fence.learn(&entries).await {
            warn!(%error, "cannot make shard entries of a peer durable");
        }
    }
}
