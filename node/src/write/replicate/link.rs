//! The road from a front to one storage node: a long-lived stream of appends and their replies, or, where the
//! store is in the same node, a function call.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use oteld_env::Env;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{AppendReply, AppendRequest, Envelope};
use oteld_store::batch::Batch;
use parking_lot::Mutex;
use thiserror::Error;
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

/// Definitions that a storage node is taken to know.
const KNOWN_MAX: usize = 256 << 10;

/// Sends appends to one storage node.
#[derive(Clone)]
pub(super) struct Link {
    road: Road,
    credits: Arc<Semaphore>,
    known: Arc<Mutex<Known>>,
}

/// Why there is no reply, in words; whether the append happened is unknown, unless there was no connection.
#[derive(Clone, Debug, Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Broken(String),
}

/// Hashes of definitions that were acknowledged, and need not be sent again. The node may have forgotten them: it
/// refuses the batch then and gets all of it.
#[derive(Default)]
struct Known {
    recent: HashSet<u128>,
    older: HashSet<u128>,
}

impl Known {
    fn contains(&self, hash: u128) -> bool {
        self.recent.contains(&hash) || self.older.contains(&hash)
    }

    fn learn(&mut self, batch: &Batch) {
        for hash in batch.definition_hashes() {
            if self.recent.insert(hash) && self.recent.len() > KNOWN_MAX / 2 {
                self.older = std::mem::take(&mut self.recent);
            }
        }
    }

    fn forget(&mut self) {
        *self = Known::default();
    }
}

#[derive(Clone)]
enum Road {
    Local(Env, Appender),
    Remote(mpsc::Sender<Outgoing>),
}

/// An append on its way, and who waits for its reply.
struct Outgoing {
    envelope: Envelope,
    batch: Batch,
    credit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<AppendReply, LinkError>>,
}

impl Link {
    /// Into the store of this very node.
    pub(super) fn local(env: &Env, appender: Appender) -> Link {
        Link::over(Road::Local(env.clone(), appender))
    }

    /// A stream to the node at `address`, opened at the first append and again after it broke.
    pub(super) fn connect(env: &Env, peers: Peers, address: String) -> Link {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let link = Link::over(Road::Remote(sender));
        env.tasks.spawn(run(peers, address, link.known.clone(), receiver));
        link
    }

    fn over(road: Road) -> Link {
        Link { road, credits: Arc::new(Semaphore::new(CREDIT_BYTES)), known: Arc::default() }
    }

    /// Sends a batch, without the definitions that the node knows; with all of them where it turns out not to.
    pub(super) async fn append(&self, envelope: Envelope, batch: Batch) -> Result<AppendReply, LinkError> {
        let reply = self.send(envelope.clone(), batch.clone()).await?;
        let refusal = reply.refusal.as_ref().map(|refusal| refusal.reason());
        if refusal == Some(Reason::MissingDefinitions) {
            self.known.lock().forget();
            return self.send(envelope, batch).await;
        }
        Ok(reply)
    }

    async fn send(&self, envelope: Envelope, batch: Batch) -> Result<AppendReply, LinkError> {
        let gone = || LinkError::Broken("the link to the node is closed".to_owned());
        let bytes = batch.bytes().len().clamp(1, CREDIT_BYTES) as u32;
        let credit = self.credits.clone().acquire_many_owned(bytes).await.map_err(|_| gone())?;
        match &self.road {
            // A task of its own: a front that stops waiting at the majority must not stop this append half-way.
            Road::Local(env, appender) => {
                let (appender, known) = (appender.clone(), self.known.clone());
                let append = env.tasks.spawn(async move {
                    let reply = appender.append(request(0, envelope, &batch, &known)).await;
                    learn(&known, &batch, &reply);
                    drop(credit);
                    reply
                });
                append.await.map_err(|error| LinkError::Broken(format!("the local append ended: {error}")))
            }
            Road::Remote(queue) => {
                let (reply, answer) = oneshot::channel();
                queue.send(Outgoing { envelope, batch, credit, reply }).await.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())?
            }
        }
    }
}

fn request(sequence: u64, envelope: Envelope, batch: &Batch, known: &Mutex<Known>) -> AppendRequest {
    let known = known.lock();
    let batch = batch.bytes_for(&|hash| known.contains(hash));
    AppendRequest { sequence, envelope: Some(envelope), batch }
}

/// What the node answered for, it knows; also where the front no longer waits for it.
fn learn(known: &Mutex<Known>, batch: &Batch, reply: &AppendReply) {
    if reply.refusal.is_none() {
        known.lock().learn(batch);
    }
}

/// One connection after the other until the front is gone.
async fn run(peers: Peers, address: String, known: Arc<Mutex<Known>>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = BTreeMap::new();
        let error = match converse(&peers, &address, &known, first, &mut queue, &mut waiting).await {
            Ok(()) => return,
            Err(error) => error,
        };
        debug!(%address, %error, "the append stream broke");
        for Sent { reply, .. } in waiting.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        // Whoever queued meanwhile would fail the same way: say so at once, so that they count this node out.
        while let Ok(outgoing) = queue.try_recv() {
            let _ = outgoing.reply.send(Err(error.clone()));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// An append without its reply yet; the credit comes back with it.
struct Sent {
    batch: Batch,
    #[expect(dead_code, reason = "held, not used")]
    credit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<AppendReply, LinkError>>,
}

/// Sends what is queued and hands out replies over one stream; ends well when the front is gone. `waiting`: what was
/// sent, by sequence.
async fn converse(
    peers: &Peers,
    address: &str,
    known: &Mutex<Known>,
    first: Outgoing,
    queue: &mut mpsc::Receiver<Outgoing>,
    waiting: &mut BTreeMap<u64, Sent>,
) -> Result<(), LinkError> {
    let (requests, outbound) = mpsc::channel(QUEUE_LENGTH_MAX);
    let mut client = peers.append_client(address);
    let opening = client.append(ReceiverStream::new(outbound));
    let mut replies: Streaming<AppendReply> = match opening.await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            let Outgoing { batch, credit, reply, .. } = first;
            waiting.insert(0, Sent { batch, credit, reply });
            return Err(LinkError::Unreachable(describe(address, &status)));
        }
    };
    let mut next = Some(first);
    let mut sequence = 0;
    let closed = || LinkError::Broken(format!("{address} closed the stream"));
    loop {
        tokio::select! {
            biased;
            reply = replies.message() => {
                let reply = reply.map_err(|status| LinkError::Broken(describe(address, &status)))?;
                let reply = reply.ok_or_else(closed)?;
                if let Some(sent) = waiting.remove(&reply.sequence) {
                    learn(known, &sent.batch, &reply);
                    let _ = sent.reply.send(Ok(reply));
                }
            },
            place = requests.reserve(), if next.is_some() => {
                let Outgoing { envelope, batch, credit, reply } =
                    next.take().expect("checked by the branch's condition");
                sequence += 1;
                let request = request(sequence, envelope, &batch, known);
                waiting.insert(sequence, Sent { batch, credit, reply });
                place.map_err(|_| closed())?.send(request);
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
