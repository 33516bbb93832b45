//! The report of histories that a seed made: everything is in it, nothing in it is markup that is not ours, and it
//! stays small.
#![allow(clippy::disallowed_methods, reason = "looks at what was written")]

mod markup;
mod plausible;

use jepsen_lite::checker::{ItemRef, Promise, Violation};
use jepsen_lite::history::event::{Event, FaultBegan, Read, Write};
use jepsen_lite::history::file::HistoryWriter;
use jepsen_lite::nemesis::fault::FaultKind;
use jepsen_lite::report::{render, write};
use jepsen_lite::verdict::Judgement;
use jepsen_lite::workload::item::Signal;
use plausible::{DOUBLED, LOST, SECOND, Shape, TEN_MINUTES};

fn well_formed(page: &str) -> Vec<String> {
    let elements = markup::elements(page).unwrap_or_else(|error| panic!("not well formed: {error}"));
    assert_eq!(markup::dangling(page), Vec::<String>::new());
    elements
}

#[test]
fn every_fault_and_violation_is_in_the_report_of_a_plausible_run() {
    let (events, verdict) = plausible::run(TEN_MINUTES);
    let page = render(&events, &verdict);
    well_formed(&page);
    let faults = events.iter().filter_map(|event| match event {
        Event::FaultBegan(began) => Some(began),
        _ => None,
    });
    let mut count = 0;
    for began in faults {
        count += 1;
        let title = format!("<title>{} {}: {};", began.kind, began.id, began.what);
        assert!(page.contains(&title), "no bar for {title}");
        assert!(page.contains(&format!("<td>{}</td>", began.what)), "not listed: {}", began.what);
    }
    assert!(count > 15, "{count} faults");
    for violation in &verdict.violations {
        assert_eq!(page.matches(&format!("</a> {}", violation.what)).count(), 1, "{}", violation.what);
    }
    assert_eq!(page.matches("class=\"biography\"").count(), 2);
    assert!(page.len() < 700_000, "{} bytes", page.len());
}

#[test]
fn a_lost_item_has_a_life_with_its_write_its_reads_and_what_was_near() {
    let (events, verdict) = plausible::run(TEN_MINUTES);
    let page = render(&events, &verdict);
    let life = |item: ItemRef| {
        let name = format!("{} item {} of writer {}", item.signal.name(), item.sequence, item.writer);
        let from = page.find(&format!("<summary>{name}")).expect("the item has a life");
        page[from..].split("</details>").take(2).collect::<String>()
    };
    let lost = life(LOST);
    for part in
        ["with items 5600 to 5639, acknowledged at 2:2", "not shown by", "shown by", "by front-1", ">fault<"]
    {
        assert!(lost.contains(part), "`{part}` is missing from {lost}");
    }
    assert!(life(DOUBLED).contains("shown 2 times by"));
}

#[test]
fn a_tiny_history_has_a_report() {
    for events in [
        vec![],
        vec![Event::Start(plausible::start(TEN_MINUTES))],
        vec![
            Event::Write(Write { to: 1, completed_us: 5, ..Write::default() }),
            Event::Read(Read::default()),
        ],
    ] {
        let mut verdict = plausible::verdict(Judgement::Unknown, Vec::new());
        verdict.coverage.clear();
        verdict.missing = vec!["no partition that a probe confirmed".into()];
        let page = render(&events, &verdict);
        well_formed(&page);
        assert!(page.contains("no partition that a probe confirmed"));
        assert!(page.contains("The history has no end"));
    }
}

#[test]
fn nothing_that_a_history_says_runs() {
    const EVIL: &str = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&\u{0}";
    let (mut events, mut verdict) = plausible::run(Shape { seconds: 60, ..TEN_MINUTES });
    for event in &mut events {
        match event {
            Event::Start(start) => {
                start.nodes.get_mut("front").unwrap()[0] = EVIL.into();
                start.nodes.insert(EVIL.into(), vec![EVIL.into()]);
                (start.command, start.tested, start.driver) = (EVIL.into(), EVIL.into(), EVIL.into());
                start.mutant = Some(EVIL.into());
            }
            Event::Sample(sample) => {
                sample.shards.values_mut().for_each(|shard| shard.set[0] = EVIL.into());
                sample.leader = sample.leader.as_ref().map(|_| EVIL.into());
                sample.node = EVIL.into();
                sample.counters.insert(format!("flushes{EVIL}"), sample.at_us);
            }
            Event::Write(write) => write.why = Some(EVIL.into()),
            Event::FaultEnded(ended) => ended.evidence = [(EVIL.to_owned(), 1)].into(),
            Event::End(end) => end.failures = vec![EVIL.into()],
            _ => {}
        }
    }
    let began = FaultBegan {
        id: 99,
        kind: FaultKind::Kill,
        what: EVIL.into(),
        nodes: vec![EVIL.into()],
        at_us: SECOND,
    };
    events.insert(1, Event::FaultBegan(began));
    verdict.result = Judgement::Invalid;
    verdict.coverage[0].name = EVIL.into();
    verdict.coverage[0].how = EVIL.into();
    verdict.missing = vec![EVIL.into()];
    let item = Some(ItemRef { signal: Signal::Logs, writer: 1, sequence: 17 });
    verdict.violations =
        vec![Violation { promise: Promise::P2, at_us: 40 * SECOND, what: EVIL.into(), item }];
    let page = render(&events, &verdict);
    let elements = well_formed(&page);
    assert_eq!(elements.iter().filter(|name| *name == "script").count(), 1);
    assert!(!elements.iter().any(|name| name == "img"));
    assert!(page.matches("&lt;script&gt;").count() > 15, "the hostile name is hardly shown");
}

#[test]
fn the_report_asks_nothing_of_a_network() {
    let (events, verdict) = plausible::run(Shape { seconds: 60, ..TEN_MINUTES });
    let page = render(&events, &verdict);
    for reach in ["http:", "https:", "src=", "@import", "<link", "<base", "<iframe", "fetch(", "url(\""] {
        assert!(!page.contains(reach), "`{reach}`");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_day_with_thousands_of_everything_stays_under_two_megabytes() {
    let day = Shape {
        seconds: 86_400,
        write_every_ms: 30_000,
        fault_every_s: 15,
        move_every_s: 60,
        shards: 64,
        ..TEN_MINUTES
    };
    let (events, mut verdict) = plausible::run(day);
    let violation = |n: u64| Violation {
        promise: [Promise::P1, Promise::P4, Promise::P5][(n % 3) as usize],
        at_us: n * 17 * SECOND,
        what: format!("item {n} is missing from a read that had to show it"),
        item: Some(ItemRef { signal: Signal::Logs, writer: (n % 4) as u32, sequence: n * 20 }),
    };
    verdict.violations = (0..5_000).map(violation).collect();
    let page = render(&events, &verdict);
    well_formed(&page);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn a_history_in_a_file_has_a_report_even_when_it_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report.html");
    let error = write(dir.path(), &out).unwrap_err();
    assert!(error.contains("cannot read the history"), "{error}");
    let (events, _) = plausible::run(Shape { seconds: 60, ..TEN_MINUTES });
    for (name, events, whole) in [("whole", &events[..], true), ("cut", &events[..events.len() - 1], false)] {
        let dir = dir.path().join(name);
        let mut writer = HistoryWriter::create(&dir).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        writer.finish().unwrap();
        write(&dir, &out).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        well_formed(&page);
        assert_eq!(page.contains("The history has no end"), !whole);
    }
}
