//! Bars over time with their labels, laid out so that nothing overlaps: faults, phases, and what is near an item.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::markup::{clock, counted, span, text};
use super::story::{Fault, Story};

/// Labels are laid out for a plot of this many pixels; narrower ones hide them.
const PLOT_PX: f64 = 640.0;
const CHARACTER_PX: f64 = 6.4;
/// Bars that overlap lie below each other in this many rows at most; the last tells of the others together.
const ROWS_MAX: usize = 6;
/// Percent; what is shorter can still be seen.
const WIDTH_MIN: f64 = 0.3;
/// Of more bars than this, two rows.
const MANY: usize = 200;
pub(super) const ROW_PX: usize = 17;

pub(super) struct Bar {
    pub(super) from_us: u64,
    pub(super) to_us: u64,
    /// Short, beside or in the bar where there is room.
    pub(super) label: String,
    /// All of it, on hover.
    pub(super) title: String,
    pub(super) class: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Label {
    Inside,
    After,
    None,
}

/// Where labels may stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Labels {
    /// In the bar, or else after it.
    Beside,
    /// In the bar only: each bar begins where the one before ends, and all are in one row.
    Inside,
}

#[derive(Debug)]
struct Placed {
    row: usize,
    /// Percent.
    x: f64,
    width: f64,
    label: Label,
    /// Bars that this one stands for; one where it is itself.
    bars: usize,
}

/// Rows of bars and their count. `bars` are in the order of their begins.
fn place(axis: Axis, bars: &[Bar], labels: Labels) -> (Vec<Placed>, usize) {
    if labels == Labels::Inside {
        return (in_a_row(axis, bars), 1);
    }
    let rows_max = if bars.len() > MANY { 2 } else { ROWS_MAX };
    // Where each row is free again, in pixels.
    let mut ends: Vec<f64> = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    for bar in bars {
        let (x, width) = axis.span(bar.from_us, bar.to_us);
        let width = width.max(WIDTH_MIN);
        let (from_px, bar_px) = (x * PLOT_PX / 100.0, width * PLOT_PX / 100.0);
        let label_px = label_px(bar);
        let (label, labelled_px) = match () {
            () if label_px <= bar_px => (Label::Inside, bar_px),
            () if from_px + bar_px + label_px <= PLOT_PX => (Label::After, bar_px + label_px),
            () => (Label::None, bar_px),
        };
        let free = |rows: &[f64]| rows.iter().position(|end| *end <= from_px + 0.1);
        let full = ends.len() == rows_max;
        let (row, label) = match free(&ends) {
            Some(row) => (row, label),
            None if !full => {
                ends.push(0.0);
                (ends.len() - 1, label)
            }
            // The row's last label goes before a bar does.
            None => match unlabelled(&mut placed, rows_max, from_px) {
                Some(row) => (row, Label::None),
                None => {
                    let last = placed.iter_mut().rev().find(|other| other.row == rows_max - 1);
                    let last = last.expect("a full plot has bars in its last row");
                    last.width = last.width.max(x + width - last.x);
                    (last.label, last.bars) = (Label::None, last.bars + 1);
                    placed.push(Placed { row: rows_max, x, width, label: Label::None, bars: 0 });
                    continue;
                }
            },
        };
        ends[row] = from_px + if label == Label::None { bar_px } else { labelled_px } + 2.0;
        placed.push(Placed { row, x, width, label, bars: 1 });
    }
    (placed, ends.len().max(1))
}

fn label_px(bar: &Bar) -> f64 {
    bar.label.chars().count() as f64 * CHARACTER_PX + 8.0
}

