//! Takes the events of a run as they happen: to the file, to the checkers, and to the numbers that a person watches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::event::{End, Event, Outcome as WriteOutcome, Start};
use super::file::HistoryWriter;
use crate::verdict::{Judge, Verdict};

/// The one recorder of a run; clones are the same. For one thread.
#[derive(Clone)]
pub struct Recorder(Rc<RefCell<Option<Recording>>>);

struct Recording {
    file: Option<HistoryWriter>,
    /// The first thing that went wrong with the file; the run goes on, and says so when it ends.
    failed: Option<io::Error>,
    events: Option<Vec<Event>>,
    judge: Judge,
    live: Live,
    coverage: BTreeMap<String, u64>,
}

/// What there is to see while a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub at_us: u64,
    pub acknowledged_items: u64,
    /// Requests by outcome.
    pub acknowledged: u64,
    pub unknown: u64,
    pub rejected: u64,
    /// Requests that were sent more than once.
    pub retried: u64,
    /// Reads and counts, and those of them that said that they are partial.
    pub reads: u64,
    pub partial: u64,
    /// Broken promises so far, and the newest in words.
    pub violations: usize,
    pub newest: Option<String>,
}

/// What a run came to.
pub struct Outcome {
    pub verdict: Verdict,
    /// All events, where they were kept.
    pub events: Vec<Event>,
}

impl Recorder {
    /// With `keep`, all events stay in memory too.
    pub fn new(start: &Start, file: Option<HistoryWriter>, keep: bool) -> Recorder {
        let events = keep.then(Vec::new);
        let (judge, live) = (Judge::new(start), Live::default());
        let recording = Recording { file, failed: None, events, judge, live, coverage: BTreeMap::new() };
        let recorder = Recorder(Rc::new(RefCell::new(Some(recording))));
        recorder.record(Event::Start(start.clone()));
        recorder
    }

    /// Events come in the order in which they ended. What comes after [`Recorder::finish`] is dropped.
    pub fn record(&self, event: Event) {
        if let Some(recording) = self.0.borrow_mut().as_mut() {
            recording.record(event);
        }
    }

    /// Counts one more of what no event shows, by a name of [`crate::coverage`]; it stands in the last line.
    pub fn count(&self, what: &str) {
        self.add(what, 1);
    }

    /// As [`Recorder::count`], for several.
    pub fn add(&self, what: &str, count: u64) {
        if let Some(recording) = self.0.borrow_mut().as_mut() {
            *recording.coverage.entry(what.to_owned()).or_default() += count;
        }
    }

    pub fn live(&self) -> Live {
        match self.0.borrow().as_ref() {
            Some(recording) => {
                let (violations, newest) = recording.judge.so_far();
                Live { violations, newest, ..recording.live.clone() }
            }
            None => Live::default(),
        }
    }

    /// Writes the last line and judges.
    ///
    /// # Errors
    /// When the file could not be written, now or before.
    pub fn finish(self, mut end: End) -> io::Result<Outcome> {
        let Some(mut recording) = self.0.borrow_mut().take() else {
            return Err(io::Error::other("the history was finished already"));
        };
        for (what, count) in std::mem::take(&mut recording.coverage) {
            *end.coverage.entry(what).or_default() += count;
        }
        recording.record(Event::End(end));
        if let Some(error) = recording.failed {
            return Err(error);
        }
        if let Some(file) = recording.file {
            file.finish()?;
        }
        let events = recording.events.unwrap_or_default();
        Ok(Outcome { verdict: recording.judge.finish(), events })
    }
}

impl Recording {
    fn record(&mut self, event: Event) {
        if let (Some(file), None) = (self.file.as_mut(), &self.failed) {
            self.failed = file.write(&event).err();
        }
        self.judge.event(&event);
        self.live.event(&event);
        if let Some(events) = self.events.as_mut() {
            events.push(event);
        }
    }
}

impl Live {
    fn event(&mut self, event: &Event) {
        self.at_us = self.at_us.max(event.at_us().unwrap_or(0));
        let mut read = |partial: bool| {
            self.reads += 1;
            self.partial += u64::from(partial);
        };
        match event {
            Event::Read(one) => read(one.partial),
            Event::Count(one) => read(one.partial),
            Event::Write(write) => {
                self.retried += u64::from(write.attempts > 1);
                match write.outcome {
                    WriteOutcome::Acknowledged => {
                        self.acknowledged += 1;
                        self.acknowledged_items += write.to - write.from;
                    }
                    WriteOutcome::Unknown => self.unknown += 1,
                    WriteOutcome::Rejected => self.rejected += 1,
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{FORMAT, Write};
    use crate::history::file;

    fn acknowledged(from: u64, to: u64) -> Event {
        Event::Write(Write { from, to, attempts: 2, completed_us: to, ..Write::default() })
    }

    #[test]
    fn what_is_recorded_is_counted_kept_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let start = Start { format: FORMAT, ..Start::default() };
        let writer = HistoryWriter::create(dir.path()).unwrap();
        let recorder = Recorder::new(&start, Some(writer), true);
        let other = recorder.clone();
        other.record(acknowledged(0, 10));
        other.record(acknowledged(10, 30));
        recorder.count("resent");
        let live = recorder.live();
        assert_eq!((live.acknowledged_items, live.acknowledged, live.retried), (30, 2, 2));
        let outcome = recorder.finish(End { at_us: 40, ..End::default() }).unwrap();
        other.record(acknowledged(30, 40));
        let read: Vec<Event> = file::read(dir.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, outcome.events);
        let Some(Event::End(end)) = read.last() else { panic!("{read:?}") };
        assert_eq!(end.coverage["resent"], 1);
        assert_eq!(read.len(), 4);
    }
}
