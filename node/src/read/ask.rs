//! Asking the cluster: one leaf request to every node that holds shards, all replies together.

use std::sync::Arc;

use async_trait::async_trait;
use oteld_env::Env;
use oteld_query::{LeafReply, LeafRequest, Limits, QueryError};
use oteld_store::model::Tenant;

/// Everything that the leaves said.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub replies: Vec<LeafReply>,
    /// Why the result may miss rows, one sentence each; empty when it is complete (P5). Every API must pass it on
    /// in its own way and never cache such a result.
    pub incomplete: Vec<String>,
    /// Rows decoded and stored bytes read by all leaves.
    pub rows_scanned: u64,
    pub bytes_scanned: u64,
}

/// How a request wants its answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct AskOptions {
    /// Skip the completeness check: faster, and may miss what was acknowledged just now.
    pub eventual: bool,
    /// Shorter than the limit of the configuration, when set.
    pub timeout_ms: Option<u64>,
}

/// Carries a leaf request to all shards. The real one is the cluster; tests ask a row set.
/// Dropping the future cancels the work everywhere.
#[async_trait]
pub trait Ask: Send + Sync {
    async fn ask(
        &self,
        tenant: &Tenant,
        request: LeafRequest,
        options: AskOptions,
    ) -> Result<Answer, QueryError>;
}

/// What every query handler has.
#[derive(Clone)]
pub struct ReadState {
    pub env: Env,
    pub ask: Arc<dyn Ask>,
    pub limits: Arc<Limits>,
}
