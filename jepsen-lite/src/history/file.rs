//! The file of a history: one event in JSON a line, in zstd, so that it is small and any tool can read it.
#![allow(clippy::disallowed_methods, reason = "keeps the record of a run; no fault may strike it")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::event::{Event, FORMAT};

/// Name within the run's directory.
pub const NAME: &str = "history.jsonl.zst";

/// More than this of a run's time is not held back, so that not more is lost when the tool is killed.
const HELD_US_MAX: u64 = 1_000_000;

const LEVEL: i32 = 3;

/// Appends events to the file of a run.
pub struct HistoryWriter {
    path: PathBuf,
    encoder: Encoder<'static, File>,
    /// Time of the last event when the file was last up to date.
    flushed_us: u64,
    line: Vec<u8>,
}

impl HistoryWriter {
    /// Begins the file in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// When there is a history already, or the directory cannot be written to.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        let begin = || {
            fs::create_dir_all(dir)?;
            let file = File::options().write(true).create_new(true).open(&path)?;
            Encoder::new(file, LEVEL)
        };
        let encoder = begin().map_err(|error| about("cannot begin the history", &path, error))?;
        Ok(HistoryWriter { path, encoder, flushed_us: 0, line: Vec::new() })
    }

    /// # Errors
    /// When the file cannot be written to.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event)?;
        self.line.push(b'\n');
        let at_us = event.at_us().unwrap_or(0);
        let flush = at_us >= self.flushed_us + HELD_US_MAX;
        let mut written = self.encoder.write_all(&self.line);
        if flush {
            written = written.and_then(|()| self.encoder.flush());
            self.flushed_us = at_us;
        }
        written.map_err(|error| about("cannot write to the history", &self.path, error))
    }

    /// Ends the file and makes it durable.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub fn finish(self) -> io::Result<()> {
        let finished = self.encoder.finish().and_then(|file| file.sync_all());
        finished.map_err(|error| about("cannot end the history", &self.path, error))
    }
}

