//! The storage side of a write: check the fence, append, answer for each part (PROTOCOL A1 to A4 and E).

use std::sync::Arc;

use bytes::Bytes;
use oteld_cluster::ids::Epoch;
use oteld_proto::node::part_reply::Outcome;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{AppendReply, AppendRequest, PartReply, Refusal};
use oteld_store::batch::Batch;
use oteld_store::{AppendError, Appended, Store};

use crate::rpc::fence::{Fence, Verdict, refuse};

/// Appends batches to the node's store. The same for a call from this process and from the network.
#[derive(Clone)]
pub struct Appender {
    store: Store,
    fence: Arc<Fence>,
}

impl Appender {
    pub fn new(store: Store, fence: Arc<Fence>) -> Self {
        Appender { store, fence }
    }

    /// Answers when every acknowledged part is durable here.
    pub async fn append(&self, request: AppendRequest) -> AppendReply {
        let sequence = request.sequence;
        match self.try_append(request).await {
            Ok(parts) => AppendReply { sequence, refusal: None, parts },
            Err(refusal) => AppendReply { sequence, refusal: Some(refusal), parts: Vec::new() },
        }
    }

    async fn try_append(&self, request: AppendRequest) -> Result<Vec<PartReply>, Refusal> {
        let envelope = request.envelope.unwrap_or_default();
        self.fence.admit(&envelope).await?;
        let batch =
            Batch::parse(request.batch).map_err(|error| refuse(Reason::Malformed, error.to_string()))?;
        // From here until the rows are published no epoch changes.
        let epochs = self.fence.hold().await;
        let mut replies: Vec<PartReply> = Vec::with_capacity(batch.parts().len());
        let mut admitted: Vec<usize> = Vec::with_capacity(batch.parts().len());
        for (index, part) in batch.parts().iter().enumerate() {
            let mut verdict = self.fence.check(part.shard, Epoch(part.epoch));
            if matches!(verdict, Verdict::Stale(_)) && oteld_env::mutant("stale-epoch-accepted") {
                verdict = Verdict::Ok;
            }
            if verdict == Verdict::Ok {
                admitted.push(index);
            }
            replies.push(reply_of(verdict, part.epoch));
        }
        let _epochs = (!oteld_env::mutant("append-not-fenced")).then_some(epochs);
        let outcomes = self.store.append(&batch, &admitted).await.map_err(refusal_of)?;
        for (index, outcome) in admitted.into_iter().zip(outcomes) {
            let outcome = match outcome {
                // What lies below the retention floor does not exist anywhere: there is nothing left to keep.
                Appended::Applied | Appended::Duplicate | Appended::BelowFloor => Outcome::Acknowledged,
                Appended::Conflict if oteld_env::mutant("conflict-acknowledged") => Outcome::Acknowledged,
                Appended::Conflict => Outcome::Conflict,
            };
            replies[index].outcome = outcome.into();
        }
        Ok(replies)
    }
}

fn reply_of(verdict: Verdict, epoch: u64) -> PartReply {
    let (outcome, entry) = match verdict {
        Verdict::Ok => (Outcome::Unspecified, Bytes::new()),
        Verdict::Stale(entry) => (Outcome::Stale, Bytes::from(entry.encode())),
        Verdict::NeedEntry => (Outcome::NeedEntry, Bytes::new()),
        Verdict::NotMember => (Outcome::NotMember, Bytes::new()),
    };
    PartReply { outcome: outcome.into(), epoch, entry }
}

fn refusal_of(error: AppendError) -> Refusal {
    let reason = match &error {
        AppendError::ReadOnly { .. } => Reason::ReadOnly,
        AppendError::Busy { .. } => Reason::Overloaded,
        AppendError::MissingDefinitions(_) => Reason::MissingDefinitions,
        AppendError::Format(_) => Reason::Malformed,
        _ => Reason::Internal,
    };
    refuse(reason, error.to_string())
}
