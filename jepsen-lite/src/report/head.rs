//! The top of the page: the verdict, what was run, the numbers that matter, and what is proven to have happened.

use super::markup::{clock, counted, number, span, text};
use super::story::{Fault, Story};
use crate::verdict::{CoverageLine, Judgement, Verdict};
use crate::workload::item::Signal;

/// Faults that the table lists.
const FAULTS_LISTED_MAX: usize = 800;

/// The verdict, with its reason in a sentence.
pub(super) fn verdict(verdict: &Verdict, story: &Story) -> String {
    let broken = verdict.violations.len() as u64;
    let (class, word, reason) = match verdict.result {
        Judgement::Valid => (
            "good",
            "valid",
            "Every promise held, and all that was asked for is proven to have happened.".to_owned(),
        ),
        Judgement::Invalid => {
            let mut promises: Vec<_> = verdict.violations.iter().map(|violation| violation.promise).collect();
            promises.sort();
            promises.dedup();
            let links: Vec<String> =
                promises.iter().map(|promise| format!("<a href=\"#{promise:?}\">{promise:?}</a>")).collect();
            (
                "bad",
                "invalid",
                format!("{} of {}.", counted(broken, "violation", "violations"), links.join(", ")),
            )
        }
        Judgement::Unknown => {
            let missing: Vec<String> = verdict.missing.iter().map(|what| text(what)).collect();
            let missing =
                if missing.is_empty() { "proof that it struck".to_owned() } else { missing.join("; ") };
            (
                "warn",
                "unknown",
                format!("No violation was found, but the run does not prove much: {missing}."),
            )
        }
    };
    let cut = match story.end {
        Some(_) => "",
        None => {
            "<p><b>The history has no end:</b> it was cut off, and proves nothing about what is missing.</p>"
        }
    };
    format!(
        "<div class=\"verdict {class}\" role=\"status\"><h1><span>{word}</span></h1><p>{reason}</p>{cut}</div>"
    )
}

fn pair(name: &str, html: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{html}</dd></div>")
}

/// What was run, and how to run it again.
pub(super) fn what_was_run(story: &Story) -> String {
    let start = &story.start;
    let mut nodes: Vec<String> = Vec::new();
    for (role, names) in &start.nodes {
        let names: Vec<String> = names.iter().map(|name| text(name)).collect();
        nodes.push(format!("{} <span class=\"soft\">{}</span>", names.join(" "), text(role)));
    }
    let faults: Vec<&str> = start.faults.iter().map(|kind| kind.name()).collect();
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(" ") };
    let mut out = [
        pair("driver", &text(&start.driver)),
        pair("seed", &start.seed.to_string()),
        pair("duration", &clock(story.last_us)),
        pair("replication factor", &start.replication_factor.to_string()),
        pair("faults asked", &faults),
        pair("nodes", &nodes.join("<br/>")),
        pair("tested", &text(&start.tested)),
    ]
    .concat();
    if let Some(mutant) = &start.mutant {
        out.push_str(&pair("planted bug", &text(mutant)));
    }
    format!("<dl>{out}</dl><p class=\"soft\">Run it again:</p><pre>{}</pre>", text(&start.command))
}

/// The numbers that matter.
pub(super) fn numbers(verdict: &Verdict, story: &Story) -> String {
    let totals = &story.totals;
    let whole = story.buckets.whole();
    let acknowledged: u64 = totals.acknowledged.iter().sum();
    let by_signal: Vec<String> = Signal::ALL
        .map(|signal| format!("{} {}", number(totals.acknowledged[signal as usize]), signal.name()))
        .into();
    let time = |us: Option<u64>| us.map_or_else(|| "none".to_owned(), span);
    let card = |number: String, what: &str, more: String| {
        format!("<li><b>{number}</b> {what}<small>{more}</small></li>")
    };
    let struck = story.faults.iter().filter(|fault| fault.evidence.values().any(|count| *count > 0)).count();
    let cards = [
        card(number(verdict.violations.len() as u64), "violations", "of ten promises".to_owned()),
        card(number(acknowledged), "items acknowledged", by_signal.join(", ")),
        card(
            number(totals.writes),
            "writes",
            format!(
                "{} retried, {} ended unknown, {} rejected, {} sent again after the acknowledgement",
                number(totals.retried),
                number(totals.unknown),
                number(totals.rejected),
                number(verdict.summary.resent)
            ),
        ),
        card(
            number(totals.reads + totals.counts),
            "reads",
            format!(
                "{} complete, {} partial; of all, {} counted instead of listing",
                number(whole.complete),
                number(whole.partial),
                number(totals.counts)
            ),
        ),
        card(
            number(story.faults.len() as u64 + story.faults_left_out),
            "faults",
            format!("{} with evidence that they struck", number(struck as u64)),
        ),
        card(
            time(whole.latency.quantile(0.99)),
            "latency of writes, p99",
            format!("p50 {}, longest {}", time(whole.latency.quantile(0.5)), time(whole.latency.max())),
        ),
        card(
            time(whole.visible.quantile(0.99)),
            "to visibility, p99, at most",
            "from acknowledgement to the end of the first complete read that shows it".to_owned(),
        ),
        card(
            number(totals.meta),
            "metadata operations",
            format!("and {}", counted(totals.probes, "probe", "probes")),
        ),
    ];
    format!("<ul class=\"numbers\">{}</ul>", cards.concat())
}