/// Bars of which each begins where the one before ends. One that would be hidden by the least width of the bar before
/// it is told by that one.
fn in_a_row(axis: Axis, bars: &[Bar]) -> Vec<Placed> {
    let mut placed: Vec<Placed> = Vec::new();
    let mut last_drawn: Option<usize> = None;
    for bar in bars {
        let (x, width) = axis.span(bar.from_us, bar.to_us);
        let hides = |place: &usize| x + width <= placed[*place].x + placed[*place].width;
        let bars = match last_drawn.filter(hides) {
            Some(place) => {
                placed[place].bars += 1;
                0
            }
            None => {
                last_drawn = Some(placed.len());
                1
            }
        };
        let width = width.max(WIDTH_MIN);
        let fits = bars == 1 && label_px(bar) <= width * PLOT_PX / 100.0;
        let label = if fits { Label::Inside } else { Label::None };
        placed.push(Placed { row: 0, x, width, label, bars });
    }
    placed
}

/// A row that is free at a place but for the label of its last bar, which is taken away.
fn unlabelled(placed: &mut [Placed], rows: usize, from_px: f64) -> Option<usize> {
    (0..rows).find(|row| {
        let last = placed.iter_mut().rev().find(|other| other.row == *row && other.bars > 0);
        last.is_some_and(|last| {
            let free = (last.x + last.width) * PLOT_PX / 100.0 + 2.0 <= from_px && last.label == Label::After;
            if free {
                last.label = Label::None;
            }
            free
        })
    })
}

/// The bars as a picture of their own.
pub(super) fn render(axis: Axis, bars: &[Bar], labels: Labels) -> String {
    let (placed, rows) = place(axis, bars, labels);
    let mut out = format!("<svg class=\"plot\" height=\"{}\" role=\"img\">", rows * ROW_PX + 2);
    for (bar, at) in bars.iter().zip(&placed).filter(|(_, at)| at.bars > 0) {
        let Placed { row, x, width, label, bars } = at;
        let y = row * ROW_PX + 2;
        let title = match bars {
            1 => text(&bar.title),
            more => format!("{} from {} on, too close to show apart", more, clock(bar.from_us)),
        };
        let class = bar.class;
        out.push_str(&format!(
            "<rect class=\"bar {class}\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"{y}\" height=\"13\" rx=\"2\">\
             <title>{title}</title></rect>"
        ));
        let (place, inside) = match label {
            Label::None => continue,
            Label::Inside => (*x, " inside"),
            Label::After => (x + width, ""),
        };
        let (base, label) = (y + 10, text(&bar.label));
        out.push_str(&format!(
            "<text class=\"label{inside}\" x=\"{place:.2}%\" dx=\"4\" y=\"{base}\">{label}</text>"
        ));
    }
    out + "</svg>"
}

/// The bar of a fault; one that never ended is in force until the last event.
pub(super) fn fault_bar(fault: &Fault, story: &Story, label: String) -> Bar {
    let began = &fault.began;
    let to_us = fault.ended_us.unwrap_or(story.last_us);
    let end = match fault.ended_us {
        Some(us) => format!("to {} ({})", clock(us), span(us.saturating_sub(began.at_us))),
        None => "and never ended".to_owned(),
    };
    let title = format!("{} {}: {}; from {} {end}", began.kind, began.id, began.what, clock(began.at_us));
    let class = if fault.ended_us.is_some() && fault.evidence.values().all(|count| *count == 0) {
        "fault unproven"
    } else {
        "fault"
    };
    Bar { from_us: began.at_us, to_us, label, title, class }
}

/// A row for each kind of fault, with its label.
pub(super) fn faults(axis: Axis, story: &Story) -> Vec<(String, String)> {
    let mut kinds: BTreeMap<_, Vec<Bar>> = BTreeMap::new();
    for fault in &story.faults {
        let label = fault.began.nodes.join(" ");
        kinds.entry(fault.began.kind).or_default().push(fault_bar(fault, story, label));
    }
    kinds
        .into_iter()
        .map(|(kind, mut bars)| {
            bars.sort_by_key(|bar| bar.from_us);
            (format!("{kind} <small>× {}</small>", bars.len()), render(axis, &bars, Labels::Beside))
        })
        .collect()
}

