//! What a history costs. Measured by hand: `cargo test --release -p jepsen-lite --test checkers -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::time::Duration;

use jepsen_lite::history::event::*;
use jepsen_lite::history::file::{HistoryWriter, NAME};
use jepsen_lite::verdict::judge;
use jepsen_lite::workload::item::Signal;
use tokio::time::Instant;

use crate::model::Random;

const WRITES: u64 = 1_000_000;
const WRITERS: u64 = 16;
const ITEMS: u64 = 100;
const CELL: u64 = 4096;

/// Writes of 100 items at 1,000 a second, three of 1,000 unknown, and ten reads a second.
fn write(dir: &std::path::Path) -> Duration {
    let mut random = Random::new(1);
    let begin = Instant::now();
    let mut writer = HistoryWriter::create(dir).unwrap();
    writer.write(&Event::Start(Start { format: FORMAT, ..Start::default() })).unwrap();
    let mut ends: BTreeMap<(Signal, u32), Vec<(u64, u64)>> = BTreeMap::new();
    let mut spent = Duration::ZERO;
    for number in 0..WRITES {
        let now_us = number * 1000;
        let signal = Signal::ALL[random.within(0, 3) as usize];
        let one = random.within(0, WRITERS) as u32;
        let known = ends.entry((signal, one)).or_default();
        let from = known.last().map_or(0, |(_, end)| end.next_multiple_of(ITEMS));
        let unknown = random.within(0, 1000) < 3;
        match known.last_mut() {
            _ if unknown => known.push((from + ITEMS, from + ITEMS)),
            Some(last) if last.1 == from => last.1 += ITEMS,
            _ => known.push((from, from + ITEMS)),
        }
        let write = Write {
            signal,
            writer: one,
            from,
            to: from + ITEMS,
            echo: (signal == Signal::Logs).then_some(from),
            invoked_us: now_us.saturating_sub(random.within(900, 9_000)),
            completed_us: now_us,
            attempts: 1,
            front: random.within(0, 3) as u32,
            outcome: if unknown { Outcome::Unknown } else { Outcome::Acknowledged },
            ..Write::default()
        };
        let event = Event::Write(write);
        let before = Instant::now();
        writer.write(&event).unwrap();
        if number % 100 == 99 {
            writer.write(&read(&mut random, now_us, &ends)).unwrap();
        }
        spent += before.elapsed();
    }
    writer.write(&Event::End(End { at_us: WRITES * 1000, ..End::default() })).unwrap();
    writer.finish().unwrap();
    println!(
        "made in {:.1} s, of which {:.1} s to write",
        begin.elapsed().as_secs_f64(),
        spent.as_secs_f64()
    );
    spent
}

fn read(random: &mut Random, now_us: u64, ends: &BTreeMap<(Signal, u32), Vec<(u64, u64)>>) -> Event {
    let signal = Signal::Metrics;
    let last = ends.iter().filter(|((of, _), _)| *of == signal);
    let last = last.filter_map(|(_, known)| known.last()).map(|(_, end)| *end).max().unwrap_or(1);
    let from = random.within(0, last.div_ceil(CELL).max(1)) * CELL;
    let scope = Scope { writers: 0..WRITERS as u32, from, to: from + CELL };
    let mut read =
        Read { signal, scope, invoked_us: now_us, completed_us: now_us, digest: 0, ..Read::default() };
    for ((_, writer), known) in ends.iter().filter(|((of, _), _)| *of == signal) {
        let clip = known.iter().map(|(a, b)| ((*a).max(from), (*b).min(from + CELL)));
        let seen: Vec<(u64, u64)> = clip.filter(|(a, b)| a < b).collect();
        if !seen.is_empty() {
            read.seen.insert(*writer, seen);
        }
    }
    Event::Read(read)
}

#[test]
#[ignore = "takes a while, and only means something in a release build"]
fn a_day_of_100_000_items_a_second_stays_small_and_is_checked_in_minutes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let bytes = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
    let begin = Instant::now();
    let verdict = judge(dir.path()).unwrap();
    let spent = begin.elapsed().as_secs_f64();
    assert_eq!(verdict.violations, []);
    let resident = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = resident.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("no VmHWM").to_owned();
    let day = 86_400_000.0 / WRITES as f64;
    println!(
        "{WRITES} writes of {ITEMS} items: {:.1} bytes a write, checked in {spent:.1} s; {peak}",
        bytes as f64 / WRITES as f64
    );
    println!("a day: {:.2} GB, checked in {:.1} min", bytes as f64 * day / 1e9, spent * day / 60.0);
}
