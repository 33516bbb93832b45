//! What was broken: ticks on the axis, a list by promise, and the biographies of the items.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::biography;
use super::markup::{clock, counted, text};
use super::story::Story;
use crate::checker::{ItemRef, Promise, Violation};

/// Violations that are listed of one promise, and items whose life is told.
const LISTED_MAX: usize = 200;
pub(super) const LIVES_MAX: usize = 12;
/// Ticks closer than this, in percent, are one.
const TICK_PERCENT: f64 = 0.8;

/// What was promised, in a sentence.
fn promised(promise: Promise) -> &'static str {
    match promise {
        Promise::P1 => "what is acknowledged is not lost",
        Promise::P2 => "nothing is returned that no client sent",
        Promise::P3 => "what is sent again counts once, and what is only equal is kept twice",
        Promise::P4 => "what is acknowledged or was shown once is seen by every later query",
        Promise::P5 => "an answer that may miss rows says that it is partial",
        Promise::P6 => "metadata is linearizable, and epochs only grow",
        Promise::P7 => "moving shards loses, doubles and stops nothing",
        Promise::P8 => "bad input gets a precise error and harms nobody else",
        Promise::P9 => "overload is answered with a delay, within a fixed budget of memory",
        Promise::P10 => "without a majority of the meta group, data goes on",
    }
}

/// Violations by promise and time; their places are their names in links.
pub(super) fn in_order(violations: &[Violation]) -> Vec<&Violation> {
    let mut all: Vec<&Violation> = violations.iter().collect();
    all.sort_by_key(|violation| (violation.promise, violation.at_us));
    let mut of: BTreeMap<Promise, usize> = BTreeMap::new();
    all.retain(|violation| {
        let count = of.entry(violation.promise).or_default();
        *count += 1;
        *count <= LISTED_MAX
    });
    all
}

/// The first items that violations name.
pub(super) fn items(listed: &[&Violation]) -> Vec<ItemRef> {
    let mut items: Vec<ItemRef> = Vec::new();
    for item in listed.iter().filter_map(|violation| violation.item) {
        if items.len() < LIVES_MAX && !items.contains(&item) {
            items.push(item);
        }
    }
    items
}

/// Ticks in time, each for one or more violations that stand close.
pub(super) struct Ticks {
    ticks: Vec<(f64, Vec<usize>)>,
    /// By violation: its tick.
    of: Vec<usize>,
}

pub(super) fn ticks(axis: Axis, listed: &[&Violation]) -> Ticks {
    let mut order: Vec<usize> = (0..listed.len()).collect();
    order.sort_by_key(|place| listed[*place].at_us);
    let mut ticks: Vec<(f64, Vec<usize>)> = Vec::new();
    let mut of = vec![0; listed.len()];
    for place in order {
        let x = axis.percent(listed[place].at_us);
        match ticks.last_mut() {
            Some((at, places)) if x - *at < TICK_PERCENT => places.push(place),
            _ => ticks.push((x, vec![place])),
        }
        of[place] = ticks.len() - 1;
    }
    Ticks { ticks, of }
}

impl Ticks {
    /// Where they stand, in percent.
    pub(super) fn places(&self) -> impl Iterator<Item = f64> {
        self.ticks.iter().map(|(x, _)| *x)
    }

