//! Times to places: everything that shares an axis stands at a percentage of its width, so that text keeps its size
//! at every width of a window.

use super::markup;

/// Ticks have labels and need their room.
const TICKS_MAX: u64 = 10;

/// From when to when, in microseconds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) begin_us: u64,
    pub(super) end_us: u64,
}

impl Axis {
    /// An axis with room for at least a tenth of a second.
    pub(super) fn new(begin_us: u64, end_us: u64) -> Self {
        Axis { begin_us, end_us: end_us.max(begin_us + 100_000) }
    }

    /// Where a moment stands, in percent of the width; moments outside stand at the edges.
    pub(super) fn percent(self, us: u64) -> f64 {
        let within = us.clamp(self.begin_us, self.end_us) - self.begin_us;
        within as f64 * 100.0 / (self.end_us - self.begin_us) as f64
    }

    /// Place and width, in percent.
    pub(super) fn span(self, from_us: u64, to_us: u64) -> (f64, f64) {
        let from = self.percent(from_us);
        (from, self.percent(to_us.max(from_us)) - from)
    }

    /// Whether any of `from_us..=to_us` is on the axis.
    pub(super) fn shows(self, from_us: u64, to_us: u64) -> bool {
        from_us <= self.end_us && to_us >= self.begin_us
    }

    /// The labelled moments, and the step between them.
    pub(super) fn ticks(self) -> (Vec<u64>, u64) {
        const SECOND: u64 = 1_000_000;
        const STEPS: [u64; 18] = [
            SECOND / 10,
            SECOND / 5,
            SECOND / 2,
            SECOND,
            2 * SECOND,
            5 * SECOND,
            10 * SECOND,
            15 * SECOND,
            30 * SECOND,
            60 * SECOND,
            120 * SECOND,
            300 * SECOND,
            600 * SECOND,
            1200 * SECOND,
            1800 * SECOND,
            3600 * SECOND,
            3 * 3600 * SECOND,
            6 * 3600 * SECOND,
        ];
        let length = self.end_us - self.begin_us;
        let fits = |step: &u64| length / step <= TICKS_MAX;
        let step = STEPS.into_iter().find(fits).unwrap_or_else(|| length.div_ceil(TICKS_MAX));
        let first = self.begin_us.div_ceil(step);
        ((first..=self.end_us / step).map(|n| n * step).collect(), step)
    }

    /// The row with the times, whose ticks go on as lines in the rows below.
    pub(super) fn render(self) -> String {
        let (ticks, step_us) = self.ticks();
        let mut out = String::from("<svg class=\"plot axis\" height=\"20\" aria-hidden=\"true\">");
        for us in ticks {
            let x = self.percent(us);
            let anchor = match x {
                x if x < 2.0 => "start",
                x if x > 97.0 => "end",
                _ => "middle",
            };
            out.push_str(&format!(
                "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"16\" y2=\"20\"/>\
                 <text x=\"{x:.2}%\" y=\"12\" text-anchor=\"{anchor}\">{}</text>",
                markup::tick(us, step_us)
            ));
        }
        out + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (length, step) in
            [(1_000_000, 100_000), (600_000_000, 60_000_000), (86_400_000_000, 10_800_000_000)]
        {
            let (ticks, found) = Axis::new(0, length).ticks();
            assert_eq!(found, step);
            assert!((5..=11).contains(&ticks.len()), "{ticks:?}");
        }
        assert_eq!(Axis::new(7_000_000, 17_000_000).ticks().0[0], 7_000_000);
    }

    #[test]
    fn what_is_outside_stands_at_the_edge() {
        let axis = Axis::new(10, 20);
        assert_eq!((axis.percent(0), axis.percent(u64::MAX)), (0.0, 100.0));
        assert!(axis.shows(0, 10) && !axis.shows(0, 9));
    }
}
