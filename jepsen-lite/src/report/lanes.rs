//! Lanes of owners: for shards with the same history, a thin row for each node that was in the set; and the leader.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::bands::{self, Bar, Labels};
use super::markup::{clock, counted, ranges, span, text};
use super::owners::{Alike, Epoch, Reign};
use super::story::Story;

/// Lanes that are shown at once; more are behind a fold.
const LANES_OPEN: usize = 8;
/// Lanes at all, and epochs of all of them: a report stays small enough to send.
const LANES_MAX: usize = 128;
const EPOCHS_MAX: usize = 2_500;
/// Colours of nodes; more nodes begin again with the first.
pub(super) const COLOURS: usize = 8;

const NODE_PX: usize = 5;
const STRIP_PX: usize = 13;

/// A row of the time axis: label and picture, both HTML.
pub(super) type Row = (String, String);

/// Lanes to show, and lanes to fold.
pub(super) fn shards(axis: Axis, story: &Story) -> (Vec<Row>, Vec<Row>, Option<String>) {
    let names = story.owners.names();
    let places: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let mut groups = story.owners.alike();
    let hidden: usize = groups.iter().skip(LANES_MAX).map(|group| group.shards.len()).sum();
    groups.truncate(LANES_MAX);
    let changes: Vec<usize> = groups.iter().map(|group| group.epochs.len() - 1).collect();
    let closest_us = closest(axis, &mut groups);
    let row = |(group, changes): (&Alike, usize)| {
        let noun = if group.shards.len() == 1 { "shard" } else { "shards" };
        let changes = counted(changes as u64, "change", "changes");
        let label = format!("{noun} {} <small>{changes}</small>", short_ranges(&group.shards));
        (label, lane(axis, group, &places))
    };
    let mut rows: Vec<Row> = groups.iter().zip(changes).map(row).collect();
    let mut notes = Vec::new();
    if closest_us > 0 {
        notes.push(format!("Changes of a shard less than {} apart are drawn as one.", span(closest_us)));
    }
    let left_out = story.owners.left_out;
    if hidden as u64 + left_out > 0 {
        let shards = counted(hidden as u64, "shard", "shards");
        notes.push(format!("Not shown: {shards}, and {} of others.", counted(left_out, "change", "changes")));
    }
    let folded = rows.split_off(rows.len().min(LANES_OPEN));
    (rows, folded, (!notes.is_empty()).then(|| notes.join(" ")))
}

/// Joins epochs that are too many to draw, and tells how close they are then at least.
fn closest(axis: Axis, groups: &mut [Alike]) -> u64 {
    if groups.iter().map(|group| group.epochs.len()).sum::<usize>() <= EPOCHS_MAX {
        return 0;
    }
    let closest_us = (axis.end_us - axis.begin_us) * groups.len() as u64 / EPOCHS_MAX as u64;
    for group in groups {
        let mut kept: Vec<Epoch> = Vec::new();
        for epoch in group.epochs.drain(..) {
            match kept.last_mut() {
                // The later one stands for both, from where the first began.
                Some(last) if epoch.from_us < last.from_us + closest_us => {
                    *last = Epoch { from_us: last.from_us, ..epoch };
                }
                _ => kept.push(epoch),
            }
        }
        group.epochs = kept;
    }
    closest_us
}

/// The label's column is narrow.
fn short_ranges(shards: &[u32]) -> String {
    let all = ranges(shards);
    if all.chars().count() <= 40 {
        return all;
    }
    format!("<span title=\"{all}\">{}, … ({})</span>", ranges(&shards[..4]), shards.len())
}

/// Colours of the nodes.
pub(super) fn legend(story: &Story) -> String {
    let names = story.owners.names();
    let key = |(place, name): (usize, &String)| {
        format!("<span class=\"key\"><i class=\"n{}\"></i>{}</span>", place % COLOURS, text(name))
    };
    names.iter().enumerate().map(key).collect()
}

