//! The gRPC service of the meta group. A node without a running member answers too: that it does not lead.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use oteld_proto::meta::meta_server::Meta;
use oteld_proto::meta::{
    HeartbeatReply, HeartbeatRequest, JoinReply, JoinRequest, MetaMember, NotLeader, ProbeReply,
    ProbeRequest, ProposeReply, ProposeRequest, RaftReply, RaftRequest, ReadReply, ReadRequest, StatusReply,
    StatusRequest, WatchReply, WatchRequest, join_reply, propose_reply, read_reply,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::bootstrap::parse_incarnation;
use super::{Inner, lead, status};
use crate::command::Command;
use crate::ids::Incarnation;
use crate::membership::MetaNode;
use crate::raft::{CallError, Member, ReadError, WriteError};

/// States that wait for a slow watcher.
const WATCH_QUEUE: usize = 2;
/// How long a watched member may be without a leader before its watchers are sent elsewhere.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

/// Serves the meta group's RPCs. Made by [`MetaHandle::service`](super::MetaHandle::service).
pub struct MetaService {
    pub(super) inner: Arc<Inner>,
}

impl MetaService {
    fn member(&self) -> Result<Arc<Member>, NotLeader> {
        self.inner.member().ok_or_else(NotLeader::default)
    }

    /// Refuses a node of another cluster, which only a wrong address sends here (E1).
    fn check_cluster(&self, sender: &Bytes) -> Result<(), Status> {
        let own = self.inner.cluster_bytes();
        if sender.is_empty() || own.is_empty() || *sender == own {
            return Ok(());
        }
        Err(Status::failed_precondition("the sender belongs to another cluster"))
    }

    fn not_leader(&self) -> NotLeader {
        let leader = self.inner.member().and_then(|member| member.other_leader());
        NotLeader { leader_address: leader.map(|node| node.address).unwrap_or_default() }
    }
}

/// A member as messages show it.
pub(super) fn member_message(id: crate::ids::MetaId, node: MetaNode, voter: bool) -> MetaMember {
    let incarnation = incarnation_bytes(node.incarnation);
    MetaMember { id: id.0, name: node.name, address: node.address, incarnation, voter }
}

fn incarnation_bytes(incarnation: Incarnation) -> Bytes {
    Bytes::copy_from_slice(&incarnation.0.to_be_bytes())
}

#[tonic::async_trait]
impl Meta for MetaService {
    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let request = request.into_inner();
        let member = self.inner.member().ok_or_else(|| Status::unavailable("the member does not run yet"))?;
        let target = parse_incarnation(&request.target_incarnation);
        if request.target != member.id.0 || target != self.inner.incarnation {
            return Err(Status::failed_precondition(format!("this is not member {}", request.target)));
        }
        match member.call(request.call(), &request.packed).await {
            Ok(packed) => Ok(Response::new(RaftReply { packed: packed.into() })),
            Err(error @ (CallError::Malformed(_) | CallError::NoSuchCall)) => {
                Err(Status::invalid_argument(error.to_string()))
            }
        }
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        let Some(incarnation) = self.inner.incarnation else {
            return Err(Status::failed_precondition("this node is no meta member"));
        };
        let members = self.inner.member().map(|member| member.members()).unwrap_or_default();
        let members =
            members.into_iter().map(|(id, (node, voter))| member_message(id, node, voter)).collect();
        let (name, incarnation) = (self.inner.my.name.clone(), incarnation_bytes(incarnation));
        let used = self.inner.used.load(Ordering::Acquire);
        Ok(Response::new(ProbeReply { name, incarnation, members, used }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let JoinRequest { name, address, incarnation, cluster } = request.into_inner();
        self.check_cluster(&cluster)?;
        let incarnation = parse_incarnation(&incarnation)
            .ok_or_else(|| Status::invalid_argument("an incarnation has 16 bytes"))?;
        let timeout = self.inner.options.timing.propose;
        let outcome = match self.member() {
            Err(not_leader) => join_reply::Outcome::NotLeader(not_leader),
            Ok(member) => match lead::admit(&member, name, address, incarnation, timeout).await {
                Ok(id) => join_reply::Outcome::Id(id.0),
                Err(WriteError::NotLeader) => join_reply::Outcome::NotLeader(self.not_leader()),
                Err(WriteError::Unknown(why)) => join_reply::Outcome::Unknown(why),
            },
        };
        Ok(Response::new(JoinReply { outcome: Some(outcome) }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        let command: Command = rmp_serde::from_slice(&request.packed)
            .map_err(|error| Status::invalid_argument(format!("the command does not parse: {error}")))?;
        let pack = |packed: Result<Vec<u8>, rmp_serde::encode::Error>| {
            packed.map(Bytes::from).map_err(|error| Status::internal(error.to_string()))
        };
        let mut log_index = 0;
        let outcome = match self.member() {
            Err(not_leader) => propose_reply::Outcome::NotLeader(not_leader),
            Ok(member) => match member.write(command, self.inner.options.timing.propose).await {
                Ok(written) => {
                    log_index = written.index;
                    match written.answer {
                        Ok(applied) => {
                            propose_reply::Outcome::Applied(pack(rmp_serde::to_vec_named(&applied))?)
                        }
                        Err(rejected) => {
                            propose_reply::Outcome::Rejected(pack(rmp_serde::to_vec_named(&rejected))?)
                        }
                    }
                }
                Err(WriteError::NotLeader) => propose_reply::Outcome::NotLeader(self.not_leader()),
                Err(WriteError::Unknown(why)) => propose_reply::Outcome::Unknown(why),
            },
        };
        Ok(Response::new(ProposeReply { outcome: Some(outcome), log_index }))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let mut log_index = 0;
        let outcome = match self.member() {
            Err(not_leader) => read_reply::Outcome::NotLeader(not_leader),
            Ok(member) => match member.read(self.inner.options.timing.propose).await {
                Ok(applied) => {
                    log_index = applied.index;
                    read_reply::Outcome::State(applied.state.encode().into())
                }
                Err(ReadError::NotLeader) => read_reply::Outcome::NotLeader(self.not_leader()),
                Err(ReadError::Unavailable(why)) => read_reply::Outcome::Unavailable(why),
            },
        };
        Ok(Response::new(ReadReply { outcome: Some(outcome), log_index }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let member = self.inner.member().ok_or_else(|| Status::unavailable("the member does not run yet"))?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        let after = request.into_inner().after;
        self.inner.env.tasks.spawn(send_states(member, after, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        if self.inner.member().is_some_and(|member| member.leads()) {
            let HeartbeatRequest { name, time_unix_nano } = request.into_inner();
            self.inner.heard_from(name, time_unix_nano);
            return Ok(Response::new(HeartbeatReply { not_leader: None }));
        }
        Ok(Response::new(HeartbeatReply { not_leader: Some(self.not_leader()) }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(status::message(&self.inner)))
    }
}

/// Sends every state beyond `after`, until the watcher leaves, the member stops, or it has lost the group.
async fn send_states(member: Arc<Member>, mut after: u64, sender: mpsc::Sender<Result<WatchReply, Status>>) {
    let mut states = member.watch();
    let mut metrics = member.metrics();
    drop(member);
    loop {
        let state = states.borrow_and_update().clone();
        if state.changed_at > after {
            after = state.changed_at;
            if sender.send(Ok(WatchReply { state: state.encode().into() })).await.is_err() {
                return;
            }
        }
        tokio::select! {
            biased;
            () = sender.closed() => return,
            changed = states.changed() => if changed.is_err() { return },
            () = lost_group(&mut metrics) => return,
        }
    }
}

async fn lost_group(metrics: &mut tokio::sync::watch::Receiver<crate::raft::Metrics>) {
    loop {
        let led = |metrics: &crate::raft::Metrics| metrics.current_leader.is_some();
        if metrics.wait_for(|metrics| !led(metrics)).await.is_err() {
            return;
        }
        match tokio::time::timeout(LEADERLESS_MAX, metrics.wait_for(led)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
