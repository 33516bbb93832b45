//! Charts of numbers over the buckets of a run, as steps: a number holds for its whole bucket, and a bucket without
//! one is a gap.

use super::axis::Axis;
use super::buckets::{Bucket, Buckets, Spread};
use super::lanes::Row;
use super::markup::{digits, short, span};
use super::story::Story;
use crate::workload::item::Signal;

const HEIGHT_PX: usize = 84;

/// One series of a chart.
struct Series {
    name: &'static str,
    class: &'static str,
    /// By bucket; rates per second, or microseconds.
    values: Vec<Option<f64>>,
    /// Of the whole run.
    whole: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    PerSecond,
    Time,
}

/// All charts that have something to show.
pub(super) fn charts(axis: Axis, story: &Story) -> Vec<Row> {
    let buckets = &story.buckets;
    if buckets.as_slice().is_empty() {
        return Vec::new();
    }
    let whole = buckets.whole();
    let mut rows = vec![stacked(axis, buckets, "items acknowledged /s", &acknowledged(story))];
    if whole.ambiguous + whole.unknown + whole.rejected > 0 {
        rows.push(stacked(axis, buckets, "attempts and writes without success /s", &trouble(story, &whole)));
    }
    let latency = spread_series(buckets, &whole.latency, |bucket| &bucket.latency);
    rows.extend(lines(axis, buckets, "latency of writes", &latency));
    let visible = spread_series(buckets, &whole.visible, |bucket| &bucket.visible);
    rows.extend(lines(axis, buckets, "time to visibility, at most", &visible));
    if whole.complete + whole.partial > 0 {
        rows.push(stacked(axis, buckets, "reads answered /s", &reads(buckets, &whole)));
    }
    rows
}

fn rates(buckets: &Buckets, of: impl Fn(&Bucket) -> u64) -> Vec<Option<f64>> {
    let seconds = buckets.width_us() as f64 / 1e6;
    buckets.as_slice().iter().map(|bucket| Some(of(bucket) as f64 / seconds)).collect()
}

fn acknowledged(story: &Story) -> Vec<Series> {
    let series = |signal: Signal| {
        let place = signal as usize;
        Series {
            name: signal.name(),
            class: ["c0", "c1", "c2"][place],
            values: rates(&story.buckets, |bucket| bucket.acknowledged[place]),
            whole: short(story.totals.acknowledged[place] as f64),
        }
    };
    Signal::ALL.map(series).into()
}

