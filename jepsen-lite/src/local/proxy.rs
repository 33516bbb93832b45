//! The connections of a mesh: bytes of each direction pass under the rule of the link that they travel on.
//!
//! A connection that A made to B carries what A sends on the link A to B and what B sends on the link B to A. The kernel
//! accepts a connection before the proxy can say anything: one that is cut off is open and silent, as if its first packet
//! were lost, and one that is refused is reset at once.

#![allow(clippy::disallowed_methods, reason = "a proxy is between processes, and part of no node")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{LinkState, Rule};

/// How old a connection may become on a link that resets.
pub(super) const RESET_AFTER: Duration = Duration::from_millis(300);

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that are on their way: more wait at the sender.
const CHUNKS_MAX: usize = 64;
/// Bytes of a connection that a cut swallows; more wait at the sender, as in a socket whose packets are not acknowledged.
const SWALLOWED_BYTES_MAX: usize = 256 << 10;
/// Longest that one connection attempt to a node takes; a paused one accepts in its kernel.
const DIAL_WAIT: Duration = Duration::from_secs(5);

/// The way of the connections that A makes to B.
pub(super) struct Path {
    pub(super) target: SocketAddr,
    /// From A to B.
    pub(super) forth: Arc<LinkState>,
    /// From B to A.
    pub(super) back: Arc<LinkState>,
}

/// Takes connections for ever.
pub(super) async fn serve(listener: TcpListener, path: Path) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(carry(stream, path.target, path.forth.clone(), path.back.clone()));
                }
                // Of the connection, or too many open files: others may come.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection ends, and not because its two ends said all that they had to say.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Broken
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, forth: Arc<LinkState>, back: Arc<LinkState>) {
    let Some(mut far) = dial(target, &forth, &back).await else {
        reset(&near);
        return;
    };
    // Nagle's delay is no fault that anybody asked for.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let begun = Instant::now();
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let there = pump(near_read, far_write, &forth, begun);
    let and_back = pump(far_read, near_write, &back, begun);
    if tokio::try_join!(there, and_back).is_err() {
        reset(&near);
        reset(&far);
    }
}

/// Connects to the target as soon as the rules let it; `None` where the connection has to be reset.
async fn dial(target: SocketAddr, forth: &LinkState, back: &LinkState) -> Option<TcpStream> {
    let (mut there, mut and_back) = (forth.rules(), back.rules());
    loop {
        let (forth_rule, back_rule) = (*there.borrow_and_update(), *and_back.borrow_and_update());
        if forth_rule.refuse {
            forth.count_reset();
            return None;
        }
        if forth_rule.cut || back_rule.cut {
            if forth_rule.cut {
                forth.count_held_back(1)
            } else {
                back.count_held_back(1)
            }
            there.wait_for(|rule| !rule.cut).await.ok()?;
            and_back.wait_for(|rule| !rule.cut).await.ok()?;
            return None;
        }
        if !forth_rule.hold && !back_rule.hold {
            sleep(Duration::from_millis(forth_rule.delay_ms + back_rule.delay_ms)).await;
            return tokio::time::timeout(DIAL_WAIT, TcpStream::connect(target)).await.ok()?.ok();
        }
        tokio::select! {
            changed = there.changed() => changed.ok()?,
            changed = and_back.changed() => changed.ok()?,
        }
    }
}

/// The socket's end tells the other side that the connection is broken, and not that all was said.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

struct Chunk {
    bytes: Bytes,
    read: Instant,
    /// It was counted as late when a hold stopped it: what proves a fault must be there when the fault ends.
    is_counted: bool,
}

/// Bytes from one socket to another until the first has no more.
async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, link: &LinkState, begun: Instant) -> Result<(), Broken> {
    let (send, receive) = mpsc::channel(CHUNKS_MAX);
    let writer = Writer { to, link, rules: link.rules(), begun, swallowed: 0, held_until: None };
    tokio::try_join!(read(from, send), writer.run(receive))?;
    Ok(())
}