/// Stretches in which any fault was in force, joined where a pixel would not part them.
pub(super) fn in_force(axis: Axis, story: &Story) -> Vec<(f64, f64)> {
    let span = |fault: &Fault| axis.span(fault.began.at_us, fault.ended_us.unwrap_or(story.last_us));
    let mut spans: Vec<(f64, f64)> = story.faults.iter().map(span).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (x, width) in spans {
        match joined.last_mut() {
            Some(last) if x <= last.0 + last.1 + 0.1 => last.1 = last.1.max(x + width - last.0),
            _ => joined.push((x, width.max(0.1))),
        }
    }
    joined
}

/// The work, and the time to heal.
pub(super) fn phases(axis: Axis, story: &Story) -> String {
    let bar = |name: &str, from_us, to_us, class| Bar {
        from_us,
        to_us,
        label: name.to_owned(),
        title: format!("{name}: {} to {}", clock(from_us), clock(to_us)),
        class,
    };
    let healing_us = story.healing_us.unwrap_or(story.last_us);
    let mut bars = vec![bar("faults may strike", 0, healing_us, "work")];
    if story.healing_us.is_some() {
        bars.push(bar("healing", healing_us, story.last_us, "heal"));
    }
    render(axis, &bars, Labels::Inside)
}

/// Processes that ended with no fault to end them.
pub(super) fn died(axis: Axis, story: &Story) -> Option<(String, String)> {
    let bar = |died: &crate::history::event::Died| Bar {
        from_us: died.at_us,
        to_us: died.at_us,
        label: died.node.clone(),
        title: format!("{} died at {}: {}", died.node, clock(died.at_us), died.how),
        class: "died",
    };
    let mut bars: Vec<Bar> = story.died.iter().map(bar).collect();
    bars.sort_by_key(|bar| bar.from_us);
    let label = counted(bars.len() as u64, "process died of itself", "processes died of themselves");
    (!bars.is_empty()).then(|| (label, render(axis, &bars, Labels::Beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(from_us: u64, to_us: u64, label: &str) -> Bar {
        Bar { from_us, to_us, label: label.to_owned(), title: String::new(), class: "fault" }
    }

    #[test]
    fn bars_and_labels_do_not_overlap_and_rows_are_bounded() {
        let axis = Axis::new(0, 100_000_000);
        for step in [20_000, 300_000, 3_000_000] {
            let bars: Vec<Bar> =
                (0..30).map(|n| bar(n * step, n * step + 4_000_000, "storage-1 storage-2")).collect();
            let (placed, rows) = place(axis, &bars, Labels::Beside);
            assert!(rows <= ROWS_MAX);
            assert_eq!(placed.iter().map(|at| at.bars).sum::<usize>(), bars.len());
            for row in 0..rows {
                let mut end = 0.0;
                for (bar, at) in bars.iter().zip(&placed).filter(|(_, at)| at.row == row && at.bars > 0) {
                    let from = at.x * PLOT_PX / 100.0;
                    assert!(from >= end, "{from} {end}");
                    end = from + at.width * PLOT_PX / 100.0;
                    if at.label == Label::After {
                        end += bar.label.len() as f64 * CHARACTER_PX;
                    }
                }
            }
        }
    }

    #[test]
    fn bars_in_a_row_stay_their_own_unless_they_cannot_be_seen() {
        let axis = Axis::new(0, 100_000_000);
        let second = 1_000_000;
        let bars = [
            bar(0, 50 * second, "meta-1"),
            bar(50 * second, 50 * second + 100_000, "no leader"),
            bar(50 * second + 100_000, 50 * second + 200_000, "meta-2"),
            bar(50 * second + 200_000, 100 * second, "meta-3"),
        ];
        let (placed, rows) = place(axis, &bars, Labels::Inside);
        let found: Vec<(Label, usize)> = placed.iter().map(|at| (at.label, at.bars)).collect();
        assert_eq!(found, [(Label::Inside, 1), (Label::None, 2), (Label::None, 0), (Label::Inside, 1)]);
        assert_eq!(rows, 1);
    }
}
