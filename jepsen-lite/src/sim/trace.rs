//! The trace of a simulation: every event of oteld, turmoil and the clients in order, as lines and as a hash. Two
//! runs of a seed must have the same.
//!
//! It also sees what proves that faults struck: messages that the network dropped, who leads, what restarts read back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use xxhash_rust::xxh3::Xxh3;

/// Collects the trace. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    hash: Xxh3,
    count: u64,
    /// Lines are written here as they come, when set.
    output: Option<Box<dyn std::io::Write + Send>>,
    seen: Observed,
}

/// What the trace saw so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Messages that a cut dropped or held, by sender and receiver.
    pub(super) held_back: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Term and name of the latest leader of the meta group.
    pub(super) leader: Option<(u64, String)>,
    /// Rows that starts read back from the WAL.
    pub(super) replayed_rows: u64,
    pub(super) moves_finished: u64,
}

impl Trace {
    /// Writes every line to `output` too.
    pub fn with_output(output: Box<dyn std::io::Write + Send>) -> Self {
        let trace = Trace::default();
        trace.lock().output = Some(output);
        trace
    }

    pub fn add(&self, line: &str) {
        let mut inner = self.lock();
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        inner.count += 1;
        if let Some(output) = &mut inner.output {
            // A reader that went away must not change what the simulation does.
            let _ = writeln!(output, "{line}");
        }
    }

    /// Number of lines, and the hash over all of them.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.count, inner.hash.digest())
    }

    pub(super) fn seen(&self) -> Observed {
        self.lock().seen.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network's own events are too many to be lines; some of them are proof.
    fn watch_network(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        if let Message { is_held_back: true, source: Some(source), target: Some(target) } = message {
            *self.lock().seen.held_back.entry((source, target)).or_default() += 1;
        }
    }

    fn watch_node(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut inner = self.lock();
        if let (Some(leader), Some(term)) = (said.leader, said.term)
            && inner.seen.leader.as_ref().is_none_or(|(known, _)| *known <= term)
        {
            inner.seen.leader = Some((term, leader));
        }
        inner.seen.replayed_rows += said.unflushed_rows;
        inner.seen.moves_finished += u64::from(said.is_end_of_move);
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let level = *event.metadata().level();
        if target == "turmoil" && level == Level::TRACE {
            return self.watch_network(event);
        }
        let ours = ["oteld", "jepsen", "turmoil"].iter().any(|prefix| target.starts_with(prefix));
        let is_part = if ours { level <= Level::DEBUG } else { level <= Level::WARN };
        if !is_part {
            return;
        }
        if level <= Level::INFO && target.starts_with("oteld") {
            self.watch_node(event);
        }
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let mut line = format!("{:>12} {level} {target}:", elapsed.as_micros());
        event.record(&mut Fields(&mut line));
        self.add(&line);
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

/// A message of the simulated network.
#[derive(Default)]
struct Message {
    is_held_back: bool,
    source: Option<IpAddr>,
    target: Option<IpAddr>,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let address =
            || format!("{value:?}").parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
        match field.name() {
            "message" => {
                let text = format!("{value:?}");
                self.is_held_back = text == "Drop" || text == "Hold";
            }
            "src" => self.source = address(),
            "dst" => self.target = address(),
            _ => {}
        }
    }
}

/// What a node's log line says that is proof of something.
#[derive(Default)]
struct Said {
    leader: Option<String>,
    term: Option<u64>,
    is_end_of_move: bool,
    unflushed_rows: u64,
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "unflushed_rows" => self.unflushed_rows = value,
            "term" => self.term = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "leader" {
            self.leader = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.is_end_of_move = format!("{value:?}") == "a move is finished";
        }
    }
}
