//! The page: one file with its style and script inside, that asks the network for nothing and reads without script.

use super::axis::Axis;
use super::story::Story;
use super::{bands, chart, head, lanes, violations};
use crate::checker::Violation;
use crate::verdict::Verdict;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Forbids the page all that it does not need: should markup of a history ever get through, it still runs nothing and
/// reaches nobody.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-of-this-page'";

/// Patterns that fills of all pictures share.
const PATTERNS: &str = "<svg width=\"0\" height=\"0\" class=\"patterns\" aria-hidden=\"true\"><defs>\
    <pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
    <rect width=\"2\" height=\"6\"/></pattern></defs></svg>";

pub(super) fn render(verdict: &Verdict, story: &Story) -> String {
    let listed = violations::in_order(&verdict.violations);
    let told = violations::items(&listed);
    let axis = Axis::new(0, story.last_us);
    let ticks = violations::ticks(axis, &listed);
    let lives = violations::biographies(&verdict.violations, &told, story);
    let lives = if lives.is_empty() { lives } else { format!("<h2>Lives of items</h2>{lives}") };
    let body = [
        head::verdict(verdict, story),
        head::what_was_run(story),
        head::numbers(verdict, story),
        format!("<h2>What happened when</h2>{}", timeline(axis, story, &ticks, &listed)),
        format!(
            "<h2 id=\"violations\">Violations</h2>{}",
            violations::list(&verdict.violations, &listed, &ticks, &told)
        ),
        lives,
        head::failures(story),
        format!("<h2>Coverage: what is proven to have happened</h2>{}", head::coverage(verdict)),
        head::faults(story),
    ]
    .concat();
    let title = format!("jepsen-lite: seed {}", story.start.seed);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>{PATTERNS}<main>{body}</main>\
         <script nonce=\"of-this-page\">{SCRIPT}</script></body></html>\n"
    )
}

fn row(class: &str, (label, picture): &(String, String)) -> String {
    format!("<div class=\"row {class}\"><div class=\"name\">{label}</div>{picture}</div>\n")
}

/// Everything that shares the one axis.
fn timeline(axis: Axis, story: &Story, ticks: &violations::Ticks, listed: &[&Violation]) -> String {
    let mut out = format!(
        "<div class=\"time\" data-end=\"{}\" data-bucket=\"{}\">",
        axis.end_us,
        story.buckets.width_us()
    );
    out.push_str(&marks(axis, story, ticks));
    let now = "<span class=\"soft\">time</span> <b id=\"now\"></b>".to_owned();
    let mut top = row("", &(now, axis.render()));
    if !listed.is_empty() {
        top.push_str(&row("", &("violations".to_owned(), ticks.render(listed))));
    }
    out.push_str(&format!("<div class=\"top\">{top}</div>"));
    out.push_str(&row("band", &("run".to_owned(), bands::phases(axis, story))));
    for band in bands::faults(axis, story) {
        out.push_str(&row("band", &band));
    }
    out.extend(bands::died(axis, story).map(|band| row("band", &band)));
    for chart in chart::charts(axis, story) {
        out.push_str(&row("", &chart));
    }
    out.extend(lanes::leader(axis, story).map(|lane| row("band", &lane)));
    let (open, folded, note) = lanes::shards(axis, story);
    if !open.is_empty() {
        let shards = story.owners.shards();
        let hatch = "<span class=\"key\"><i class=\"joint\"></i>joint epoch</span>";
        let keys = format!("<div class=\"keys\">{}{hatch}</div>", lanes::legend(story));
        out.push_str(&row("", &(format!("owners of {shards} shards"), keys)));
    }
    out.extend(open.iter().map(|lane| row("band", lane)));
    if !folded.is_empty() {
        let rows: String = folded.iter().map(|lane| row("band", lane)).collect();
        let count = folded.len();
        out.push_str(&format!(
            "<details><summary>{count} more lanes, of shards that changed less</summary>{rows}</details>"
        ));
    }
    out.extend(note.map(|note| format!("<p class=\"soft\">{note}</p>")));
    out + "<div id=\"cursor\" hidden=\"\"></div></div>"
}

/// Behind all rows: where faults were in force, the lines of the axis, and a line for every tick.
fn marks(axis: Axis, story: &Story, ticks: &violations::Ticks) -> String {
    let mut out = String::from("<svg class=\"marks\" aria-hidden=\"true\">");
    for (x, width) in bands::in_force(axis, story) {
        out.push_str(&format!("<rect class=\"shade\" x=\"{x:.2}%\" width=\"{width:.2}%\" height=\"100%\"/>"));
    }
    let mut line = |class: &str, x: f64| {
        out.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>"
        ));
    };
    axis.ticks().0.into_iter().for_each(|us| line("grid", axis.percent(us)));
    story.healing_us.into_iter().for_each(|us| line("healing", axis.percent(us)));
    ticks.places().for_each(|x| line("broken", x));
    out + "</svg>"
}
