//! Text into HTML: nothing of a history is markup, and numbers and times stand as people read them.

use std::fmt::Write as _;

/// Most characters of one text of a history; what is longer is cut, and says so.
const TEXT_CHARS_MAX: usize = 2000;

/// Text that is safe between tags and in quoted attributes.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for (place, c) in raw.chars().enumerate() {
        if place == TEXT_CHARS_MAX {
            let _ = write!(out, "… (of {} bytes)", raw.len());
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            // Controls, and characters that turn the direction of the text after them.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number and its noun, in the plural where it is not one.
pub(super) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// A moment of a run: `3:07.250`, `1:03:07.250`.
pub(super) fn clock(us: u64) -> String {
    let (ms, s) = (us / 1000 % 1000, us / 1_000_000);
    match s / 3600 {
        0 => format!("{}:{:02}.{ms:03}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}.{ms:03}", s / 60 % 60, s % 60),
    }
}

/// A moment for an axis: no more digits than the step between its ticks needs.
pub(super) fn tick(us: u64, step_us: u64) -> String {
    let whole = clock(us);
    match whole.split_once('.') {
        Some((seconds, _)) if step_us.is_multiple_of(1_000_000) => seconds.to_owned(),
        Some((seconds, ms)) => format!("{seconds}.{}", &ms[..1]),
        None => whole,
    }
}

/// A length of time in its natural unit, three digits.
pub(super) fn span(us: u64) -> String {
    let us_float = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", digits(us_float / 1e3)),
        1_000_000..120_000_000 => format!("{} s", digits(us_float / 1e6)),
        120_000_000..7_200_000_000 => format!("{} min", digits(us_float / 60e6)),
        _ => format!("{} h", digits(us_float / 3600e6)),
    }
}

/// Three digits, without zeros that say nothing.
pub(super) fn digits(value: f64) -> String {
    let places = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A rate for an axis: `12k`.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", digits(v / 1e6)),
        v if v >= 1e4 => format!("{}k", digits(v / 1e3)),
        v => digits(v),
    }
}

/// Numbers as ranges: `0–5, 9`.
pub(super) fn ranges(sorted: &[u32]) -> String {
    let mut out = String::new();
    let mut rest = sorted;
    while let Some(first) = rest.first() {
        let run = rest.iter().zip(*first..).take_while(|(have, want)| *have == want).count();
        let separator = if out.is_empty() { "" } else { ", " };
        let _ = match run {
            1 => write!(out, "{separator}{first}"),
            2 => write!(out, "{separator}{first}, {}", rest[1]),
            _ => write!(out, "{separator}{first}–{}", rest[run - 1]),
        };
        rest = &rest[run..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(text("<script>\"'&\u{7}\u{202e}"), "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}");
        assert!(text(&"<".repeat(1_000_000)).len() < 10_000);
    }

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!([number(7), number(1234), number(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!([clock(187_250_000), clock(3_787_250_000)], ["3:07.250", "1:03:07.250"]);
        assert_eq!([tick(60_000_000, 60_000_000), tick(1_500_000, 500_000)], ["1:00", "0:01.5"]);
        assert_eq!(
            [span(999), span(1_500), span(20_000_000), span(600_000_000)],
            ["999 µs", "1.5 ms", "20 s", "10 min"]
        );
        assert_eq!([short(0.0), short(25_000.0), short(999.6)], ["0", "25k", "1000"]);
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0–3, 7, 9, 10");
    }
}
