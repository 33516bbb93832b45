//! What befell one item: the write that carried it, the reads that did and did not show it, and what happened near.

use super::axis::Axis;
use super::bands::{self, Bar, Labels};
use super::markup::{clock, counted, ranges, span, text};
use super::story::{Deed, Story};
use crate::checker::{ItemRef, Violation};
use crate::history::event::{Outcome, Read, Way, Write};

/// Writes of one item; a correct client makes one.
const WRITES_MAX: usize = 8;
/// Runs of reads with the same answer.
const RUNS_MAX: usize = 300;
/// Rows of the list, and of each kind of what was only near.
const ROWS_MAX: usize = 150;
const NEAR_MAX: usize = 25;
/// Bars of a row of the picture, the first.
const BARS_MAX: usize = 60;
/// How near is near, at least.
const NEAR_US: u64 = 10_000_000;

/// Reads one after the other that asked for the item and answered the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// How often the item was there.
    times: u32,
    partial: bool,
    way: Way,
    reads: u64,
    /// Of the first of them.
    invoked_us: u64,
    session: u32,
    front: u32,
    /// When the last of them was answered.
    completed_us: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    writes: Vec<Write>,
    runs: Vec<Run>,
    /// Reads after the last run that there was room for.
    left_out: u64,
}

impl Life {
    pub(super) fn write(&mut self, item: ItemRef, write: &Write) {
        let carried = (write.from..write.to).contains(&item.sequence);
        let carried = carried && write.signal == item.signal && write.writer == item.writer;
        if carried && self.writes.len() < WRITES_MAX {
            self.writes.push(write.clone());
        }
    }

    pub(super) fn read(&mut self, item: ItemRef, read: &Read) {
        let scope = &read.scope;
        let asked = scope.writers.contains(&item.writer) && (scope.from..scope.to).contains(&item.sequence);
        let ranges = read.seen.get(&item.writer).map_or(&[][..], |ranges| ranges);
        let seen = ranges.iter().any(|(from, to)| (*from..*to).contains(&item.sequence));
        if read.signal != item.signal || !(asked || seen) {
            return;
        }
        let more =
            read.repeated.iter().find(|(writer, at, _)| (*writer, *at) == (item.writer, item.sequence));
        let times = more.map_or(u32::from(seen), |(_, _, times)| *times);
        let same = |run: &&mut Run| (run.times, run.partial, run.way) == (times, read.partial, read.way);
        if let Some(run) = self.runs.last_mut().filter(same) {
            run.reads += 1;
            run.completed_us = run.completed_us.max(read.completed_us);
        } else if self.runs.len() == RUNS_MAX {
            self.left_out += 1;
        } else {
            self.runs.push(Run {
                times,
                partial: read.partial,
                way: read.way,
                reads: 1,
                invoked_us: read.invoked_us,
                session: read.session,
                front: read.front,
                completed_us: read.completed_us,
            });
        }
    }

    fn acknowledged_us(&self) -> Option<u64> {
        let acknowledged = |write: &&Write| write.outcome == Outcome::Acknowledged;
        self.writes.iter().filter(acknowledged).map(|write| write.completed_us).min()
    }

    /// Whether a run of reads shows that something is wrong.
    fn wrong(&self, run: &Run) -> bool {
        let due = self.acknowledged_us().is_some_and(|us| us < run.invoked_us);
        let shown = |other: &Run| other.times > 0 && other.completed_us < run.invoked_us;
        run.times > 1 || (run.times == 0 && !run.partial && (due || self.runs.iter().any(shown)))
    }

    /// The stretches in which a cause may lie: the write, and the time between the last read that was right and the
    /// first that was wrong.
    fn stretches(&self, at_us: u64) -> Vec<(u64, u64)> {
        let mut stretches: Vec<(u64, u64)> =
            self.writes.iter().map(|write| (write.invoked_us, write.completed_us)).collect();
        let wrong = self.runs.iter().position(|run| self.wrong(run));
        let found_us = wrong.map_or(at_us, |place| self.runs[place].invoked_us);
        let right = self.runs[..wrong.unwrap_or(0)].iter().rev().find(|run| run.times == 1);
        let from_us = right.map(|run| run.completed_us).or(self.acknowledged_us()).unwrap_or(found_us);
        stretches.push((from_us.min(found_us), found_us));
        stretches.iter().map(|(from, to)| (from.saturating_sub(NEAR_US), to + NEAR_US)).collect()
    }
}

