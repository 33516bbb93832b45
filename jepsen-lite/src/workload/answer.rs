//! What an answer shows: which items, how often, and what is none.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::item::{Item, Lane, Line, Run, Signal, TRACE_STRIDE, hex};
use crate::history::event::{Read, Scope, Way};

/// Strange things that are kept in words.
const STRANGE_MAX: usize = 5;

/// An answer of another shape than the API promises.
#[derive(Debug)]
pub struct Misshapen(pub String);

/// Collects what an answer shows of a scope.
struct Seen {
    run: Run,
    way: Way,
    scope: Scope,
    items: BTreeMap<u32, Vec<u64>>,
    echoes: BTreeMap<u32, BTreeMap<u64, u32>>,
    strange: Vec<String>,
    strange_count: u32,
    /// A sum, so that the order of an answer does not matter.
    digest: u64,
}

/// Reads the answer of a search into `read`, which says what was asked.
///
/// # Errors
/// When the answer has another shape.
pub fn of_search(run: Run, body: &[u8], read: &mut Read) -> Result<(), Misshapen> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| Misshapen(format!("no JSON: {error}")))?;
    read.partial = is_partial(&answer);
    let mut seen = Seen::new(run, read);
    let collected = match read.signal {
        Signal::Metrics => seen.samples(&answer),
        Signal::Logs => seen.lines(&answer),
        Signal::Traces => seen.traces(&answer),
    };
    collected.ok_or_else(|| Misshapen(format!("another shape: {:.300}", answer.to_string())))?;
    seen.finish(read);
    Ok(())
}

/// Reads Tempo's trace in protobuf.
///
/// # Errors
/// When it is none.
pub fn of_trace(run: Run, body: &[u8], read: &mut Read) -> Result<(), Misshapen> {
    // The same fields as `tempopb.Trace`.
    let trace = ExportTraceServiceRequest::decode(body).map_err(|error| Misshapen(error.to_string()))?;
    let mut seen = Seen::new(run, read);
    for group in &trace.resource_spans {
        let resource = group.resource.encode_to_vec_or_empty();
        for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let (trace_id, span_id) = (hex(&span.trace_id), hex(&span.span_id));
            let digest = [resource.as_slice(), &span.encode_to_vec()].concat();
            seen.item(run.of_span(&trace_id, &span_id), &digest, &|| format!("{trace_id}/{span_id}"));
        }
    }
    seen.finish(read);
    Ok(())
}

/// The number that a count answers; 0 where there is nothing to count.
///
/// # Errors
/// When the answer has another shape.
pub fn of_count(body: &[u8]) -> Result<(u64, bool), Misshapen> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| Misshapen(format!("no JSON: {error}")))?;
    let total = || match answer["data"]["result"].as_array()?.as_slice() {
        [] => Some(0),
        [one] => one["value"][1].as_str()?.parse::<f64>().ok().map(|total| total as u64),
        _ => None,
    };
    let total = total().ok_or_else(|| Misshapen(format!("no count: {:.300}", answer.to_string())))?;
    Ok((total, is_partial(&answer)))
}

/// Each API says it in its own way.
fn is_partial(answer: &Value) -> bool {
    let has = |value: &Value| value.as_array().is_some_and(|items| !items.is_empty());
    has(&answer["warnings"]) || has(&answer["data"]["warnings"]) || has(&answer["errors"])
}

trait EncodeOption {
    fn encode_to_vec_or_empty(&self) -> Vec<u8>;
}

impl<M: Message> EncodeOption for Option<M> {
    fn encode_to_vec_or_empty(&self) -> Vec<u8> {
        self.as_ref().map(Message::encode_to_vec).unwrap_or_default()
    }
}

impl Seen {
    fn new(run: Run, read: &Read) -> Self {
        Seen {
            run,
            way: read.way,
            scope: read.scope.clone(),
            items: BTreeMap::new(),
            echoes: BTreeMap::new(),
            strange: Vec::new(),
            strange_count: 0,
            digest: 0,
        }
    }

    fn samples(&mut self, answer: &Value) -> Option<()> {
        for series in answer["data"]["result"].as_array()? {
            let instance = series["metric"]["instance"].as_str()?;
            let labels = series["metric"].to_string();
            let mut before = 0.0;
            for sample in series["values"].as_array()? {
                let value = sample[1].as_str()?.parse().ok()?;
                let item = self.item_of_sample(instance, sample[0].as_f64()?, before, value);
                before = value;
                // It was sent, and is not the item: what the answer lacks is told.
                if item.is_none() && self.is_lesser(instance, sample[0].as_f64()?, value) {
                    continue;
                }
                let text = format!("{labels} {sample}");
                self.item(item, text.as_bytes(), &|| text.clone());
            }
        }
        Some(())
    }

    fn item_of_sample(&self, instance: &str, seconds: f64, before: f64, value: f64) -> Option<Item> {
        let item = self.item_at(instance, seconds)?;
        // The increment, so that a wrong one is told once.
        (self.run.sample(item, before) == value).then_some(item)
    }

    fn item_at(&self, instance: &str, seconds: f64) -> Option<Item> {
        let (writer, lane) = self.run.of_instance(instance)?;
        let time_ms = (seconds * 1000.0).round() as u64;
        self.run.item_at(writer, lane, time_ms * 1_000_000)
    }

