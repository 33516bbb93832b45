//! Writers: each owns its series, streams and traces, and sends them as OTLP exporters do. Some requests are held back
//! and sent late, some are sent again after their acknowledgement, and retries go through other fronts. Gauges get lesser
//! values for the keys that they have.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::exchange::NoAnswer;
use super::{Phase, Shared};
use crate::coverage;
use crate::history::event::{Event, Outcome, Write};
use crate::workload::item::Signal;
use crate::workload::request::Block;

/// Requests that a writer has under way at most; with more, it waits.
const IN_FLIGHT_MAX: usize = 8;

/// Backoff of OTLP exporters: doubled with every attempt, with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One in so many requests is held back, and one is sent again after it was acknowledged.
const HOLD_ONE_IN: u64 = 16;
const RESEND_ONE_IN: u64 = 10;

/// One in so many requests of metrics is followed by one with lesser values.
const LESSER_ONE_IN: u64 = 6;

/// A request that is sent later than its successors.
struct Held {
    due: Instant,
    block: Block,
}

/// Writes until the healing begins, then sends what it held back; ends when all outcomes are known.
pub(super) async fn writer(shared: Rc<Shared>, writer: u32) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut held: Vec<Held> = Vec::new();
    let mut blocks = Blocks { writer, echo: None };
    while shared.phase() == Phase::Work {
        let block = blocks.next(&shared);
        let pause = shared.pause_after(block.count());
        if shared.one_in(HOLD_ONE_IN) {
            let late = Duration::from_millis(shared.env.random.in_range(500..10_000));
            held.push(Held { due: Instant::now() + late, block });
        } else {
            start(&shared, &in_flight, block).await;
        }
        let now = Instant::now();
        while let Some(place) = held.iter().position(|held| held.due <= now) {
            start(&shared, &in_flight, held.swap_remove(place).block).await;
        }
        shared.sleep_in_work(pause).await;
    }
    for held in held {
        start(&shared, &in_flight, held.block).await;
    }
    // All permits back: nothing is under way any more.
    let _ = in_flight.acquire_many(IN_FLIGHT_MAX as u32).await;
}

/// After healing: something fresh of every signal must be acknowledged within the bound.
pub(super) async fn fresh(shared: &Rc<Shared>, writer: u32, deadline: Instant) -> Vec<String> {
    let mut failures = Vec::new();
    for signal in Signal::ALL {
        let sequences = shared.extend(signal, writer, shared.plan.items_per_request.start.max(1));
        let block = Block { signal, writer, sequences, echo: None };
        loop {
            let write = send(shared, &block, deadline).await;
            let outcome = write.outcome;
            let why = write.why.clone().unwrap_or_default();
            shared.recorder.record(Event::Write(write));
            match outcome {
                Outcome::Acknowledged => break,
                _ if Instant::now() < deadline => {}
                _ => {
                    let bound = shared.plan.recover_max.as_secs();
                    let name = signal.name();
                    failures.push(format!(
                        "fresh {name} are not acknowledged {bound} s after the last fault: {why}"
                    ));
                    break;
                }
            }
        }
    }
    failures
}

/// Cuts a writer's items into requests.
struct Blocks {
    writer: u32,
    /// The record that the next log request carries once more.
    echo: Option<u64>,
}

impl Blocks {
    fn next(&mut self, shared: &Shared) -> Block {
        let which = shared.env.random.in_range(0..3) as usize;
        let signal = Signal::ALL[which];
        let count = shared.env.random.in_range(shared.plan.items_per_request.clone());
        let sequences = shared.extend(signal, self.writer, count);
        let echo = (signal == Signal::Logs).then(|| self.echo(sequences.start));
        Block { signal, writer: self.writer, sequences, echo }
    }

    /// Two log requests after each other carry the same record.
    fn echo(&mut self, first: u64) -> u64 {
        match self.echo.take() {
            Some(echo) => echo,
            None => *self.echo.insert(first),
        }
    }
}