/// One row of the list.
struct Happened {
    at_us: u64,
    class: &'static str,
    kind: &'static str,
    /// HTML.
    what: String,
}

/// How items are named in a report.
pub(super) fn name(item: ItemRef) -> String {
    format!("{} item {} of writer {}", item.signal.name(), item.sequence, item.writer)
}

/// The biography as HTML, for all violations that name the item.
pub(super) fn render(item: ItemRef, violations: &[&Violation], story: &Story) -> String {
    let fallback = Life::default();
    let life = story.lives.get(&item).unwrap_or(&fallback);
    let at_us = violations.iter().map(|violation| violation.at_us).min().unwrap_or(story.last_us);
    let near = life.stretches(at_us);
    let begin_us = near.iter().map(|(from, _)| *from).min().unwrap_or(0);
    let end_us = near.iter().map(|(_, to)| *to).max().unwrap_or(story.last_us).min(story.last_us);
    let axis = Axis::new(begin_us, end_us.max(begin_us));
    let near = |from_us: u64, to_us: u64| near.iter().any(|(from, to)| from_us <= *to && to_us >= *from);

    let mut rows: Vec<Happened> = life.writes.iter().flat_map(|write| written(write, story)).collect();
    if life.writes.is_empty() {
        rows.push(Happened {
            at_us: 0,
            class: "wrong",
            kind: "write",
            what: "no write of the history carries it".into(),
        });
    }
    rows.extend(life.runs.iter().map(|run| read_row(life, run, story)));
    rows.extend(violations.iter().map(|violation| Happened {
        at_us: violation.at_us,
        class: "wrong",
        kind: "violation",
        what: format!("<b>{:?}</b> {}", violation.promise, text(&violation.what)),
    }));
    rows.extend(around(story, &near));
    rows.sort_by_key(|row| row.at_us);
    let picture = picture(axis, life, story, &near);
    format!("<p>{}</p>{picture}{}{}", summary(life, story), owners(life, story, at_us), list(&rows, life))
}

fn front(story: &Story, place: u32) -> String {
    let names = story.start.nodes.get("front");
    names
        .and_then(|names| names.get(place as usize))
        .map_or_else(|| format!("front {place}"), |name| text(name))
}

/// The life in a sentence or two.
fn summary(life: &Life, story: &Story) -> String {
    let write = match life.writes.first() {
        None => "No write of the history carries it.".to_owned(),
        Some(write) => {
            let end = match write.outcome {
                Outcome::Acknowledged => "acknowledged",
                Outcome::Unknown => "ended without a clear answer",
                Outcome::Rejected => "rejected",
            };
            format!(
                "Sent at {} with items {} to {}, {end} at {} by {} after {}, {} of them ambiguous.",
                clock(write.invoked_us),
                write.from,
                write.to.saturating_sub(1),
                clock(write.completed_us),
                front(story, write.front),
                counted(write.attempts.into(), "attempt", "attempts"),
                write.ambiguous
            )
        }
    };
    let sum =
        |which: &dyn Fn(&Run) -> bool| life.runs.iter().filter(|run| which(run)).map(|run| run.reads).sum();
    let shown = counted(sum(&|run| run.times > 0), "read", "reads");
    let missed = counted(sum(&|run| life.wrong(run) && run.times == 0), "complete read", "complete reads");
    format!("{write} Shown by {shown}; missing from {missed} that had to show it.")
}

fn written(write: &Write, story: &Story) -> [Happened; 2] {
    let (class, end) = match write.outcome {
        Outcome::Acknowledged => ("right", "acknowledged"),
        Outcome::Unknown => ("doubt", "ended without a clear answer"),
        Outcome::Rejected => ("wrong", "rejected"),
    };
    let items = write.to.saturating_sub(write.from);
    let mut what = format!(
        "{end} by {}, {} after it was sent first: {}, {} ambiguous",
        front(story, write.front),
        span(write.completed_us.saturating_sub(write.invoked_us)),
        counted(write.attempts.into(), "attempt", "attempts"),
        write.ambiguous
    );
    if let Some(why) = &write.why {
        what.push_str(&format!(": {}", text(why)));
    }
    let sent = format!("a write of {} is sent first", counted(items, "item", "items"));
    [
        Happened { at_us: write.invoked_us, class: "plain", kind: "write", what: sent },
        Happened { at_us: write.completed_us, class, kind: "write", what },
    ]
}