    /// Whether this is the lesser value that a gauge's key was given too.
    fn is_lesser(&self, instance: &str, seconds: f64, value: f64) -> bool {
        self.item_at(instance, seconds).is_some_and(|item| {
            Lane::of(item.lane()) == Lane::Gauge && self.run.lesser_value(item) as f64 == value
        })
    }

    fn lines(&mut self, answer: &Value) -> Option<()> {
        for stream in answer["data"]["result"].as_array()? {
            let labels = stream["stream"].to_string();
            let instance = stream["stream"]["service_instance_id"].as_str()?;
            for entry in stream["values"].as_array()? {
                let (time, line) = (entry[0].as_str()?, entry[1].as_str()?);
                let text = format!("{labels} {time} {line}");
                match self.line(instance, time.parse().ok()?, line) {
                    Some(Line::Echo { writer, echo }) => {
                        *self.echoes.entry(writer).or_default().entry(echo).or_default() += 1;
                        self.digest = self.digest.wrapping_add(xxh3_64(text.as_bytes()));
                    }
                    Some(Line::Item(item)) => self.item(Some(item), text.as_bytes(), &|| text.clone()),
                    None => self.item(None, text.as_bytes(), &|| text.clone()),
                }
            }
        }
        Some(())
    }

    /// A line that is what it says, in the stream and at the time where it belongs.
    fn line(&self, instance: &str, time_unix_nano: u64, line: &str) -> Option<Line> {
        let found = self.run.of_body(line)?;
        let (writer, sequence) = match found {
            Line::Item(item) => (item.writer, item.sequence),
            Line::Echo { writer, echo } => (writer, echo),
        };
        let lane = Item { writer, sequence }.lane();
        let belongs = self.run.instance(writer, lane) == instance
            && self.run.time_unix_nano(sequence) == time_unix_nano;
        belongs.then_some(found)
    }

    fn traces(&mut self, answer: &Value) -> Option<()> {
        for trace in answer["data"].as_array()? {
            for span in trace["spans"].as_array()? {
                let (trace_id, span_id) = (span["traceID"].as_str()?, span["spanID"].as_str()?);
                let item = self.run.of_span(trace_id, span_id);
                // Numbers of processes are of the answer, not of the span.
                let process = &trace["processes"][span["processID"].as_str()?];
                let mut span_alone = span.clone();
                span_alone.as_object_mut()?.remove("processID");
                let text = format!("{process} {span_alone}");
                self.item(item, text.as_bytes(), &|| text.clone());
            }
        }
        Some(())
    }

    fn item(&mut self, item: Option<Item>, digest: &[u8], text: &dyn Fn() -> String) {
        let Some(item) = item else {
            self.strange_count += 1;
            if self.strange.len() < STRANGE_MAX {
                self.strange.push(text());
            }
            return;
        };
        // A trace is shown whole, also where only one of its spans was asked for.
        if self.is_asked_for(item) {
            self.items.entry(item.writer).or_default().push(item.sequence);
            self.digest = self.digest.wrapping_add(xxh3_64(digest));
        }
    }

    fn is_asked_for(&self, item: Item) -> bool {
        let Scope { writers, from, to } = &self.scope;
        let inside = writers.contains(&item.writer) && (*from..*to).contains(&item.sequence);
        match self.way {
            Way::Search => inside,
            Way::TraceById => inside && (item.sequence - from).is_multiple_of(TRACE_STRIDE),
        }
    }

    fn finish(self, read: &mut Read) {
        for (writer, mut sequences) in self.items {
            sequences.sort_unstable();
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for same in sequences.chunk_by(|a, b| a == b) {
                let sequence = same[0];
                if same.len() > 1 {
                    read.repeated.push((writer, sequence, same.len() as u32));
                }
                match ranges.last_mut() {
                    Some(last) if last.1 == sequence => last.1 += 1,
                    _ => ranges.push((sequence, sequence + 1)),
                }
            }
            read.seen.insert(writer, ranges);
        }
        let echoes = self.echoes.into_iter();
        read.echoes = echoes.map(|(writer, echoes)| (writer, echoes.into_iter().collect())).collect();
        read.strange = self.strange;
        read.strange_count = self.strange_count;
        read.digest = self.digest;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUN: Run = Run { seed: 7, start_unix_nano: 1_767_225_600_000_000_000 };

    /// What a search shows of the first item of a writer's first gauge, when it has this value.
    fn shown(value: i64) -> Read {
        let series = json!({
            "metric": { "__name__": "jepsen_items", "instance": RUN.instance(3, 0) },
            "values": [[1_767_225_600.0, value.to_string()]],
        });
        let answer = json!({ "data": { "result": [series] } }).to_string();
        let mut read = Read {
            signal: Signal::Metrics,
            scope: Scope { writers: 3..4, from: 0, to: 8 },
            ..Read::default()
        };
        of_search(RUN, answer.as_bytes(), &mut read).unwrap();
        read
    }

    #[test]
    fn a_gauge_shows_its_item_with_the_greatest_value_sent_and_nothing_with_the_lesser_one() {
        let item = Item { writer: 3, sequence: 0 };
        let own = shown(RUN.value(item));
        assert_eq!((own.seen.get(&3).cloned(), own.strange_count), (Some(vec![(0, 1)]), 0));
        assert!(RUN.lesser_value(item) < RUN.value(item));
        let lesser = shown(RUN.lesser_value(item));
        assert_eq!((lesser.seen.len(), lesser.strange_count), (0, 0));
        assert_eq!(shown(RUN.value(item) - 1).strange_count, 1);
    }
}
