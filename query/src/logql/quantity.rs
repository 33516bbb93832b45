//! Durations, byte sizes and numbers as LogQL and log lines write them.

/// Longest unit first, so that `ms` is not read as `m`.
const DURATION_UNITS: [(&str, f64); 10] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

const YEAR_SECONDS: f64 = 365.0 * 86_400.0;

/// Seconds of a duration such as `1h30m`, `1.5s` or `-3ms`. `None` when it is not one; a bare number is not,
/// except `0`.
pub(super) fn duration_seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = DURATION_UNITS.iter().find(|(unit, _)| rest.starts_with(unit));
        let (length, scale) = match unit {
            Some((unit, scale)) => (unit.len(), *scale),
            None if rest.starts_with('y') => (1, YEAR_SECONDS),
            None => return None,
        };
        seconds += number * scale;
        rest = &rest[length..];
    }
    Some(sign * seconds)
}

/// Nanoseconds of a duration; exact for whole units up to 2^53.
pub fn duration_nanos(text: &str) -> Option<i64> {
    let nanos = (duration_seconds(text)? * 1e9).round();
    (nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

/// Bytes of a size such as `5KB`, `1.5MiB` or `42B`; powers of 1000, or of 1024 with an `i`. A bare number is a
/// number of bytes.
pub(super) fn bytes(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "e" | "eb" => 1e18,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024f64.powi(2),
        "gi" | "gib" => 1024f64.powi(3),
        "ti" | "tib" => 1024f64.powi(4),
        "pi" | "pib" => 1024f64.powi(5),
        "ei" | "eib" => 1024f64.powi(6),
        _ => return None,
    };
    Some(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_and_prometheus_write_them() {
        for (text, seconds) in [
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            ("250ms", 0.25),
            ("-2s", -2.0),
            ("1y", 31_536_000.0),
        ] {
            assert_eq!(duration_seconds(text), Some(seconds), "{text}");
        }
        for text in ["", "5", "m", "5x", "-", "1.2.3s", "NaN"] {
            assert_eq!(duration_seconds(text), None, "{text}");
        }
        assert_eq!(duration_nanos("5m"), Some(300_000_000_000));
        assert_eq!(duration_nanos("99999999999w"), None);
    }

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        for (text, size) in [("5KB", 5e3), ("1.5MiB", 1_572_864.0), ("42B", 42.0), ("7", 7.0), ("2 kb", 2e3)]
        {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "KB", "5m5", "-1KB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
