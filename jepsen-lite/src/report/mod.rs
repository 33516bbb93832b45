//! The report of a run: one HTML file that tells what was run, what happened when, and what was broken, made from the
//! history alone.
#![allow(clippy::disallowed_methods, reason = "writes a file for people; no fault may strike it")]

mod markup;
mod axis;
mod buckets;
mod owners;
mod biography;
mod story;
mod bands;
mod lanes;
mod chart;
mod violations;
mod head;
mod page;

use std::borrow::Borrow;
use std::io::ErrorKind;
use std::path::Path;

use crate::history::event::{Event, Start};
use crate::history::file;
use crate::verdict::{Judge, Verdict};

/// The report as HTML. Events may stream by: what is kept of them is bounded.
pub fn render(events: impl IntoIterator<Item = impl Borrow<Event>>, verdict: &Verdict) -> String {
    let listed = violations::in_order(&verdict.violations);
    let mut story = story::Story::new(violations::items(&listed));
    for event in events {
        story.event(event.borrow());
    }
    page::render(verdict, &story)
}

/// Makes the report of the history in `dir` and puts it at `out`. The history is read twice, first for the verdict:
/// which items have a life to tell is known only after that.
///
/// # Errors
/// When there is no history or it is damaged, or `out` cannot be written. One that was cut off has a report, that
/// says so.
pub fn write(dir: &Path, out: &Path) -> Result<(), String> {
    let mut judge = Judge::new(&Start::default());
    each(dir, |event| {
        if let Event::Start(start) = event {
            judge = Judge::new(start);
        }
        judge.event(event);
    })?;
    let verdict = judge.finish();
    let mut story = story::Story::new(violations::items(&violations::in_order(&verdict.violations)));
    each(dir, |event| story.event(event))?;
    let page = page::render(&verdict, &story);
    std::fs::write(out, page).map_err(|error| format!("cannot write the report {}: {error}", out.display()))
}

/// The events of a history up to where it ends or was cut off.
fn each(dir: &Path, mut take: impl FnMut(&Event)) -> Result<(), String> {
    for event in file::read(dir).map_err(|error| error.to_string())? {
        match event {
            Ok(event) => take(&event),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}
