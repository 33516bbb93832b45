//! What an item is: everything about it is computable from (run, writer, sequence), so that any item that is read
//! verifies itself.

use serde::{Deserialize, Serialize};

/// `service.name` of everything that the workload writes.
pub const SERVICE: &str = "jepsen";

/// Series and streams of a writer. Items take turns: item `n` is in lane `n % LANES`.
pub const LANES: u64 = 8;

/// Nanoseconds between two items of a lane: PromQL knows no less than a millisecond.
pub const STEP_NANOS: u64 = 1_000_000;

/// Sequences between two spans of a trace, so that the spans of a trace are in several requests.
pub const TRACE_STRIDE: u64 = 64;

/// Spans of a trace.
pub const TRACE_SPANS: u64 = 4;

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    #[default]
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    pub fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }

    /// Path of OTLP/HTTP.
    pub fn path(self) -> &'static str {
        match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        }
    }
}

/// What a metric item is, by its lane. A duplicate that is added up shows as a wrong sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A gauge whose value is the item's.
    Gauge,
    /// A delta sum of 1.
    Sum,
    /// A delta histogram with one value, the item's.
    Histogram,
}

impl Lane {
    /// The lane's number, below [`LANES`], to what it holds.
    pub fn of(lane: u64) -> Lane {
        match lane {
            0..=3 => Lane::Gauge,
            4 | 5 => Lane::Sum,
            _ => Lane::Histogram,
        }
    }
}

/// Which item: writers own disjoint series, streams and traces, and count what they send, each signal by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub writer: u32,
    pub sequence: u64,
}

impl Item {
    pub fn lane(self) -> u64 {
        self.sequence % LANES
    }

    /// The number of the item's trace among those of its writer.
    pub fn trace(self) -> u64 {
        let block = self.sequence / (TRACE_STRIDE * TRACE_SPANS);
        block * TRACE_STRIDE + self.sequence % TRACE_STRIDE
    }

    /// The sequence of the first span of a trace; the others follow at [`TRACE_STRIDE`].
    pub fn first_of_trace(trace: u64) -> u64 {
        (trace / TRACE_STRIDE) * (TRACE_STRIDE * TRACE_SPANS) + trace % TRACE_STRIDE
    }
}

/// A run: its seed, and the event time of sequence 0 in nanoseconds since the Unix epoch, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub seed: u64,
    pub start_unix_nano: u64,
}

/// Keeps the numbers of items, traces and echoes apart.
#[derive(Clone, Copy)]
enum Of {
    Item = 0,
    Trace = 1,
    Echo = 2,
}

impl Run {
    /// When an item happened; the same for its whole life.
    pub fn time_unix_nano(self, sequence: u64) -> u64 {
        self.start_unix_nano + sequence / LANES * STEP_NANOS
    }

    /// `service.instance.id`: one resource for each lane of a writer.
    pub fn instance(self, writer: u32, lane: u64) -> String {
        format!("writer-{writer}-{lane}")
    }

    /// Writer and lane of an instance.
    pub fn of_instance(self, instance: &str) -> Option<(u32, u64)> {
        let (writer, lane) = instance.strip_prefix("writer-")?.split_once('-')?;
        let (writer, lane) = (writer.parse().ok()?, lane.parse().ok()?);
        (lane < LANES && self.instance(writer, lane) == instance).then_some((writer, lane))
    }

    /// The item of a lane at a time.
    pub fn item_at(self, writer: u32, lane: u64, time_unix_nano: u64) -> Option<Item> {
        let since = time_unix_nano.checked_sub(self.start_unix_nano)?;
        let item = Item { writer, sequence: since / STEP_NANOS * LANES + lane };
        (since % STEP_NANOS == 0).then_some(item)
    }

    /// The value of a gauge or a histogram; exact in a double.
    pub fn value(self, item: Item) -> i64 {
        ((self.mix(Of::Item, item.writer, item.sequence) >> 16) & 0xffff_ffff) as i64
    }

    /// Another value that is sent for the key of a gauge: less, but for the values 0.
    pub fn lesser_value(self, item: Item) -> i64 {
        self.value(item) / 2
    }

    /// What PromQL shows of an item whose series showed `before`: the value of its gauge; delta sums, and the sums of
    /// delta histograms, added up from the start of what the query reads. All are whole numbers below 2^53.
    pub fn sample(self, item: Item, before: f64) -> f64 {
        match Lane::of(item.lane()) {
            Lane::Gauge => self.value(item) as f64,
            Lane::Sum => before + 1.0,
            Lane::Histogram => before + self.value(item) as f64,
        }
    }

    /// The body of the item's log record.
    pub fn body(self, item: Item) -> String {
        let Item { writer, sequence } = item;
        let check = self.mix(Of::Item, writer, sequence);
        format!("run={} writer={writer} sequence={sequence} check={check:016x}", self.seed)
    }

