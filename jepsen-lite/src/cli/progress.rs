//! How a run goes: one line that is rewritten on a terminal, and one every ten seconds elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jepsen_lite::driver::{Progress, Stage};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Characters of a line; more would wrap on most terminals, and then it is not rewritten.
const WIDTH: usize = 150;

pub(super) struct Line {
    time: Duration,
    terminal: bool,
    /// When a line was printed last, where there is no terminal.
    printed: Option<(Stage, Duration)>,
    /// For the rate: when items were counted, and how many.
    counted: (Duration, u64),
    per_second: u64,
}

impl Line {
    pub(super) fn new(time: Duration) -> Self {
        let terminal = io::stdout().is_terminal();
        Line { time, terminal, printed: None, counted: (Duration::ZERO, 0), per_second: 0 }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let (since, before) = self.counted;
        let span = progress.elapsed.saturating_sub(since);
        if span >= Duration::from_secs(2) {
            let items = progress.live.acknowledged_items;
            self.per_second = (items.saturating_sub(before) as f64 / span.as_secs_f64()) as u64;
            self.counted = (progress.elapsed, items);
        }
        let text = self.text(progress);
        let mut out = io::stdout().lock();
        // A terminal that is gone does not end the run.
        let _ = if self.terminal {
            let text: String = text.chars().take(WIDTH).collect();
            write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
        } else if self.is_due(progress) {
            self.printed = Some((progress.stage, progress.elapsed));
            writeln!(out, "{text}")
        } else {
            Ok(())
        };
    }

    /// Leaves the line as it is, and goes to the next.
    pub(super) fn end(&self) {
        if self.terminal {
            println!();
        }
    }

    fn is_due(&self, progress: &Progress) -> bool {
        self.printed
            .is_none_or(|(stage, printed)| stage != progress.stage || progress.elapsed >= printed + EVERY)
    }

    fn text(&self, progress: &Progress) -> String {
        let (live, time) = (&progress.live, self.time.as_secs());
        let at = match progress.stage {
            Stage::Starting => return "starting the cluster".into(),
            Stage::Working => format!("{}/{time} s", progress.elapsed.as_secs()),
            Stage::Healing => format!("{} s, healing and reading everything", progress.elapsed.as_secs()),
        };
        let anomalies = match (&live.newest, live.violations) {
            (Some(newest), count) if count > 0 => format!("{count} ANOMALIES, the newest: {newest}"),
            (_, count) => format!("{count} anomalies"),
        };
        let faults = match progress.in_force.as_slice() {
            [] => "no fault".to_owned(),
            faults => faults.join(" + "),
        };
        let (items, rate) = (live.acknowledged_items, self.per_second);
        format!(
            "{at} | {items} items, {rate}/s | {} reads, {} partial | {anomalies} | {faults}",
            live.reads, live.partial
        )
    }
}

#[cfg(test)]
mod tests {
    use jepsen_lite::history::recorder::Live;

    use super::*;

    fn progress(stage: Stage, seconds: u64, violations: usize) -> Progress {
        let newest = (violations > 0).then(|| "an item is lost".to_owned());
        let live = Live { acknowledged_items: seconds * 100, violations, newest, ..Live::default() };
        let in_force = vec!["pause meta-1".to_owned(), "kill front-1".to_owned()];
        Progress { stage, elapsed: Duration::from_secs(seconds), live, in_force }
    }

    #[test]
    fn a_line_says_time_items_faults_and_anomalies() {
        let mut line = Line::new(Duration::from_secs(60));
        line.show(&progress(Stage::Working, 10, 0));
        let text = line.text(&progress(Stage::Working, 12, 2));
        assert_eq!(
            text,
            "12/60 s | 1200 items, 100/s | 0 reads, 0 partial | 2 ANOMALIES, the newest: an item is lost | pause meta-1 + \
             kill front-1"
        );
    }

    #[test]
    fn without_a_terminal_a_line_is_due_every_ten_seconds_and_at_a_new_stage() {
        let mut line = Line::new(Duration::from_secs(60));
        assert!(line.is_due(&progress(Stage::Working, 0, 0)));
        line.printed = Some((Stage::Working, Duration::from_secs(3)));
        assert!(!line.is_due(&progress(Stage::Working, 12, 0)));
        assert!(line.is_due(&progress(Stage::Working, 13, 0)));
        assert!(line.is_due(&progress(Stage::Healing, 4, 0)));
    }
}