/// What was asked for, whether it happened, and how that is known.
pub(super) fn coverage(verdict: &Verdict) -> String {
    if verdict.coverage.is_empty() {
        return "<p>The verdict says nothing about coverage.</p>".to_owned();
    }
    let row = |line: &CoverageLine| {
        let (class, happened) = match (line.asked, line.count) {
            (true, 0) => ("wrong", "no".to_owned()),
            (false, 0) => ("plain", "no".to_owned()),
            (_, count) => ("right", number(count)),
        };
        format!(
            "<tr class=\"{class}\"><td>{}</td><td>{}</td><td class=\"kind\">{happened}</td><td>{}</td></tr>",
            text(&line.name),
            if line.asked { "yes" } else { "" },
            text(&line.how)
        )
    };
    let rows: String = verdict.coverage.iter().map(row).collect();
    let missing: String = verdict.missing.iter().map(|what| format!("<li>{}</li>", text(what))).collect();
    let missing = if missing.is_empty() { missing } else { format!("<p>Missing:</p><ul>{missing}</ul>") };
    format!(
        "<table class=\"life\"><thead><tr><th>what</th><th>asked</th><th>happened</th><th>how it is known</th></tr>\
         </thead><tbody>{rows}</tbody></table>{missing}"
    )
}

/// Every fault, with what proves it.
pub(super) fn faults(story: &Story) -> String {
    let row = |fault: &Fault| {
        let began = &fault.began;
        let evidence: Vec<String> =
            fault.evidence.iter().map(|(name, count)| format!("{} {}", text(name), number(*count))).collect();
        let struck = fault.evidence.values().any(|count| *count > 0);
        format!(
            "<tr class=\"{}\"><td>{}</td><td class=\"kind\">{}</td><td class=\"at\">{}</td><td class=\"at\">{}</td>\
             <td>{}</td><td>{}</td></tr>",
            if struck { "right" } else { "doubt" },
            began.id,
            began.kind,
            clock(began.at_us),
            fault.ended_us.map_or("never".to_owned(), clock),
            text(&began.what),
            if evidence.is_empty() { "none".to_owned() } else { evidence.join(", ") }
        )
    };
    let rows: String = story.faults.iter().take(FAULTS_LISTED_MAX).map(row).collect();
    let all = story.faults.len() as u64 + story.faults_left_out;
    let more = all.saturating_sub(FAULTS_LISTED_MAX as u64);
    let more = if more > 0 {
        format!("<p>{} not listed.</p>", counted(more, "more is", "more are"))
    } else {
        String::new()
    };
    let open = if all <= 30 { " open=\"\"" } else { "" };
    format!(
        "<details{open}><summary>{}</summary><table class=\"life\"><thead><tr><th>id</th><th>kind</th><th>from</th>\
         <th>to</th><th>what</th><th>evidence</th></tr></thead><tbody>{rows}</tbody></table>{more}</details>",
        counted(all, "fault", "faults")
    )
}

/// What the run could not do.
pub(super) fn failures(story: &Story) -> String {
    let failures = story.end.iter().flat_map(|end| &end.failures);
    let items: String = failures.take(200).map(|failure| format!("<li>{}</li>", text(failure))).collect();
    if items.is_empty() { items } else { format!("<h2>What the run could not do</h2><ul>{items}</ul>") }
}