fn read_class(life: &Life, run: &Run) -> &'static str {
    match (life.wrong(run), run.times, run.partial) {
        (true, ..) => "wrong",
        (false, 0, true) => "doubt",
        (false, 0, false) => "plain",
        (false, ..) => "right",
    }
}

fn read_words(run: &Run) -> String {
    let answer = match run.times {
        0 => "not shown".to_owned(),
        1 => "shown".to_owned(),
        times => format!("shown {times} times"),
    };
    let complete = if run.partial { "partial" } else { "complete" };
    let way = if run.way == Way::TraceById { " by trace id" } else { "" };
    let reads = counted(run.reads, "read", "reads");
    format!("{answer} by {reads}{way}, {complete}")
}

fn read_row(life: &Life, run: &Run, story: &Story) -> Happened {
    let (session, front) = (run.session, front(story, run.front));
    let until = if run.reads > 1 {
        format!(
            "; the first by session {session} through {front}, the last answered at {}",
            clock(run.completed_us)
        )
    } else {
        format!(" (session {session}, {front}), answered at {}", clock(run.completed_us))
    };
    let what = format!("{}{until}", read_words(run));
    Happened { at_us: run.invoked_us, class: read_class(life, run), kind: "read", what }
}

/// Faults, deaths, changes of owners and deeds of nodes near the item, the first few of each.
fn around(story: &Story, near: &dyn Fn(u64, u64) -> bool) -> Vec<Happened> {
    let mut rows = Vec::new();
    for fault in &story.faults {
        let end_us = fault.ended_us.unwrap_or(story.last_us);
        if near(fault.began.at_us, end_us) {
            let end = fault.ended_us.map_or("never ended".to_owned(), |us| format!("until {}", clock(us)));
            let what = format!("{} {}: {}, {end}", fault.began.kind, fault.began.id, text(&fault.began.what));
            rows.push(Happened { at_us: fault.began.at_us, class: "fault", kind: "fault", what });
        }
    }
    let died = story.died.iter().filter(|died| near(died.at_us, died.at_us)).map(|died| Happened {
        at_us: died.at_us,
        class: "wrong",
        kind: "death",
        what: format!("{} died: {}", text(&died.node), text(&died.how)),
    });
    rows.extend(died);
    for (shards, epoch) in story.owners.changes() {
        if near(epoch.from_us, epoch.from_us) {
            let noun = if shards.len() == 1 { "shard" } else { "shards" };
            let joint = if epoch.new.is_some() { "joint epoch" } else { "epoch" };
            let what =
                format!("{noun} {}: {joint} {}, {}", ranges(&shards), epoch.epoch, text(&epoch.words()));
            rows.push(Happened { at_us: epoch.from_us, class: "owner", kind: "owners", what });
        }
    }
    for reign in story.owners.reigns().iter().skip(1).filter(|reign| near(reign.from_us, reign.from_us)) {
        let who =
            reign.leader.as_deref().map_or("no leader".to_owned(), |who| format!("{} leads", text(who)));
        let what = format!("{who} in term {}", reign.term);
        rows.push(Happened { at_us: reign.from_us, class: "owner", kind: "meta", what });
    }
    let deeds = story.deeds.iter().filter(|deed| near(deed.at_us, deed.at_us)).map(|deed: &Deed| Happened {
        at_us: deed.at_us,
        class: "plain",
        kind: "node",
        what: format!("{}: {} + {}", text(&deed.node), text(&deed.counter), deed.by),
    });
    rows.extend(deeds);
    few_of_each(rows)
}

fn few_of_each(rows: Vec<Happened>) -> Vec<Happened> {
    let mut counts: std::collections::BTreeMap<&str, usize> = Default::default();
    let mut kept: Vec<Happened> = Vec::new();
    for row in rows {
        let count = counts.entry(row.kind).or_default();
        *count += 1;
        if *count <= NEAR_MAX {
            kept.push(row);
        }
    }
    for (kind, count) in counts.iter().filter(|(_, count)| **count > NEAR_MAX) {
        if let Some(last) = kept.iter_mut().rev().find(|row| row.kind == *kind) {
            last.what.push_str(&format!(" <i>(and {} more of this kind near)</i>", count - NEAR_MAX));
        }
    }
    kept
}

