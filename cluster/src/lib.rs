//! Membership, placement and the shard map, held by the meta Raft group.
//!
//! The pure parts come first: what the cluster's state is ([`state`]), how a [`command`] changes it, who may be a
//! quorum of what ([`shard_map`]) where shards go ([`placement`]), which moves would bring them there ([`plan`]) and when data goes
//! ([`retention`]). The rest keeps that state on every node:
//! [`raft`] replicates it among the meta members and [`handle`] is what the other parts of a node hold.

mod checked_file;
pub mod command;
pub mod handle;
pub mod ids;
pub mod membership;
pub mod placement;
pub mod plan;
pub mod raft;
pub mod retention;
pub mod shard_map;
pub mod state;
