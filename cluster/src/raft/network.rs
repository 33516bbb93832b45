//! Connections to members, and Raft's RPCs over them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use oteld_env::Net;
use oteld_proto::meta::meta_client::MetaClient;
use oteld_proto::meta::{RaftCall, RaftRequest};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint, Uri};

use super::addresses::Addresses;
use super::{Types, pack};
use crate::ids::MetaId;
use crate::membership::{Founder, MetaNode};

/// Longest message between members: a whole state.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that swallows packets is given up after these two together.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Pause before a member that could not be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// One lazy connection per address, and where members are tried. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Channels {
    net: Net,
    addresses: Arc<Addresses>,
    open: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Channels {
    /// `members`: the configured ones.
    pub(crate) fn new(net: Net, members: &[Founder]) -> Self {
        Channels { net, addresses: Arc::new(Addresses::new(members)), open: Arc::default() }
    }

    /// A client of the member at `address` (`host:port`); it connects with its first request.
    ///
    /// # Errors
    /// When the address is not one.
    pub(crate) fn client(&self, address: &str) -> Result<MetaClient<Channel>, tonic::transport::Error> {
        let mut open = self.open.lock();
        let channel = match open.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.connect(address)?;
                open.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(MetaClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn connect(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let (net, target): (Net, Arc<str>) = (self.net, address.into());
        let connector = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move { net.connect(&target).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

/// The way from this member to another one.
pub(crate) struct Link {
    channels: Channels,
    target: MetaId,
    node: MetaNode,
}

type CallResult<T, E = RaftError<MetaId>> = Result<T, RPCError<MetaId, MetaNode, E>>;

impl Link {
    async fn call<Q, T, E>(&self, call: RaftCall, request: &Q) -> CallResult<T, E>
    where
        Q: Serialize,
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let unreachable = |error: &tonic::Status| RPCError::Unreachable(Unreachable::new(error));
        let attempt = self.channels.addresses.attempt(self.target, &self.node);
        let mut client = self
            .channels
            .client(&attempt.address)
            .map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        let request = RaftRequest {
            call: call.into(),
            target: self.target.0,
            target_incarnation: Bytes::copy_from_slice(&self.node.incarnation.0.to_be_bytes()),
            packed: pack(request).into(),
        };
        let reply = client.raft(request).await.map_err(|status| unreachable(&status))?;
        attempt.answered();
        let result: Result<T, E> = rmp_serde::from_slice(&reply.into_inner().packed)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl RaftNetworkFactory<Types> for Channels {
    type Network = Link;

    async fn new_client(&mut self, target: MetaId, node: &MetaNode) -> Link {
        Link { channels: self.clone(), target, node: node.clone() }
    }
}

// openraft puts a timeout around every call.
impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> CallResult<AppendEntriesResponse<MetaId>> {
        self.call(RaftCall::AppendEntries, &request).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> CallResult<InstallSnapshotResponse<MetaId>, RaftError<MetaId, InstallSnapshotError>> {
        self.call(RaftCall::InstallSnapshot, &request).await
    }

    async fn vote(&mut self, request: VoteRequest<MetaId>, _: RPCOption) -> CallResult<VoteResponse<MetaId>> {
        self.call(RaftCall::Vote, &request).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_PAUSE))
    }
}
