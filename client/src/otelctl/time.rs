//! Times as people write and read them. Everything is UTC.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Unix nanoseconds of `now`, an age (`15m`, `1h30m`), unix seconds (`1700000000`, `1700000000.5`) or RFC 3339.
pub(crate) fn parse(text: &str, now_unix_nano: u64) -> Result<u64, String> {
    if text == "now" {
        return Ok(now_unix_nano);
    }
    if let Ok(age) = parse_duration(text) {
        return Ok(now_unix_nano.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
    }
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..1.8e10).contains(seconds));
    if let Some(seconds) = seconds {
        // Whole seconds apart from the fraction: a double has no room for nanoseconds since 1970.
        return Ok(seconds.trunc() as u64 * NANOS_PER_SECOND + (seconds.fract() * 1e9) as u64);
    }
    parse_rfc3339(text).ok_or_else(|| {
        "expected `now`, an age like 15m, unix seconds, or a time like 2026-01-31T12:00:00Z".to_owned()
    })
}

/// A sum of numbers with units (`ms`, `s`, `m`, `h`, `d`), like `90s` or `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration like 30s, 15m or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        rest = &rest[unit_end..];
        total += Duration::from_millis(number.checked_mul(millis).ok_or_else(bad)?);
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)` from 1970 on.
fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let separators = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    if separators.iter().any(|(at, separator)| text.get(*at..at + 1) != Some(separator))
        || !matches!(text.get(10..11), Some("T" | "t" | " "))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit())?;
        if digits == 0 {
            return None;
        }
        let nine = format!("{:0<9}", &fraction[..digits.min(9)]);
        nanos = nine.parse::<i64>().ok()?;
        rest = &fraction[digits..];
    }
    let offset_seconds = match rest {
        "Z" | "z" => 0,
        _ => {
            let at = text.len() - rest.len();
            let sign = match rest.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let valid = rest.len() == 6 && rest.get(3..4) == Some(":");
            valid.then_some(sign * (number(at + 1..at + 3)? * 3600 + number(at + 4..at + 6)? * 60))?
        }
    };
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds;
    u64::try_from(seconds).ok()?.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos as u64)
}

/// RFC 3339 with milliseconds, in UTC.
pub(crate) fn format(unix_nano: u64) -> String {
    let seconds = unix_nano / NANOS_PER_SECOND;
    let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
    let of_day = seconds % 86_400;
    let millis = unix_nano % NANOS_PER_SECOND / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01 (the same source, civil_from_days).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn the_ways_to_write_one_moment_agree() {
        for text in [
            "1700000000",
            "2023-11-14T22:13:20Z",
            "2023-11-14T23:13:20.000+01:00",
            "2023-11-14 22:13:20Z",
            "now",
        ] {
            assert_eq!(parse(text, NOW), Ok(NOW), "{text}");
        }
        assert_eq!(parse("1h30m", NOW), Ok(NOW - 5_400 * NANOS_PER_SECOND));
        assert_eq!(parse("2023-11-14T22:13:20.123456789Z", NOW), Ok(NOW + 123_456_789));
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_forms_that_are() {
        for text in
            ["", "yesterday", "2023-13-01T00:00:00Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20+1", "-5"]
        {
            assert!(parse(text, NOW).is_err_and(|message| message.contains("15m")), "{text}");
        }
    }

    #[test]
    fn every_day_from_1970_to_2200_survives_both_conversions() {
        for day in 0..84_000 {
            let (year, month, of_month) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, of_month), day);
        }
        assert_eq!(format(NOW + 5_000_000), "2023-11-14T22:13:20.005Z");
        assert_eq!(format(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000Z");
    }
}