/// Write, reads, faults and changes of owners on an axis of their own.
fn picture(axis: Axis, life: &Life, story: &Story, near: &dyn Fn(u64, u64) -> bool) -> String {
    let write = |write: &Write| Bar {
        from_us: write.invoked_us,
        to_us: write.completed_us,
        label: "write".to_owned(),
        title: format!("{} to {}", clock(write.invoked_us), clock(write.completed_us)),
        class: if write.outcome == Outcome::Acknowledged { "right" } else { "doubt" },
    };
    let read = |run: &Run| Bar {
        from_us: run.invoked_us,
        to_us: run.completed_us,
        label: if run.reads > 1 { format!("{} reads", run.reads) } else { String::new() },
        title: format!("{}; {} to {}", read_words(run), clock(run.invoked_us), clock(run.completed_us)),
        class: read_class(life, run),
    };
    let owner = |(shards, epoch): &(Vec<u32>, super::owners::Epoch)| Bar {
        from_us: epoch.from_us,
        to_us: epoch.from_us,
        label: ranges(shards),
        title: format!("{}: shards {} epoch {}", clock(epoch.from_us), ranges(shards), epoch.epoch),
        class: "owner",
    };
    let changes = story.owners.changes();
    let faults = story.faults.iter().map(|fault| {
        let label = format!("{} {}", fault.began.kind, fault.began.nodes.join(" "));
        bands::fault_bar(fault, story, label)
    });
    let rows: [(&str, Vec<Bar>); 4] = [
        ("write", life.writes.iter().map(write).collect()),
        ("reads <small>shown or not</small>", life.runs.iter().map(read).collect()),
        ("faults near", faults.filter(|bar| near(bar.from_us, bar.to_us)).collect()),
        (
            "owners change <small>shards</small>",
            changes.iter().map(owner).filter(|bar| near(bar.from_us, bar.to_us)).collect(),
        ),
    ];
    let mut out = format!("<div class=\"row\"><div></div>{}</div>", axis.render());
    for (label, mut bars) in rows {
        bars.retain(|bar| axis.shows(bar.from_us, bar.to_us));
        bars.sort_by_key(|bar| bar.from_us);
        bars.truncate(BARS_MAX);
        if !bars.is_empty() {
            out.push_str(&format!(
                "<div class=\"row\"><div class=\"name\">{label}</div>{}</div>",
                bands::render(axis, &bars, Labels::Beside)
            ));
        }
    }
    format!("<div class=\"near\">{out}</div>")
}

/// The item's shard is not known to its client, so that the owners of all shards are told.
fn owners(life: &Life, story: &Story, at_us: u64) -> String {
    let at_us = life.acknowledged_us().unwrap_or(at_us);
    let sets = story.owners.at(at_us);
    if sets.is_empty() {
        return String::new();
    }
    let set = |(words, shards): (&String, &Vec<u32>)| {
        format!("<tr><td>{}</td><td>{}</td></tr>", text(words), ranges(shards))
    };
    let rows: String = sets.iter().map(set).collect();
    format!(
        "<details><summary>Owners of all shards at {} (the history does not tell which shard is the item's)</summary>\
         <table><thead><tr><th>replica set</th><th>shards</th></tr></thead><tbody>{rows}</tbody></table></details>",
        clock(at_us)
    )
}

fn list(rows: &[Happened], life: &Life) -> String {
    let row = |row: &Happened| {
        format!(
            "<tr class=\"{}\"><td class=\"at\">{}</td><td class=\"kind\">{}</td><td>{}</td></tr>",
            row.class,
            clock(row.at_us),
            row.kind,
            row.what
        )
    };
    let body: String = rows.iter().take(ROWS_MAX).map(row).collect();
    let more = (rows.len().saturating_sub(ROWS_MAX)) as u64 + life.left_out;
    let more = if more > 0 {
        format!("<p>{} not listed.</p>", counted(more, "more is", "more are"))
    } else {
        String::new()
    };
    format!(
        "<table class=\"life\"><thead><tr><th>time</th><th>of</th><th>what</th></tr></thead>\
         <tbody>{body}</tbody></table>{more}"
    )
}
