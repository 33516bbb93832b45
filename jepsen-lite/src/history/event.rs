//! What a run records: one event a line, in the order in which things ended. Checkers look at nothing else.
//!
//! Operations name ranges of sequence numbers and never list items, so that a day of 100,000 items a second stays
//! small. All times are microseconds since the run began, on the one clock of the process that made the run.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::nemesis::fault::FaultKind;
use crate::nemesis::schedule::Timed;
use crate::workload::item::Signal;

/// Version of the format; a reader refuses others.
pub const FORMAT: u32 = 1;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Start(Start),
    Write(Write),
    Read(Read),
    Count(Count),
    Meta(MetaOp),
    Probe(Probe),
    FaultBegan(FaultBegan),
    FaultEnded(FaultEnded),
    Sample(Sample),
    /// A process ended that no fault had ended.
    Died(Died),
    /// Faults are over; from here on everything must heal.
    Healing(Moment),
    End(End),
}

impl Event {
    /// When it ended; a history ascends by it. None for what stands outside of time.
    pub fn at_us(&self) -> Option<u64> {
        match self {
            Event::Start(_) => None,
            Event::Write(write) => Some(write.completed_us),
            Event::Read(read) => Some(read.completed_us),
            Event::Count(count) => Some(count.completed_us),
            Event::Meta(op) => Some(op.completed_us),
            Event::Probe(probe) => Some(probe.completed_us),
            Event::FaultBegan(fault) => Some(fault.at_us),
            Event::FaultEnded(fault) => Some(fault.at_us),
            Event::Sample(sample) => Some(sample.at_us),
            Event::Died(died) => Some(died.at_us),
            Event::Healing(moment) => Some(moment.at_us),
            Event::End(end) => Some(end.at_us),
        }
    }
}

/// The first line: what was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub format: u32,
    /// Of the workload: items are computable from it.
    pub seed: u64,
    /// Event time of sequence 0, in nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// `sim`, `local` or `compose`.
    pub driver: String,
    /// The command that makes this run again.
    pub command: String,
    /// Version and build of what was tested, in words.
    pub tested: String,
    /// Names of the nodes by role: `front`, `storage`, `meta`.
    pub nodes: BTreeMap<String, Vec<String>>,
    pub replication_factor: u32,
    /// Kinds that the run was asked to use: each must be proven to have struck.
    pub faults: Vec<FaultKind>,
    /// The planted bug, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// How long after healing everything must be served, in microseconds.
    pub recover_us_max: u64,
    /// Most memory that a node may have resident, in bytes; 0 where it is not looked at.
    #[serde(default)]
    pub resident_bytes_max: u64,
}

/// What a client knows of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It must be there from now on.
    #[default]
    Acknowledged,
    /// No answer, or one that says "try again": it may or may not be there, now or later.
    Unknown,
    /// Refused, or accepted with items that the server says it cannot keep. All items are valid, so this is never
    /// right. It may or may not be there.
    Rejected,
}

/// One request with all its retries: the items `from..to` of a writer and a signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub signal: Signal,
    pub writer: u32,
    pub from: u64,
    pub to: u64,
    /// Number of the record that another request carries too, byte for byte. Logs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<u64>,
    pub invoked_us: u64,
    pub completed_us: u64,
    /// How often it was sent before the outcome was known.
    pub attempts: u32,
    /// Attempts without an answer, or with one that leaves the outcome open.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ambiguous: u32,
    /// The front of the last attempt, by its place in the list of fronts.
    pub front: u32,
    pub outcome: Outcome,
    /// Why it is not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A map whose keys are numbers. Keys of JSON are strings, and of an enum with its tag inside serde has read them as
/// such before it knows that numbers are wanted.
fn by_number<'de, D, V>(from: D) -> Result<BTreeMap<u32, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let number = |(key, value): (String, V)| match key.parse() {
        Ok(number) => Ok((number, value)),
        Err(_) => Err(D::Error::custom(format!("`{key}` is no number"))),
    };
    BTreeMap::<String, V>::deserialize(from)?.into_iter().map(number).collect()
}

/// Which items a read asked for: those of `writers` with a sequence in `from..to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub writers: std::ops::Range<u32>,
    pub from: u64,
    pub to: u64,
}

/// How a read was made; answers of different ways are compared only with their like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// PromQL instant query, LogQL range query, or Jaeger's search: whichever is the signal's.
    #[default]
    Search,
    /// Tempo's trace by id.
    TraceById,
}

