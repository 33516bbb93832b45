//! The internal RPC messages between nodes; generated code, no logic.

/// The meta group.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod meta {
    tonic::include_proto!("oteld.meta.v1");
}

/// Between nodes: append, tail, fetch, check, hold, leaf.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod node {
    tonic::include_proto!("oteld.node.v1");
}
