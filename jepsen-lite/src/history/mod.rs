//! What happened, as the clients saw it: the only thing that checkers look at.

pub mod event;

use std::collections::BTreeMap;

use crate::workload::{Item, Signal};

/// What a client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: it must be there from now on.
    Acknowledged,
    /// No answer, or one that says "try again": it may or may not be there, now or later.
    Unknown,
    /// Answered with success, and with items that the server says it cannot keep. All items are valid, so this is
    /// never right.
    Rejected,
}

/// One write of some items, with all its retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub signal: Signal,
    pub items: Vec<Item>,
    /// Milliseconds since the start of the run.
    pub invoked_ms: u64,
    pub completed_ms: u64,
    /// How often it was sent.
    pub attempts: u32,
    pub outcome: Outcome,
}

/// One read of everything of a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub signal: Signal,
    pub invoked_ms: u64,
    pub completed_ms: u64,
    /// Whether the answer says that it may miss rows.
    pub partial: bool,
    /// How often each item was in the answer.
    pub items: BTreeMap<Item, u64>,
    /// What was in the answer and is of no item.
    pub strange: Vec<String>,
}

/// All operations of a run, in order of their completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
}

impl History {
    /// The last read of a signal that was complete.
    pub fn final_read(&self, signal: Signal) -> Option<&Read> {
        self.reads.iter().rev().find(|read| read.signal == signal && !read.partial)
    }
}