/// Sends a block in the background, as soon as fewer than the most are under way.
async fn start(shared: &Rc<Shared>, in_flight: &Arc<Semaphore>, block: Block) {
    let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
    let shared = shared.clone();
    tokio::task::spawn_local(async move {
        let deadline = Instant::now() + shared.plan.give_up;
        let write = send(&shared, &block, deadline).await;
        let (outcome, front) = (write.outcome, write.front as usize);
        shared.recorder.record(Event::Write(write));
        if outcome == Outcome::Acknowledged {
            follow(&shared, &block, front + 1).await;
        }
        drop(permit);
    });
}

/// What comes after an acknowledgement, sometimes. Nothing may be seen of it, so nothing is recorded.
async fn follow(shared: &Shared, block: &Block, front: usize) {
    if shared.one_in(RESEND_ONE_IN) {
        // As a client does that missed the answer.
        let _ = attempt(shared, block.signal, shared.run.request(block), front).await;
        shared.count(coverage::RESENT);
    }
    if block.signal == Signal::Metrics
        && shared.one_in(LESSER_ONE_IN)
        && let Some(body) = shared.run.lesser_request(block)
    {
        let _ = attempt(shared, block.signal, body, front).await;
        shared.count(coverage::LESSER_SENT);
    }
}

/// Sends until it is acknowledged, refused for good, or given up; a retry is the same bytes, through another front.
async fn send(shared: &Shared, block: &Block, deadline: Instant) -> Write {
    let mut front = shared.env.random.in_range(0..shared.targets.fronts.len() as u64) as usize;
    let mut write = Write {
        signal: block.signal,
        writer: block.writer,
        from: block.sequences.start,
        to: block.sequences.end,
        echo: block.echo,
        invoked_us: shared.timeline.now_us(),
        outcome: Outcome::Unknown,
        ..Write::default()
    };
    let mut backoff = BACKOFF_FIRST;
    loop {
        write.attempts += 1;
        write.front = (front % shared.targets.fronts.len()) as u32;
        let pause = match attempt(shared, block.signal, shared.run.request(block), front).await {
            Attempt::Acknowledged => {
                (write.outcome, write.why) = (Outcome::Acknowledged, None);
                break;
            }
            Attempt::Refused(why) => {
                (write.outcome, write.why) = (Outcome::Rejected, Some(why));
                break;
            }
            Attempt::Again { why, after, ambiguous } => {
                write.ambiguous += u32::from(ambiguous);
                write.why = Some(why);
                let jitter = Duration::from_millis(shared.env.random.in_range(0..backoff.as_millis() as u64));
                after.unwrap_or(backoff / 2 + jitter)
            }
        };
        if Instant::now() + pause >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        front += 1;
    }
    write.completed_us = shared.timeline.now_us();
    write
}

enum Attempt {
    Acknowledged,
    Refused(String),
    Again { why: String, after: Option<Duration>, ambiguous: bool },
}

async fn attempt(shared: &Shared, signal: Signal, body: Vec<u8>, front: usize) -> Attempt {
    let front = &shared.targets.fronts[front % shared.targets.fronts.len()];
    let request = Request::post(signal.path()).header("content-type", "application/x-protobuf");
    let exchange =
        shared.pool.exchange(&front.otlp_http, request, Bytes::from(body), shared.plan.answer_wait);
    let answer = match exchange.await {
        Ok(answer) => answer,
        Err(no_answer) => {
            let ambiguous = matches!(no_answer, NoAnswer::Lost(_));
            return Attempt::Again { why: no_answer.reason().to_owned(), after: None, ambiguous };
        }
    };
    let text = || String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
    match answer.status {
        // An empty message is full success; anything in it is `partial_success`.
        200 if answer.body.is_empty() => Attempt::Acknowledged,
        200 => Attempt::Refused(format!("partial success: {}", text())),
        // The OTLP specification, "Retryable response codes".
        status @ (429 | 502 | 503 | 504) => Attempt::Again {
            why: format!("{status}: {}", text()),
            after: answer.retry_after,
            ambiguous: status != 429,
        },
        status => Attempt::Refused(format!("{status}: {}", text())),
    }
}
