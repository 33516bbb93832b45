//! Carries moves on: starts those that replace stores which should not hold shards any more, and takes every move
//! under way one step further.
//!
//! It runs on the leader of the meta group, since each step is a command there, and reads what to do from the
//! committed state alone. So a new leader goes on where the old one stopped, and a step that was taken twice, also by
//! two nodes that both think that they lead, is taken once: every command names its move and the epoch it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use oteld_cluster::command::{Applied, Command};
use oteld_cluster::handle::{MetaHandle, ProposeError};
use oteld_cluster::ids::{MoveId, ShardId};
use oteld_cluster::plan::{PlannedMove, hopeless_moves, next_moves, without_majority};
use oteld_cluster::shard_map::Member;
use oteld_cluster::state::ClusterState;
use oteld_env::Env;
use oteld_store::model::Shard;
use tokio::time::sleep;
use tracing::{debug, error, info};

use super::ask::{Asker, Entries};
use super::steps::{Answers, Asks, Positions, asks, next_command};

/// Moves under way at once, in the whole cluster. Many shards of one store are copied together at about the cost of
/// one, and a store copies from one peer at a time.
pub const MOVES_MAX: usize = 64;

/// Between two looks at moves that are under way, and at a cluster where nothing moves.
const STEP_PAUSE: Duration = Duration::from_millis(200);
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// The parts that moving needs.
pub struct Driver {
    pub env: Env,
    pub meta: MetaHandle,
    pub asker: Asker,
}

/// Shards to ask one store about, with their entries.
#[derive(Default)]
struct Questions {
    fence: Entries,
    holds: Entries,
    fenced: BTreeMap<Shard, Positions>,
}

impl Driver {
    /// Runs until it is dropped; idle while this node does not lead.
    pub async fn run(self) {
        let mut stuck = 0;
        loop {
            let is_moving = self.meta.leads() && self.round(&mut stuck).await;
            sleep(if is_moving { STEP_PAUSE } else { IDLE_PAUSE }).await;
        }
    }

    /// Starts what is due and takes a step of each move; whether there are any.
    async fn round(&self, stuck: &mut usize) -> bool {
        let state = self.meta.state();
        let lost = without_majority(&state);
        if lost.len() != *stuck {
            *stuck = lost.len();
            say_stuck(&lost);
        }
        for (shard, expect, id) in hopeless_moves(&state) {
            info!(%shard, "a move is cancelled: a store that it leads to is gone");
            self.propose(Command::CancelMove { shard, expect, id }).await;
        }
        for PlannedMove { shard, expect, new } in next_moves(&state, MOVES_MAX) {
            let id = MoveId(self.env.random.next_u128());
            info!(%shard, ?new, "a move starts");
            self.propose(Command::StartMove { shard, expect, id, new }).await;
        }
        let state = self.meta.state();
        let answers = self.ask_all(&state).await;
        let mut is_moving = false;
        for shard in state.shards.iter().filter(|shard| shard.moving.is_some()) {
            is_moving = true;
            let said = answers.get(&shard.shard).cloned().unwrap_or_default();
            if let Some(command) = next_command(shard, &said) {
                self.propose(command).await;
            }
        }
        is_moving
    }

    /// Asks every store once, about all of its shards.
    async fn ask_all(&self, state: &ClusterState) -> BTreeMap<ShardId, Answers> {
        let questions = questions(state);
        let asked = questions.into_iter().map(|(member, Questions { fence, holds, fenced })| async move {
            let is_fenced =
                async { if fence.is_empty() { None } else { self.asker.fence(member, fence).await } };
            let is_held = async {
                if holds.is_empty() { BTreeSet::new() } else { self.asker.holds(member, holds, fenced).await }
            };
            (member, tokio::join!(is_fenced, is_held))
        });
        let mut answers: BTreeMap<ShardId, Answers> = BTreeMap::new();
        for (member, (fenced, holds)) in join_all(asked).await {
            if let Some((shards, position)) = fenced {
                for shard in shards {
                    answers.entry(shard).or_default().fenced.insert(member.replica, position);
                }
            }
            for shard in holds {
                answers.entry(shard).or_default().holds.insert(member.replica);
            }
        }
        answers
    }

    async fn propose(&self, command: Command) {
        match self.meta.propose(command.clone()).await {
            Ok(applied) => {
                if let (Command::FinishMove { shard, .. }, Applied::Epoch(epoch)) = (&command, &applied) {
                    info!(%shard, %epoch, "a move is finished");
                }
                debug!(?command, ?applied, "a step of a move");
            }
            // Somebody else took it, or the state went on: the next round looks again.
            Err(ProposeError::Rejected(rejected)) => {
                debug!(?command, %rejected, "a step of a move was refused")
            }
            Err(error) => debug!(?command, %error, "a step of a move is to be repeated"),
        }
    }
}

/// What to ask each store that exists, about all shards that move.
fn questions(state: &ClusterState) -> BTreeMap<Member, Questions> {
    let exists = |member: &Member| {
        state.nodes.get(&member.node).is_some_and(|node| node.replica == Some(member.replica))
    };
    // Members differ from shard to shard by the epoch at which they came; the store is the same.
    let store = |member: &Member| Member { since_epoch: Default::default(), ..*member };
    let mut questions: BTreeMap<Member, Questions> = BTreeMap::new();
    for shard in &state.shards {
        let (id, Asks { fence, holds, positions }) = (Shard(shard.shard.0), asks(shard));
        for member in fence.iter().filter(|member| exists(member)) {
            questions.entry(store(member)).or_default().fence.insert(id, shard.entry.clone());
        }
        for member in holds.iter().filter(|member| exists(member)) {
            let asked = questions.entry(store(member)).or_default();
            asked.holds.insert(id, shard.entry.clone());
            asked.fenced.insert(id, positions.clone());
        }
    }
    questions
}

fn say_stuck(lost: &[ShardId]) {
    if lost.is_empty() {
        info!("every shard has a majority of its stores again");
        return;
    }
    error!(
        shards = lost.len(),
        first = %lost[0],
        "shards have lost a majority of their stores for good, and are not moved: bring a lost store's directory \
         back, or accept the loss of what only they held (the command AcceptDataLoss)"
    );
}
