//! From a routed request to a majority of every part's replicas (PROTOCOL F1 to F3).

mod gather;
mod sending;
mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use oteld_cluster::ids::NodeId;
use oteld_cluster::shard_map::{Entry, Member};
use oteld_env::Env;
use oteld_store::batch::PartRows;
use oteld_store::model::{Signal, Tenant};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::request::{Ingest, WriteError, WriteRequest};
use super::route::route;
use crate::rpc::peers::Peers;
use crate::rpc::service::StorageParts;
use crate::server::retention::metadata_signal;
use crate::view::ClusterView;
use gather::Lanes;
use link::Link;

/// The front's end of the write path, from whole requests to acknowledged ones.
pub struct Replicator {
    lanes: Lanes,
    view: ClusterView,
    timeout: Duration,
}

/// What a request has for one replica set.
struct Share {
    parts: Vec<PartRows>,
    /// Of the shard of each part.
    entries: Vec<Entry>,
    /// Of the whole request, as an upper bound.
    bytes: usize,
}

#[async_trait]
impl Ingest for Replicator {
    async fn write(&self, request: WriteRequest) -> Result<(), WriteError> {
        if request.rows.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.timeout;
        let signal = request.rows.signal();
        let shares = self.shares(request)?;
        let writes = shares.into_iter().map(|(set, share)| self.lanes.write(signal, set, share, deadline));
        let mut writes: FuturesUnordered<_> = writes.collect();
        while let Some(outcome) = writes.next().await {
            outcome?;
        }
        Ok(())
    }

    fn floor(&self, tenant: &Tenant, signal: Signal) -> u64 {
        self.view.state().floor(&tenant.0, metadata_signal(signal))
    }
}

impl Replicator {
    /// `local`: the store of this very node, once it is part of the cluster.
    pub fn new(
        env: Env,
        view: ClusterView,
        peers: Peers,
        local: Arc<OnceLock<StorageParts>>,
        timeout: Duration,
    ) -> Self {
        let links = Links {
            env: env.clone(),
            view: view.clone(),
            peers,
            local,
            local_link: OnceLock::new(),
            remote: Mutex::default(),
        };
        Replicator { lanes: Lanes::new(env, links), view, timeout }
    }

    /// Cuts the request, by replica set.
    fn shares(&self, request: WriteRequest) -> Result<BTreeMap<Vec<Member>, Share>, WriteError> {
        let unplaced = || WriteError::Unavailable {
            reason: "the cluster has not placed its shards yet: not enough storage nodes have joined".into(),
            retry_after: Duration::from_secs(1),
        };
        let split = self.view.split().ok_or_else(unplaced)?;
        let WriteRequest { tenant, id, digest, bytes, rows } = request;
        let mut sets: BTreeMap<Vec<Member>, Share> = BTreeMap::new();
        for (shard, rows) in route(&tenant, id, split, rows) {
            let entry = self.view.entry(shard).ok_or_else(unplaced)?;
            let empty = || Share { parts: Vec::new(), entries: Vec::new(), bytes };
            let share = sets.entry(entry.members()).or_insert_with(empty);
            let (tenant, epoch) = (tenant.clone(), entry.epoch.0);
            share.parts.push(PartRows { request: id, digest, tenant, shard, epoch, rows });
            share.entries.push(entry);
        }
        Ok(sets)
    }
}

/// The ways to the stores, each made when it is first needed.
struct Links {
    env: Env,
    view: ClusterView,
    peers: Peers,
    local: Arc<OnceLock<StorageParts>>,
    local_link: OnceLock<Link>,
    remote: Mutex<BTreeMap<NodeId, (String, Link)>>,
}

impl Links {
    /// `None` while the member's address is not known.
    fn to(&self, member: Member) -> Option<Link> {
        if let Some(local) = self.local.get()
            && local.fence.me() == member.replica
        {
            let link = self.local_link.get_or_init(|| Link::local(&self.env, local.appender.clone()));
            return Some(link.clone());
        }
        let address = self.view.address(member.node)?;
        let mut remote = self.remote.lock();
        match remote.get(&member.node) {
            Some((known, link)) if *known == address => Some(link.clone()),
            _ => {
                let link = Link::connect(&self.env, self.peers.clone(), address.clone());
                remote.insert(member.node, (address, link.clone()));
                Some(link)
            }
        }
    }
}