    /// The row of ticks: links to the violations, which the keyboard reaches.
    pub(super) fn render(&self, listed: &[&Violation]) -> String {
        let mut out = String::from("<svg class=\"plot ticks\" height=\"30\">");
        let mut label_end = f64::MIN;
        for (tick, (x, places)) in self.ticks.iter().enumerate() {
            let first = places[0];
            let Violation { promise, at_us, what, .. } = listed[first];
            let more = places.len() - 1;
            let and = if more > 0 { format!(" (and {more} more here)") } else { String::new() };
            let title = text(&format!("{promise:?} at {}: {what}{and}", clock(*at_us)));
            let label = if more > 0 { format!("{promise:?} +{more}") } else { format!("{promise:?}") };
            // In percent of a plot of 640 pixels.
            let label_width = label.len() as f64 * 1.05;
            let anchor = if *x > 95.0 {
                "end"
            } else if *x < 5.0 {
                "start"
            } else {
                "middle"
            };
            let from = match anchor {
                "end" => x - label_width,
                "start" => *x,
                _ => x - label_width / 2.0,
            };
            let label = if from >= label_end {
                label_end = from + label_width + 0.5;
                format!(
                    "<text class=\"label\" x=\"{x:.2}%\" y=\"11\" text-anchor=\"{anchor}\">{label}</text>"
                )
            } else {
                String::new()
            };
            out.push_str(&format!(
                "<a href=\"#v{first}\" id=\"t{tick}\" aria-label=\"{title}\"><title>{title}</title>{label}\
                 <svg x=\"{x:.2}%\" y=\"14\" overflow=\"visible\"><path d=\"M-7 0H7L0 14Z\"/></svg></a>"
            ));
        }
        out + "</svg>"
    }
}

/// A section for each promise that was broken, and a line for the others.
pub(super) fn list(all: &[Violation], listed: &[&Violation], ticks: &Ticks, told: &[ItemRef]) -> String {
    let mut out = String::new();
    let mut quiet = Vec::new();
    for promise in Promise::ALL {
        let sentence = promised(promise);
        let of = all.iter().filter(|violation| violation.promise == promise).count();
        if of == 0 {
            quiet.push(format!("<li><b>{promise}</b>: {sentence}.</li>"));
            continue;
        }
        out.push_str(&format!(
            "<h3 id=\"{promise:?}\">{promise}: {}</h3><p class=\"soft\">Promised: {sentence}.</p><ol>",
            counted(of as u64, "violation", "violations")
        ));
        let mut shown = 0;
        for (place, violation) in listed.iter().enumerate().filter(|(_, one)| one.promise == promise) {
            out.push_str(&entry(place, violation, ticks.of[place], told));
            shown += 1;
        }
        out.push_str("</ol>");
        if of > shown {
            out.push_str(&format!(
                "<p>{} not listed.</p>",
                counted((of - shown) as u64, "more is", "more are")
            ));
        }
    }
    let open = if all.is_empty() { " open=\"\"" } else { "" };
    let summary = format!("No violation was found of {}", counted(quiet.len() as u64, "promise", "promises"));
    if !quiet.is_empty() {
        out.push_str(&format!(
            "<details{open}><summary>{summary}</summary><ul>{}</ul></details>",
            quiet.concat()
        ));
    }
    out
}

fn entry(place: usize, violation: &Violation, tick: usize, told: &[ItemRef]) -> String {
    let life = violation.item.map(|item| {
        let name = biography::name(item);
        match told.iter().position(|other| *other == item) {
            Some(life) => format!(" <a href=\"#b{life}\">Life of {name}</a>"),
            None => format!(" ({name})"),
        }
    });
    format!(
        "<li id=\"v{place}\"><a class=\"at\" href=\"#t{tick}\">{}</a> {}{}</li>",
        clock(violation.at_us),
        text(&violation.what),
        life.unwrap_or_default()
    )
}

/// The lives of items, the first open.
pub(super) fn biographies(all: &[Violation], told: &[ItemRef], story: &Story) -> String {
    let life = |(place, item): (usize, &ItemRef)| {
        let named: Vec<&Violation> =
            all.iter().filter(|violation| violation.item == Some(*item)).take(8).collect();
        let promises: Vec<String> =
            named.iter().map(|violation| format!("{:?}", violation.promise)).collect();
        let open = if place < 3 { " open=\"\"" } else { "" };
        format!(
            "<details class=\"biography\" id=\"b{place}\"{open}><summary>{} <small>{}</small></summary>{}</details>",
            biography::name(*item),
            promises.join(" "),
            biography::render(*item, &named, story)
        )
    };
    told.iter().enumerate().map(life).collect()
}
