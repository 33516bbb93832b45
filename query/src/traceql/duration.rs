//! Durations as Go writes them (`1.5s`, `300ms`, `2h45m`), which Jaeger, Tempo and TraceQL take.

use crate::QueryError;

/// Nanoseconds of each unit: those of Go's `time.ParseDuration`, then those that Prometheus adds.
const UNITS: [(&str, f64); 11] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9),
    ("w", 7.0 * 86_400e9),
    ("y", 365.0 * 86_400e9),
];

/// Nanoseconds of a duration: numbers with units, largest first or not, with an optional sign; a bare `0` is allowed.
pub fn parse_duration(text: &str) -> Result<i64, QueryError> {
    parse(text).ok_or_else(|| QueryError::bad(format!("invalid duration {text:?}")))
}

fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?.1;
        rest = &rest[letters..];
        nanos += number * unit;
    }
    let nanos = if negative { -nanos } else { nanos };
    (nanos.abs() < i64::MAX as f64).then_some(nanos.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("0", Some(0)),
            ("1ns", Some(1)),
            ("5us", Some(5_000)),
            ("5µs", Some(5_000)),
            ("300ms", Some(300_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("2h45m", Some(9_900_000_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("1d", Some(86_400_000_000_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1 s", None),
            ("1x", None),
            ("1..5s", None),
            ("9999999y", None),
        ];
        for (text, nanos) in table {
            assert_eq!(parse(text), nanos, "{text:?}");
        }
    }
}
