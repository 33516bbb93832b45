//! All the peers that this store tails: a task for each lane of shards, started and stopped as the shard map says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oteld_cluster::ids::{NodeId, ReplicaId};
use oteld_env::Env;
use oteld_proto::node::Refusal;
use oteld_store::model::Shard;
use oteld_store::{Prefix, ReplicaId as StoreReplicaId, Store, StoreError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::catch_up::{self, CatchUp};
use super::lanes::{Arrangement, Memberships, Standing, arrange};
use super::tail::{Progress, Tail, TailError};
use crate::rpc::fence::Fence;
use crate::rpc::peers::Peers;
use crate::view::ClusterView;

/// Pauses after a peer could not be tailed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Another replica of some of this store's shards.
struct Peer {
    node: NodeId,
    lanes: Vec<Lane>,
}

/// Shards of a peer that are tailed together, by one task.
#[derive(Clone)]
struct Lane {
    shards: Memberships,
    stop: CancellationToken,
    standing: Arc<Mutex<Standing>>,
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
    /// Counts advances of cursors and changes of memberships, for those who wait for either.
    changes: watch::Sender<u64>,
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
        let tails = Arc::new(Tails {
            env,
            store,
            fence,
            view,
            connections,
            peers: RwLock::default(),
            catching_up: tokio::sync::Mutex::default(),
            progress: catch_up::Progress::default(),
            changes: watch::Sender::new(0),
            said_behind: AtomicBool::new(true),
        });
        let following = tails.clone();
        tails.env.tasks.spawn(async move {
            stop.run_until_cancelled(following.follow()).await;
            let peers = std::mem::take(&mut *following.peers.write());
            peers.values().flat_map(|peer| &peer.lanes).for_each(|lane| lane.stop.cancel());
        });
        tails
    }

    /// Waits until this store durably holds what `peer`'s log has of `shards` up to the end of `prefix`; false when
    /// it does not by `deadline`.
    pub async fn await_held(
        &self,
        peer: ReplicaId,
        shards: &BTreeSet<Shard>,
        prefix: &Prefix,
        deadline: Instant,
    ) -> bool {
        let mut changes = self.changes.subscribe();
        let is_held = changes.wait_for(|_| self.is_held(peer, shards, prefix));
        matches!(timeout_at(deadline, is_held).await, Ok(Ok(_)))
    }

    /// Whether this store durably holds what `peer`'s log has of `shards` up to the end of `prefix`, and says so as
    /// the replica that it is now.
    pub fn is_held(&self, peer: ReplicaId, shards: &BTreeSet<Shard>, prefix: &Prefix) -> bool {
        let me = self.fence.me();
        shards.iter().all(|shard| {
            // Not what a lane says, which learns of a new membership only after the fence.
            let members = self.fence.entry(*shard).map(|entry| entry.members()).unwrap_or_default();
            members.iter().find(|member| member.replica == me).is_some_and(|own| {
                self.store.cursor(StoreReplicaId(peer.0), *shard, own.since_epoch.0).covers(prefix)
            })
        })
    }

    /// Whether it is not known that this store holds what a quorum of the replicas of its shards hold.
    pub fn is_catching_up(&self) -> bool {
        let peers = self.peers.read();
        let level = |replica: ReplicaId, shard: Shard| {
            let lanes = peers.get(&replica).map_or(&[][..], |peer| &peer.lanes);
            let mut lanes = lanes.iter().filter(|lane| lane.shards.contains_key(&shard));
            lanes.next().is_some_and(|lane| !lane.behind.load(Ordering::Relaxed))
        };
        let me = self.fence.me();
        let entries = self.fence.entries();
        let mut own = entries.iter().filter(|(_, entry)| entry.has(me));
        own.any(|(shard, entry)| {
            let replicas = entry.members().into_iter().map(|member| member.replica);
            let known = replicas.filter(|replica| *replica == me || level(*replica, *shard)).collect();
            !entry.quorum().is_reached(&known)
        })
    }

    fn set_behind(&self, lane: &Lane, behind: bool) {
        if lane.behind.swap(behind, Ordering::Relaxed) == behind {
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
        let mut wanted: BTreeMap<ReplicaId, (NodeId, Memberships)> = BTreeMap::new();
        for (shard, entry) in self.fence.entries() {
            let members = entry.members();
            let Some(own) = members.iter().find(|member| member.replica == me) else { continue };
            for member in members.iter().filter(|member| member.replica != me) {
                let shared = wanted.entry(member.replica).or_insert((member.node, Memberships::new()));
                shared.1.insert(shard, own.since_epoch.0);
            }
        }
        let mut peers = self.peers.write();
        peers.retain(|replica, peer| {
            let stays = wanted.contains_key(replica);
            if !stays {
                peer.lanes.iter().for_each(|lane| lane.stop.cancel());
            }
            stays
        });
        for (replica, (node, shards)) in wanted {
            let new_peer = || Peer { node, lanes: Vec::new() };
            let peer = peers.entry(replica).or_insert_with(new_peer);
            let running: Vec<_> =
                peer.lanes.iter().map(|lane| (&lane.shards, *lane.standing.lock())).collect();
            let Arrangement { keep, start } = arrange(&shards, &running);
            let mut keep = keep.into_iter();
            peer.lanes.retain(|lane| {
                let stays = keep.next().unwrap_or(false);
                if !stays {
                    lane.stop.cancel();
                }
                stays
            });
            for shards in start {
                let lane = self.start_lane(replica, peer.node, shards);
                peer.lanes.push(lane);
            }
        }
        drop(peers);
        self.changes.send_modify(|count| *count += 1);
    }

    fn start_lane(self: &Arc<Self>, replica: ReplicaId, node: NodeId, shards: Memberships) -> Lane {
        let stop = CancellationToken::new();
        let lane =
            Lane { shards, stop: stop.clone(), standing: Arc::default(), behind: Arc::new(true.into()) };
        let (tails, task_lane) = (self.clone(), lane.clone());
        self.env.tasks.spawn(async move {
            stop.run_until_cancelled(tails.run_lane(replica, node, task_lane)).await;
        });
        lane
    }

    async fn run_lane(&self, replica: ReplicaId, node: NodeId, lane: Lane) {
        let mut pause = RETRY_PAUSE;
        let mut said_lost = false;
        // A replica that lost data may say nothing under its name any more, so nobody needs what it would pull.
        while self.store.lost().is_none() {
            match self.step(replica, node, &lane).await {
                Ok(progress) => {
                    self.set_behind(&lane, progress == Progress::More);
                    *lane.standing.lock() = match progress {
                        Progress::Level => Standing::Level,
                        Progress::More => Standing::Behind,
                    };
                    pause = RETRY_PAUSE;
                }
                Err(error) => {
                    self.set_behind(&lane, true);
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
    async fn step(&self, replica: ReplicaId, node: NodeId, lane: &Lane) -> Result<Progress, TailError> {
        let unknown = || TailError::Append("its address is not known".into());
        let address = self.view.address(node).ok_or_else(unknown)?;
        let mut tail = Tail {
            store: &self.store,
            fence: &self.fence,
            peer: replica,
            shards: lane.shards.clone(),
            client: self.connections.client(&address),
            changes: &self.changes,
        };
        match tail.step().await {
            Err(error) if error.is_below_start() => {}
            stepped => return stepped,
        }
        self.set_behind(lane, true);
        let _one_at_a_time = self.catching_up.lock().await;
        *lane.standing.lock() = Standing::Behind;
        let name = self.view.name_of(replica);
        let mut catch_up = CatchUp { env: &self.env, tail: &mut tail, name: &name, progress: &self.progress };
        let outcome = catch_up.run().await;
        if let Err(error) = &outcome {
            warn!(peer = name, %error, "catching up by a snapshot was interrupted and will be tried again");
        }
        outcome.map(|_| Progress::More)
    }

    async fn learn_from(&self, refusal: &Refusal) {
        if let Err(error) = self.fence.learn(&self.view.learn_from(refusal)).await {
            warn!(%error, "cannot make shard entries of a peer durable");
        }
    }
}
