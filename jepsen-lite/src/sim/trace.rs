//! The trace of a simulation: every event of oteld, turmoil and the clients in order, as lines and as a hash. Two
//! runs of a seed must have the same.

use std::fmt::Write;
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let level = *event.metadata().level();
        let ours = ["oteld", "jepsen", "turmoil"].iter().any(|prefix| target.starts_with(prefix));
        let is_part = if ours { level <= Level::DEBUG } else { level <= Level::WARN };
        if !is_part {
            return;
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