fn about(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

/// Streams the events of the history in `dir`. The first is always [`Event::Start`]; a history that was cut off ends
/// with an error of kind [`ErrorKind::UnexpectedEof`], one that is whole with [`Event::End`].
///
/// # Errors
/// When there is no history.
pub fn read(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<Event>>> {
    let path = dir.join(NAME);
    let file = File::open(&path).map_err(|error| about("cannot read the history", &path, error))?;
    let lines = BufReader::with_capacity(1 << 20, Decoder::new(file)?);
    Ok(Events { path, lines, line: Vec::new(), number: 0, at_us: 0, state: State::Begin })
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Begin,
    Middle,
    /// The last line was the one that ends a history.
    Whole,
    Over,
}

struct Events<R> {
    path: PathBuf,
    lines: R,
    line: Vec<u8>,
    number: u64,
    at_us: u64,
    state: State,
}

impl<R: BufRead> Events<R> {
    fn fail(&mut self, kind: ErrorKind, what: &str) -> Option<io::Result<Event>> {
        self.state = State::Over;
        Some(Err(io::Error::new(kind, format!("{}, line {}: {what}", self.path.display(), self.number))))
    }

    fn cut_off(&mut self) -> Option<io::Result<Event>> {
        let seconds = self.at_us as f64 / 1e6;
        self.fail(
            ErrorKind::UnexpectedEof,
            &format!("the history ends at {seconds:.1} s without its last line"),
        )
    }

    fn parse(&mut self) -> Option<io::Result<Event>> {
        let event: Event = match serde_json::from_slice(&self.line) {
            Ok(event) => event,
            Err(error) => {
                return self.fail(ErrorKind::InvalidData, &format!("no event of a history: {error}"));
            }
        };
        match (self.state, &event) {
            (State::Begin, Event::Start(start)) if start.format == FORMAT => {}
            (State::Begin, Event::Start(start)) => {
                let format = start.format;
                let what = format!("format {format}; this version reads format {FORMAT}");
                return self.fail(ErrorKind::InvalidData, &what);
            }
            (State::Begin, _) => return self.fail(ErrorKind::InvalidData, "a history begins with `start`"),
            (_, Event::Start(_)) => return self.fail(ErrorKind::InvalidData, "`start` in the middle"),
            _ => {}
        }
        self.at_us = self.at_us.max(event.at_us().unwrap_or(0));
        self.state = if matches!(event, Event::End(_)) { State::Whole } else { State::Middle };
        Some(Ok(event))
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        self.line.clear();
        let read = self.lines.read_until(b'\n', &mut self.line);
        match (read, self.state) {
            (Ok(0), State::Whole) => {
                self.state = State::Over;
                return None;
            }
            // The end was read whole; a frame that was not ended takes nothing from it.
            (Err(error), State::Whole) if error.kind() == ErrorKind::UnexpectedEof => {
                self.state = State::Over;
                return None;
            }
            (Ok(0), _) => return self.cut_off(),
            (Err(error), _) if error.kind() == ErrorKind::UnexpectedEof => return self.cut_off(),
            (Err(error), _) => return self.fail(ErrorKind::InvalidData, &format!("damaged: {error}")),
            (Ok(_), _) => {}
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') {
            return self.cut_off();
        }
        if self.state == State::Whole {
            return self.fail(ErrorKind::InvalidData, "lines after the one that ends a history");
        }
        self.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{End, Sample, ShardSample, Start};

    fn events() -> Vec<Event> {
        let start = Event::Start(Start { format: FORMAT, seed: 7, ..Start::default() });
        let sample = |second: u64| {
            let node = format!("storage-{}", second % 3);
            let shards = [(5, ShardSample::default())].into();
            Event::Sample(Sample { at_us: second * 400_000, node, boot: 1, shards, ..Sample::default() })
        };
        let end = Event::End(End { at_us: 50_000_000, ..End::default() });
        [start].into_iter().chain((0..100).map(sample)).chain([end]).collect()
    }

    fn write(dir: &Path, events: &[Event]) -> HistoryWriter {
        let mut writer = HistoryWriter::create(dir).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        writer
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &events()).finish().unwrap();
        let read: Vec<Event> = read(dir.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, events());
        let again = HistoryWriter::create(dir.path()).err().unwrap();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists, "a history is never overwritten");
    }

    #[test]
    fn a_killed_tool_loses_a_second_at_most_and_the_reader_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let events = events();
        // Neither finished nor dropped, as after SIGKILL.
        std::mem::forget(write(dir.path(), &events[..90]));
        let (read, errors): (Vec<_>, Vec<_>) = read(dir.path()).unwrap().partition(Result::is_ok);
        let read: Vec<Event> = read.into_iter().map(Result::unwrap).collect();
        let (last, written) = (read.last().unwrap().at_us().unwrap(), events[89].at_us().unwrap());
        assert!(written - last <= HELD_US_MAX, "{last} of {written}");
        assert_eq!(read, events[..read.len()]);
        let error = errors.into_iter().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("the history ends at 3"), "{error}");
    }

    #[test]
    fn what_is_no_history_is_refused_in_words() {
        let error_of = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let bytes = zstd::encode_all(text.as_bytes(), 1).unwrap();
            fs::write(dir.path().join(NAME), bytes).unwrap();
            read(dir.path()).unwrap().find_map(Result::err).unwrap().to_string()
        };
        assert!(error_of("{}\n").contains("line 1: no event of a history"));
        assert!(error_of("{\"event\":\"healing\",\"at_us\":1}\n").contains("begins with `start`"));
        let other = serde_json::to_string(&Event::Start(Start { format: 9, ..Start::default() })).unwrap();
        assert!(error_of(&format!("{other}\n")).contains("format 9; this version reads format 1"));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).err().unwrap().kind(), ErrorKind::NotFound);
        fs::write(dir.path().join(NAME), "plain text").unwrap();
        let error = read(dir.path()).unwrap().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
