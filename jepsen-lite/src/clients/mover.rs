//! Moves shards from store to store while everybody works, as a rebalance does: asks whichever member of the meta group
//! leads for moves to sets of replicas that are as good as any other.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use oteld_cluster::command::Command;
use oteld_cluster::handle::client::{Answer, MetaClient};
use oteld_cluster::ids::{MoveId, NodeId, ReplicaId};
use oteld_cluster::shard_map::Member;
use oteld_cluster::state::{ClusterState, ShardEntry};
use tokio::time::timeout;

use super::{Phase, Shared};

/// Between two times that moves are asked for.
const PAUSE_MS: std::ops::Range<u64> = 400..4_000;

/// Moves that are asked for at a time.
const MOVES: std::ops::Range<u64> = 1..4;

/// How long a member may take to answer.
const WAIT: Duration = Duration::from_secs(2);

type Store = (NodeId, ReplicaId);

/// Works until the healing begins. A move that is refused is forgotten: somebody else moves the shard already.
pub(super) async fn mover(shared: Rc<Shared>) {
    let client = MetaClient::new(shared.env.net);
    while shared.phase() == Phase::Work {
        let pause = Duration::from_millis(shared.env.random.in_range(PAUSE_MS));
        shared.sleep_in_work(pause).await;
        for member in &shared.targets.meta {
            let Ok(Answer::Done(read)) = timeout(WAIT, client.read(member)).await else { continue };
            for command in moves(&shared, &read.state) {
                // Whether it began is seen in the shards' epochs.
                let _ = timeout(WAIT, client.propose(member, &command)).await;
            }
            break;
        }
    }
}

/// Moves of some of the shards that stand still.
fn moves(shared: &Shared, state: &ClusterState) -> Vec<Command> {
    let random = &shared.env.random;
    let stores: Vec<Store> =
        state.placeable().into_iter().map(|(candidate, replica)| (candidate.node, replica)).collect();
    let mut still: Vec<&ShardEntry> = state.shards.iter().filter(|shard| shard.moving.is_none()).collect();
    let mut moves = Vec::new();
    for _ in 0..random.in_range(MOVES).min(still.len() as u64) {
        let shard = still.swap_remove(random.in_range(0..still.len() as u64) as usize);
        let old: Vec<Store> =
            shard.entry.old.iter().map(|Member { node, replica, .. }| (*node, *replica)).collect();
        let others: Vec<Store> = stores.iter().copied().filter(|store| !old.contains(store)).collect();
        if others.is_empty() {
            continue;
        }
        // Mostly one replica at a time, as a rebalance does; sometimes any others, up to all.
        let new = match shared.one_in(3) {
            true => some(shared, stores.clone(), old.len()),
            false => {
                let mut new = old.clone();
                let leaves = random.in_range(0..new.len() as u64) as usize;
                new[leaves] = others[random.in_range(0..others.len() as u64) as usize];
                new
            }
        };
        let is_other = new.iter().collect::<BTreeSet<_>>() != old.iter().collect::<BTreeSet<_>>();
        if is_other && new.len() == old.len() {
            let id = MoveId(random.next_u128());
            moves.push(Command::StartMove { shard: shard.shard, expect: shard.entry.epoch, id, new });
        }
    }
    moves
}

fn some(shared: &Shared, mut stores: Vec<Store>, count: usize) -> Vec<Store> {
    while stores.len() > count {
        stores.swap_remove(shared.env.random.in_range(0..stores.len() as u64) as usize);
    }
    stores
}