    /// The body of a record that two requests carry.
    pub fn echo_body(self, writer: u32, echo: u64) -> String {
        let check = self.mix(Of::Echo, writer, echo);
        format!("run={} writer={writer} echo={echo} check={check:016x}", self.seed)
    }

    /// The item or echo of a body, when it is one that this run could have written.
    pub fn of_body(self, body: &str) -> Option<Line> {
        let field = |name: &str| body.split(' ').find_map(|word| word.strip_prefix(name));
        let writer = field("writer=")?.parse().ok()?;
        if let Some(echo) = field("echo=") {
            let echo = echo.parse().ok()?;
            return (self.echo_body(writer, echo) == body).then_some(Line::Echo { writer, echo });
        }
        let item = Item { writer, sequence: field("sequence=")?.parse().ok()? };
        (self.body(item) == body).then_some(Line::Item(item))
    }

    /// The trace and span id of the item's span; the ids spell the item out, and a check.
    pub fn span_ids(self, item: Item) -> ([u8; 16], [u8; 8]) {
        let span = self.mix(Of::Item, item.writer, item.sequence) | 1;
        (self.trace_id(item.writer, item.trace()), span.to_be_bytes())
    }

    /// The id of a writer's trace, by its number.
    pub fn trace_id(self, writer: u32, trace: u64) -> [u8; 16] {
        let mut id = [0; 16];
        // The low bit, so that no id is the zero that OTLP takes for "none".
        id[..8].copy_from_slice(&(self.mix(Of::Trace, writer, trace) | 1).to_be_bytes());
        id[8..12].copy_from_slice(&writer.to_be_bytes());
        id[12..].copy_from_slice(&(trace as u32).to_be_bytes());
        id
    }

    /// The item of a span's ids in hexadecimal, when it is one that this run could have written.
    pub fn of_span(self, trace_id: &str, span_id: &str) -> Option<Item> {
        let number = |range| u32::from_str_radix(trace_id.get(range)?, 16).ok();
        let (writer, trace): (u32, u32) = (number(16..24)?, number(24..32)?);
        let first = Item::first_of_trace(trace.into());
        (0..TRACE_SPANS).map(|place| Item { writer, sequence: first + place * TRACE_STRIDE }).find(|item| {
            let (trace, span) = self.span_ids(*item);
            hex(&trace) == trace_id && hex(&span) == span_id
        })
    }

    /// SplitMix64 over the identity: 64 bits that nothing else of the run has by chance.
    fn mix(self, of: Of, writer: u32, number: u64) -> u64 {
        let identity = self.seed ^ (u64::from(writer) << 32) ^ ((of as u64) << 24);
        // SplitMix64's own increment first: it maps nothing that occurs to zero, which OTLP takes for "no id".
        let mut z = identity.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What a log body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Item(Item),
    Echo { writer: u32, echo: u64 },
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run { seed: 7, start_unix_nano: 1_767_225_600_000_000_000 };

    #[test]
    fn an_item_is_found_again_and_a_forged_one_is_not() {
        for sequence in [0, 7, 41, 255, 256, 100_000] {
            let item = Item { writer: 3, sequence };
            assert_eq!(RUN.of_body(&RUN.body(item)), Some(Line::Item(item)));
            let (trace, span) = RUN.span_ids(item);
            assert_eq!(RUN.of_span(&hex(&trace), &hex(&span)), Some(item));
            let (_, other) = RUN.span_ids(Item { writer: 3, sequence: sequence + 1 });
            assert_eq!(RUN.of_span(&hex(&trace), &hex(&other)), None);
            assert_eq!(RUN.item_at(3, item.lane(), RUN.time_unix_nano(sequence)), Some(item));
        }
        let body = RUN.body(Item { writer: 3, sequence: 41 });
        assert_eq!(RUN.of_body(&body.replace("sequence=41", "sequence=42")), None);
        assert_eq!(Run { seed: 8, ..RUN }.of_body(&body), None);
        assert_eq!(RUN.of_body(&RUN.echo_body(3, 8)), Some(Line::Echo { writer: 3, echo: 8 }));
        assert_eq!(RUN.of_instance("writer-3-7"), Some((3, 7)));
        assert_eq!(RUN.of_instance("writer-3-8"), None);
    }

    #[test]
    fn traces_take_their_spans_from_far_apart() {
        let items = (0..1024).map(|sequence| Item { writer: 0, sequence });
        let mut traces: std::collections::BTreeMap<u64, Vec<u64>> = Default::default();
        items.for_each(|item| traces.entry(item.trace()).or_default().push(item.sequence));
        assert_eq!(traces.len(), 256);
        for (trace, sequences) in traces {
            let first = Item::first_of_trace(trace);
            assert_eq!(sequences, (0..4).map(|n| first + n * TRACE_STRIDE).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_two_items_share_an_id() {
        let mut seen = std::collections::BTreeSet::new();
        for (writer, sequence) in (0..8).flat_map(|w| (0..2000).map(move |s| (w, s))) {
            assert!(seen.insert(RUN.span_ids(Item { writer, sequence }).1));
        }
    }
}