fn trouble(story: &Story, whole: &Bucket) -> Vec<Series> {
    let buckets = &story.buckets;
    let series = |name, class, total: u64, of: fn(&Bucket) -> u64| {
        (total > 0).then(|| Series { name, class, values: rates(buckets, of), whole: short(total as f64) })
    };
    [
        series("ambiguous", "warn", whole.ambiguous, |bucket| bucket.ambiguous),
        series("ended unknown", "c2", whole.unknown, |bucket| bucket.unknown),
        series("rejected", "bad", whole.rejected, |bucket| bucket.rejected),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn reads(buckets: &Buckets, whole: &Bucket) -> Vec<Series> {
    let series = |name, class, total: u64, of: fn(&Bucket) -> u64| Series {
        name,
        class,
        values: rates(buckets, of),
        whole: short(total as f64),
    };
    vec![
        series("complete", "good", whole.complete, |bucket| bucket.complete),
        series("partial", "warn", whole.partial, |bucket| bucket.partial),
    ]
}

fn spread_series(buckets: &Buckets, whole: &Spread, of: fn(&Bucket) -> &Spread) -> Vec<Series> {
    let series = |name, class, take: fn(&Spread) -> Option<u64>| {
        let values = buckets.as_slice().iter().map(|bucket| take(of(bucket)).map(|us| us as f64)).collect();
        Series { name, class, values, whole: take(whole).map_or_else(String::new, span) }
    };
    vec![
        series("max", "muted", Spread::max),
        series("p99", "c1", |spread| spread.quantile(0.99)),
        series("p50", "c0", |spread| spread.quantile(0.5)),
    ]
}

/// The next of 1, 2, 5, 10, ... so that half of it is round enough.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

/// Areas on top of each other, the first at the bottom.
fn stacked(axis: Axis, buckets: &Buckets, title: &str, series: &[Series]) -> Row {
    let count = buckets.as_slice().len();
    let mut sums = vec![vec![0.0; count]];
    for one in series {
        let below = &sums[sums.len() - 1];
        sums.push(below.iter().zip(&one.values).map(|(below, value)| below + value.unwrap_or(0.0)).collect());
    }
    let top = sums[sums.len() - 1].iter().copied().fold(0.0, f64::max);
    let top = round_up(if top > 0.0 { top } else { 1.0 });
    let y = |value: &f64| 100.0 - value * 100.0 / top;
    let mut paths = String::new();
    for (place, one) in series.iter().enumerate() {
        let upper: Vec<Option<f64>> = sums[place + 1].iter().map(|value| Some(y(value))).collect();
        let lower: Vec<f64> = sums[place].iter().map(y).collect();
        paths.push_str(&format!(
            "<path class=\"area {}\" d=\"{}{}Z\"/>",
            one.class,
            steps(&upper),
            back(&lower)
        ));
    }
    let grid = [(0.0, short(top)), (50.0, short(top / 2.0))];
    (label(title, series, Unit::PerSecond), picture(axis, buckets, &grid, &paths))
}

/// Lines over a logarithmic axis of times; none where there is nothing to show.
fn lines(axis: Axis, buckets: &Buckets, title: &str, series: &[Series]) -> Option<Row> {
    let values = || series.iter().flat_map(|one| &one.values).flatten().map(|us| us.max(1.0));
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let (low, mut high) = (low.log10().floor(), high.log10().ceil());
    if high <= low {
        high = low + 1.0;
    }
    let y = |us: f64| 100.0 - (us.max(1.0).log10() - low) * 100.0 / (high - low);
    let mut paths = String::new();
    for one in series {
        let places: Vec<Option<f64>> = one.values.iter().map(|value| value.map(y)).collect();
        paths.push_str(&format!("<path class=\"line {}\" d=\"{}\"/>", one.class, steps(&places)));
    }
    // A label for every decade, or every other where they would touch.
    let by = if high - low > 5.0 { 2 } else { 1 };
    let decades = (low as i32 + 1..=high as i32).rev().step_by(by);
    let grid: Vec<(f64, String)> =
        decades.map(|power| (y(10f64.powi(power)), span(10u64.pow(power as u32)))).collect();
    Some((label(title, series, Unit::Time), picture(axis, buckets, &grid, &paths)))
}

/// A path of steps in units of a bucket and of a hundredth of the height; gaps begin anew.
fn steps(places: &[Option<f64>]) -> String {
    let mut out = String::new();
    let mut last = None;
    for (bucket, place) in places.iter().enumerate() {
        let place = place.map(digits);
        if place != last {
            if last.is_some() {
                out.push_str(&format!("H{bucket}"));
            }
            match (&last, &place) {
                (None, Some(y)) => out.push_str(&format!("M{bucket} {y}")),
                (Some(_), Some(y)) => out.push_str(&format!("V{y}")),
                (_, None) => {}
            }
        }
        last = place;
    }
    if last.is_some() {
        out.push_str(&format!("H{}", places.len()));
    }
    out
}

/// The way back along the lower edge of an area.
fn back(places: &[f64]) -> String {
    let mut out = String::new();
    let mut last = None;
    for (bucket, y) in places.iter().enumerate().rev() {
        let y = digits(*y);
        if last.as_ref() != Some(&y) {
            let right = bucket + 1;
            out.push_str(&if last.is_none() { format!("V{y}") } else { format!("H{right}V{y}") });
        }
        last = Some(y);
    }
    out + "H0"
}

/// Grid with its labels, and the paths stretched to where their buckets stand.
fn picture(axis: Axis, buckets: &Buckets, grid: &[(f64, String)], paths: &str) -> String {
    let wide = (axis.end_us - axis.begin_us) as f64 / buckets.width_us() as f64;
    let mut out = format!("<svg class=\"plot chart\" height=\"{}\" aria-hidden=\"true\">", HEIGHT_PX + 4);
    out.push_str(&format!(
        "<svg y=\"2\" width=\"100%\" height=\"{HEIGHT_PX}\" viewBox=\"0 0 {wide:.3} 100\" \
         preserveAspectRatio=\"none\">{paths}</svg>"
    ));
    for (percent, label) in grid {
        let y = 2.0 + percent * HEIGHT_PX as f64 / 100.0;
        out.push_str(&format!(
            "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"scale\" x=\"100%\" dx=\"5\" y=\"{:.1}\">{label}</text>",
            y + 4.0
        ));
    }
    let base = HEIGHT_PX + 2;
    out + &format!("<line class=\"base\" x1=\"0\" x2=\"100%\" y1=\"{base}\" y2=\"{base}\"/></svg>")
}

/// Title and legend. The numbers of the whole run stand there, and the script puts those of a moment in their place.
fn label(title: &str, series: &[Series], unit: Unit) -> String {
    let mut out = format!("{title}<span class=\"keys\">");
    for one in series.iter().rev() {
        let values: Vec<String> = one
            .values
            .iter()
            .map(|value| match value {
                Some(us) if unit == Unit::Time => digits(us / 1000.0),
                Some(rate) => digits(*rate),
                None => String::new(),
            })
            .collect();
        let unit = if unit == Unit::Time { " ms" } else { "/s" };
        out.push_str(&format!(
            "<span class=\"key\"><i class=\"{}\"></i>{} <b data-unit=\"{unit}\" data-values=\"{}\">{}</b></span>",
            one.class,
            one.name,
            values.join(","),
            one.whole
        ));
    }
    out + "</span>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hold_for_their_bucket_and_stop_at_gaps() {
        assert_eq!(steps(&[Some(5.0), Some(5.0), None, Some(7.5)]), "M0 5H2M3 7.5H4");
        assert_eq!(steps(&[None, Some(1.0), Some(2.0)]), "M1 1H2V2H3");
        assert_eq!(back(&[10.0, 10.0, 20.0]), "V20H2V10H0");
        assert_eq!(
            [round_up(0.3), round_up(1.0), round_up(21.0), round_up(5_000.0)],
            [0.5, 1.0, 50.0, 5000.0]
        );
    }
}