/// A read that lists what is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// The client; its own reads follow each other.
    pub session: u32,
    pub signal: Signal,
    #[serde(default)]
    pub way: Way,
    pub scope: Scope,
    pub invoked_us: u64,
    pub completed_us: u64,
    pub front: u32,
    /// Whether the answer says that it may miss rows.
    pub partial: bool,
    /// There was an error instead of an answer: partial, and shows nothing. Recorded of last reads alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// By writer, the sequences within the scope that the answer shows: ascending ranges `from..to` that do not touch.
    #[serde(deserialize_with = "by_number")]
    pub seen: BTreeMap<u32, Vec<(u64, u64)>>,
    /// Items that it shows more than once: writer, sequence, how often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeated: Vec<(u32, u64, u32)>,
    /// By writer, how often each echo is there: number and count.
    #[serde(default, deserialize_with = "by_number", skip_serializing_if = "BTreeMap::is_empty")]
    pub echoes: BTreeMap<u32, Vec<(u64, u32)>>,
    /// What is no item of this run, the first few; `strange_count` of them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strange: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strange_count: u32,
    /// Hash of all that the answer shows of the scope, in an order of its own: every label, time, value and id.
    #[serde(default)]
    pub digest: u64,
    /// After healing, and of the reads that together cover everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// What a count is of, beside the scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountOf {
    /// The total of the delta sums, each of 1: items whose lane is [`crate::workload::item::Lane::Sum`].
    #[default]
    Sums,
    /// The same of the counts of histograms with one value each: items in [`crate::workload::item::Lane::Histogram`].
    Histograms,
    /// `count_over_time()` of log lines, echoes not included.
    Lines,
}

/// A read that counts in the cluster instead of listing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    pub session: u32,
    pub of: CountOf,
    pub scope: Scope,
    pub invoked_us: u64,
    pub completed_us: u64,
    pub front: u32,
    pub partial: bool,
    pub total: u64,
}

/// A change or a look at one register of the metadata (a named setting that holds a number).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaOp {
    pub session: u32,
    /// The register.
    pub key: u32,
    pub call: MetaCall,
    pub outcome: MetaOutcome,
    pub invoked_us: u64,
    /// With an unknown outcome it may still take effect later.
    pub completed_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaCall {
    Get,
    /// `None` is absent.
    CompareAndSet {
        expect: Option<u64>,
        to: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaOutcome {
    /// What a get saw, at which log index.
    Value { value: Option<u64>, index: u64 },
    /// The compare-and-set was applied, at which log index.
    Applied { index: u64 },
    /// The compare-and-set found another value, at which log index.
    Differs {
        actual: Option<u64>,
        #[serde(default)]
        index: u64,
    },
    /// It had no effect.
    Failed,
    /// It may or may not have an effect, now or later.
    Unknown,
}

/// A request that must be refused, or overload that must be answered by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What was sent: `truncated protobuf`, `gzip bomb`, ...
    pub kind: String,
    /// Statuses that are right.
    pub expect: Vec<u16>,
    /// None where the connection failed or no answer came.
    pub status: Option<u16>,
    /// Whether the answer says in words what is wrong.
    pub explained: bool,
    /// Whether it carries a delay after which to try again.
    pub retry_after: bool,
    pub front: u32,
    pub invoked_us: u64,
    pub completed_us: u64,
}

/// A fault begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultBegan {
    /// Number within the run.
    pub id: u32,
    pub kind: FaultKind,
    /// In words, with the nodes that it strikes.
    pub what: String,
    pub nodes: Vec<String>,
    pub at_us: u64,
}

impl FaultBegan {
    pub(crate) fn of(timed: &Timed, at_us: u64) -> FaultBegan {
        let Timed { id, fault, .. } = timed;
        FaultBegan { id: *id, kind: fault.kind(), what: fault.to_string(), nodes: fault.nodes(), at_us }
    }
}

/// A fault is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultEnded {
    pub id: u32,
    pub at_us: u64,
    /// What proves that it happened, by the names of [`crate::coverage`].
    pub evidence: BTreeMap<String, u64>,
}

impl FaultEnded {
    /// What was looked for and never seen is no evidence.
    pub(crate) fn new(id: u32, at_us: u64, evidence: BTreeMap<&'static str, u64>) -> FaultEnded {
        let evidence = evidence.into_iter().filter(|(_, count)| *count > 0);
        FaultEnded { id, at_us, evidence: evidence.map(|(what, count)| (what.to_owned(), count)).collect() }
    }
}

/// What one node says of itself and of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at_us: u64,
    pub node: String,
    /// How many times the process was started.
    pub boot: u32,
    /// By shard: epoch, the names of the set's nodes, and of the set that a move leads to.
    #[serde(default, deserialize_with = "by_number", skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<u32, ShardSample>,
    /// The member of the meta group that the node got its leader and term from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    #[serde(default)]
    pub term: u64,
    #[serde(default)]
    pub resident_bytes: u64,
    /// Bytes that a front's requests in flight hold, by its own count, and its budget for them; 0 where it has none.
    #[serde(default)]
    pub request_bytes: u64,
    #[serde(default)]
    pub request_bytes_max: u64,
    /// Counters that only grow within a boot: flushes, compactions, segments installed, rows read back, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSample {
    pub epoch: u64,
    pub set: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Died {
    pub at_us: u64,
    pub node: String,
    pub how: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub at_us: u64,
}

/// The last line. A history without it was cut off, and proves nothing about what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at_us: u64,
    /// What the run could not do, such as a last read that stayed partial: broken liveness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// How often each thing of [`crate::coverage`] happened that no other event shows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coverage: BTreeMap<String, u64>,
}