/// Reads until the end. A failure goes the way of the bytes: a cut hides it from the other side too.
async fn read(mut from: ReadHalf<'_>, send: mpsc::Sender<Result<Chunk, Broken>>) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        let chunk = match from.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => Ok(Chunk { bytes: buffer.split().freeze(), read: Instant::now(), is_counted: false }),
            Err(_) => Err(Broken),
        };
        let failed = chunk.is_err();
        send.send(chunk).await.map_err(|_| Broken)?;
        if failed {
            return Ok(());
        }
    }
}

struct Writer<'a> {
    to: WriteHalf<'a>,
    link: &'a LinkState,
    rules: watch::Receiver<Rule>,
    begun: Instant,
    /// Bytes that a cut swallowed.
    swallowed: usize,
    /// When the last hold was over.
    held_until: Option<Instant>,
}

impl Writer<'_> {
    async fn run(mut self, mut chunks: mpsc::Receiver<Result<Chunk, Broken>>) -> Result<(), Broken> {
        // At most one: what is taken out of the channel and may not pass yet.
        let mut next: VecDeque<Chunk> = VecDeque::new();
        let (mut ended, mut failed) = (false, false);
        let mut was_cut = false;
        loop {
            let rule = *self.rules.borrow_and_update();
            if rule.refuse || (rule.reset && self.begun.elapsed() >= RESET_AFTER) {
                self.link.count_reset();
                return Err(Broken);
            }
            if rule.hold
                && let Some(chunk) = next.front_mut().filter(|chunk| !chunk.is_counted)
            {
                self.link.count_delayed(chunk.bytes.len());
                chunk.is_counted = true;
            }
            if was_cut && !rule.cut {
                return Err(Broken);
            }
            if rule.cut {
                was_cut = true;
                for chunk in next.drain(..) {
                    self.swallowed += chunk.bytes.len();
                    self.link.count_held_back(chunk.bytes.len());
                }
            } else if !rule.hold
                && let Some(chunk) = next.pop_front()
            {
                self.deliver(chunk, rule, &mut next).await?;
                continue;
            } else if !rule.hold && ended {
                if failed {
                    return Err(Broken);
                }
                self.to.shutdown().await?;
                return Ok(());
            }
            let may_take = !ended && next.is_empty() && self.swallowed < SWALLOWED_BYTES_MAX;
            let dies = self.begun + RESET_AFTER;
            tokio::select! {
                changed = self.rules.changed() => {
                    changed.map_err(|_| Broken)?;
                    if rule.hold && !self.rules.borrow().hold {
                        self.held_until = Some(Instant::now());
                    }
                }
                chunk = chunks.recv(), if may_take => match chunk {
                    Some(Ok(chunk)) => next.push_back(chunk),
                    Some(Err(Broken)) => (ended, failed) = (true, true),
                    None => ended = true,
                },
                () = sleep_until(dies), if rule.reset => {}
            }
        }
    }

    /// Writes a chunk when it is due; gives it back where the rule changed before.
    async fn deliver(&mut self, chunk: Chunk, rule: Rule, back: &mut VecDeque<Chunk>) -> Result<(), Broken> {
        let due = chunk.read + Duration::from_millis(rule.delay_ms);
        if Instant::now() < due {
            tokio::select! {
                () = sleep_until(due) => {}
                changed = self.rules.changed() => {
                    changed.map_err(|_| Broken)?;
                    back.push_front(chunk);
                    return Ok(());
                }
            }
        }
        let is_late = rule.delay_ms > 0
            || rule.bytes_per_second.is_some()
            || self.held_until.is_some_and(|until| chunk.read < until);
        let late = is_late && !chunk.is_counted;
        let mut bytes = chunk.bytes.clone();
        while !bytes.is_empty() {
            let Some(rate) = rule.bytes_per_second else {
                self.to.write_all(&bytes).await?;
                self.link.count_passed(bytes.len(), late);
                return Ok(());
            };
            // A tenth of a second's worth at a time.
            let part = bytes.split_to(bytes.len().min((rate / 10).max(1) as usize));
            self.to.write_all(&part).await?;
            self.link.count_passed(part.len(), late);
            let takes = Duration::from_secs_f64(part.len() as f64 / rate.max(1) as f64);
            tokio::select! {
                () = sleep(takes) => {}
                changed = self.rules.changed() => {
                    changed.map_err(|_| Broken)?;
                    if !bytes.is_empty() {
                        back.push_front(Chunk { bytes, ..chunk });
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