fn lane(axis: Axis, group: &Alike, places: &BTreeMap<&str, usize>) -> String {
    let strip = if group.epochs.len() > 1 { STRIP_PX } else { 0 };
    let height = places.len() * NODE_PX;
    let mut out = format!("<svg class=\"plot lane\" height=\"{}\" role=\"img\">", strip + height + 3);
    let to_us = |place: usize| group.epochs.get(place + 1).map_or(axis.end_us, |next| next.from_us);
    for (place, epoch) in group.epochs.iter().enumerate().filter(|(_, epoch)| epoch.new.is_some()) {
        let (x, width) = axis.span(epoch.from_us, to_us(place));
        let width = width.max(0.1);
        out.push_str(&format!(
            "<rect class=\"joint\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"{strip}\" height=\"{height}\"/>"
        ));
    }
    for (name, place) in places {
        for (from, to, coming) in stretches(group, name) {
            let (x, width) = axis.span(group.epochs[from].from_us, to_us(to));
            let (colour, coming) = (place % COLOURS, if coming { " coming" } else { "" });
            let (width, y, thick) = (width.max(0.1), strip + place * NODE_PX, NODE_PX - 1);
            out.push_str(&format!(
                "<rect class=\"n{colour}{coming}\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"{y}\" height=\"{thick}\"/>"
            ));
        }
    }
    out.push_str(&labels(axis, group, strip));
    // Above the colours, so that the whole epoch answers to the pointer.
    for (place, epoch) in group.epochs.iter().enumerate() {
        let (x, width) = axis.span(epoch.from_us, to_us(place));
        let (width, title) = (width.max(0.2), text(&title(epoch, to_us(place))));
        out.push_str(&format!(
            "<rect class=\"over\" x=\"{x:.2}%\" width=\"{width:.2}%\" height=\"{}\"><title>{title}</title></rect>",
            strip + height
        ));
    }
    out + "</svg>"
}

/// First and last epoch of each stretch in which a node was in the set, or on its way into it.
fn stretches(group: &Alike, name: &str) -> Vec<(usize, usize, bool)> {
    let mut found: Vec<(usize, usize, bool)> = Vec::new();
    for (place, epoch) in group.epochs.iter().enumerate() {
        let within = |set: &Vec<String>| set.iter().any(|other| other == name);
        let coming = match (within(&epoch.set), epoch.new.as_ref().is_some_and(within)) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => continue,
        };
        match found.last_mut() {
            Some(last) if last.1 + 1 == place && last.2 == coming => last.1 = place,
            _ => found.push((place, place, coming)),
        }
    }
    found
}

/// Numbers of epochs where there is room, in the strip above the lane.
fn labels(axis: Axis, group: &Alike, strip: usize) -> String {
    let (mut out, mut end) = (String::new(), 0.0);
    for epoch in group.epochs.iter().filter(|_| strip > 0) {
        let (x, label) = (axis.percent(epoch.from_us), format!("e{}", epoch.epoch));
        // In percent of a plot of 640 pixels.
        let width = label.len() as f64 + 1.0;
        if x >= end && x + width <= 100.0 {
            out.push_str(&format!(
                "<line class=\"edge\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"2\" y2=\"{strip}\"/>\
                 <text class=\"label\" x=\"{x:.2}%\" dx=\"2\" y=\"10\">{label}</text>"
            ));
            end = x + width;
        }
    }
    out
}

fn title(epoch: &Epoch, to_us: u64) -> String {
    let joint = if epoch.new.is_some() { "joint epoch" } else { "epoch" };
    format!("{joint} {}: {}; {} to {}", epoch.epoch, epoch.words(), clock(epoch.from_us), clock(to_us))
}

/// Who led the meta group.
pub(super) fn leader(axis: Axis, story: &Story) -> Option<Row> {
    let reigns = story.owners.reigns();
    let bar = |(place, reign): (usize, &Reign)| {
        let to_us = reigns.get(place + 1).map_or(story.last_us, |next| next.from_us);
        let (who, class) = match &reign.leader {
            Some(leader) => (leader.as_str(), "leader"),
            None => ("no leader", "leaderless"),
        };
        let (from, to) = (clock(reign.from_us), clock(to_us));
        let title = format!("{who}, term {}; {from} to {to}", reign.term);
        Bar { from_us: reign.from_us, to_us, label: who.to_owned(), title, class }
    };
    let bars: Vec<Bar> = reigns.iter().enumerate().map(bar).collect();
    let terms = counted(bars.iter().filter(|bar| bar.class == "leader").count() as u64, "reign", "reigns");
    (!bars.is_empty())
        .then(|| (format!("meta leader <small>{terms}</small>"), bands::render(axis, &bars, Labels::Inside)))
}
