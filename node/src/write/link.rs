//! The road from a front to one storage node: a long-lived stream of appends and their replies, or, where the
//! store is in the same node, a function call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oteld_env::Env;
use oteld_proto::node::{AppendReply, AppendRequest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::debug;

use crate::rpc::peers::Peers;
use crate::write::append::Appender;

/// Appends that may wait for one storage node. More wait at the sender, which has a deadline.
const QUEUE_LENGTH_MAX: usize = 256;

/// Bytes of batches that one storage node may have unanswered; credits, in the words of the design.
const CREDIT_BYTES: usize = 64 << 20;

/// Pause after a connection failed, before the next append tries again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Sends appends to one storage node.
#[derive(Clone)]
pub struct Link {
    road: Road,
    credits: Arc<Semaphore>,
}

#[derive(Clone)]
enum Road {
    Local(Env, Appender),
    Remote(mpsc::Sender<Outgoing>),
}

/// An append on its way, and who waits for its reply.
struct Outgoing {
    request: AppendRequest,
    credit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<AppendReply, String>>,
}

impl Link {
    /// Into the store of this very node.
    pub fn local(env: &Env, appender: Appender) -> Link {
        Link::over(Road::Local(env.clone(), appender))
    }

    /// A stream to the node at `address`, opened at the first append and again after it broke.
    pub fn connect(env: &Env, peers: Peers, address: String) -> Link {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        env.tasks.spawn(run(peers, address, receiver));
        Link::over(Road::Remote(sender))
    }

    fn over(road: Road) -> Link {
        Link { road, credits: Arc::new(Semaphore::new(CREDIT_BYTES)) }
    }

    /// # Errors
    /// Why there is no reply, in words; whether the append happened is unknown then.
    pub async fn append(&self, request: AppendRequest) -> Result<AppendReply, String> {
        let gone = || "the link to the node is closed".to_owned();
        let bytes = request.batch.len().clamp(1, CREDIT_BYTES) as u32;
        let credit = self.credits.clone().acquire_many_owned(bytes).await.map_err(|_| gone())?;
        match &self.road {
            // A task of its own: a front that stops waiting at the majority must not stop this append half-way.
            Road::Local(env, appender) => {
                let appender = appender.clone();
                let append = env.tasks.spawn(async move {
                    let reply = appender.append(request).await;
                    drop(credit);
                    reply
                });
                append.await.map_err(|error| format!("the local append ended: {error}"))
            }
            Road::Remote(queue) => {
                let (reply, answer) = oneshot::channel();
                queue.send(Outgoing { request, credit, reply }).await.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())?
            }
        }
    }
}

/// One connection after the other until the front is gone.
async fn run(peers: Peers, address: String, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = BTreeMap::new();
        let error = match converse(&peers, &address, first, &mut queue, &mut waiting).await {
            Ok(()) => return,
            Err(error) => error,
        };
        debug!(%address, %error, "the append stream broke");
        for (_, reply) in waiting.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        // Whoever queued meanwhile would fail the same way: say so at once, so that they count this node out.
        while let Ok(outgoing) = queue.try_recv() {
            let _ = outgoing.reply.send(Err(error.clone()));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Who waits for which reply; the credit comes back with it.
type Waiting = BTreeMap<u64, (OwnedSemaphorePermit, oneshot::Sender<Result<AppendReply, String>>)>;

/// Sends what is queued and hands out replies over one stream; ends well when the front is gone.
async fn converse(
    peers: &Peers,
    address: &str,
    first: Outgoing,
    queue: &mut mpsc::Receiver<Outgoing>,
    waiting: &mut Waiting,
) -> Result<(), String> {
    let (requests, outbound) = mpsc::channel(QUEUE_LENGTH_MAX);
    let mut client = peers.append_client(address);
    let opening = client.append(ReceiverStream::new(outbound));
    let mut next = Some(first);
    let mut sequence = 0;
    let mut replies: Streaming<AppendReply> = match opening.await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            waiting.extend(next.map(|outgoing| (0, (outgoing.credit, outgoing.reply))));
            return Err(describe(address, &status));
        }
    };
    loop {
        tokio::select! {
            biased;
            reply = replies.message() => match reply.map_err(|status| describe(address, &status))? {
                None => return Err(format!("{address} closed the stream")),
                Some(reply) => {
                    if let Some((_, waiter)) = waiting.remove(&reply.sequence) {
                        let _ = waiter.send(Ok(reply));
                    }
                }
            },
            place = requests.reserve(), if next.is_some() => {
                let Outgoing { mut request, credit, reply } =
                    next.take().expect("checked by the branch's condition");
                sequence += 1;
                request.sequence = sequence;
                waiting.insert(sequence, (credit, reply));
                place.map_err(|_| format!("{address} closed the stream"))?.send(request);
            }
            outgoing = queue.recv(), if next.is_none() => match outgoing {
                None => return Ok(()),
                // Nobody waits for it any more: a retry or the peers bring it.
                Some(outgoing) if outgoing.reply.is_closed() => {}
                Some(outgoing) => next = Some(outgoing),
            },
        }
    }
}

fn describe(address: &str, status: &tonic::Status) -> String {
    format!("{address}: {}", status.message())
}
