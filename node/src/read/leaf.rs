//! The storage side of a query: check the fence, make the view complete, answer from it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oteld_env::Env;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{LeafRequest, Refusal};
use oteld_query::{LeafContext, Limits, QueryError, QueryErrorKind};
use oteld_store::model::{Shard, Tenant};
use oteld_store::scan::ScanBudget;
use serde::Deserialize;
use tokio::time::Instant;

use super::complete::Completer;
use crate::rpc::fence::refuse;

/// Answers leaf requests on a storage node.
#[derive(Clone)]
pub struct Leaf {
    env: Env,
    completer: Completer,
}

/// The encoded reply and what it cost.
pub struct LeafAnswer {
    /// MessagePack of the query crate's `LeafReply`.
    pub reply: Bytes,
    pub rows_scanned: u64,
    pub bytes_scanned: u64,
}

/// Stops the scan when the one who asked went away.
struct CancelOnDrop(Arc<ScanBudget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Leaf {
    pub fn new(env: Env, completer: Completer) -> Self {
        Leaf { env, completer }
    }

    /// # Errors
    /// The refusal to answer with; a query error travels inside one.
    pub async fn answer(&self, request: LeafRequest) -> Result<LeafAnswer, Refusal> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let envelope = request.envelope.unwrap_or_default();
        let shards = self.completer.fence.admit_all(&envelope).await?;
        let query: oteld_query::LeafRequest = unpack(&request.request, "the leaf request")?;
        let limits: Limits = unpack(&request.limits, "the limits")?;
        let pin = match request.eventual || oteld_env::mutant("completeness-unchecked") {
            true => self.completer.store.pin(),
            false => self.completer.complete(&shards, deadline).await?,
        };
        let shards: Arc<BTreeSet<Shard>> = Arc::new(shards.into_iter().collect());
        let tenant = Tenant::new(&request.tenant);
        let budget = Arc::new(ScanBudget::new(limits.rows_scanned_max, limits.bytes_scanned_max));
        let _cancel = CancelOnDrop(budget.clone());
        let scan_budget = budget.clone();
        let work = self.env.tasks.blocking(move || {
            let context = LeafContext { scan: &pin, tenant, shards, budget: &scan_budget, limits: &limits };
            oteld_query::leaf(&context, &query).map(|reply| rmp_serde::to_vec_named(&reply))
        });
        let reply = tokio::time::timeout_at(deadline, work).await.map_err(|_| {
            refuse_query(&QueryError::new(
                QueryErrorKind::Timeout,
                "the query reached its time limit on a storage node",
            ))
        })?;
        let reply = reply.map_err(|error| self.refuse_unanswered(&error))?;
        let reply = reply.map_err(|error| refuse(Reason::Internal, format!("packing a reply: {error}")))?;
        Ok(LeafAnswer {
            reply: Bytes::from(reply),
            rows_scanned: budget.rows(),
            bytes_scanned: budget.bytes(),
        })
    }

    /// What this store cannot give another replica may have: only an error of the query itself ends the query.
    fn refuse_unanswered(&self, error: &QueryError) -> Refusal {
        match self.completer.store.lost() {
            Some(lost) => refuse(Reason::Lost, lost),
            None if error.kind == QueryErrorKind::Internal => refuse(Reason::Internal, error.message.clone()),
            None => refuse_query(error),
        }
    }
}

fn unpack<'a, T: Deserialize<'a>>(bytes: &'a Bytes, what: &str) -> Result<T, Refusal> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| refuse(Reason::Malformed, format!("{what} does not parse: {error}")))
}

/// A query error as it travels to the front.
pub fn refuse_query(error: &QueryError) -> Refusal {
    let message = serde_json::to_string(error).expect("an error is plain data");
    refuse(Reason::Query, message)
}
