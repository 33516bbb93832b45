//! Times and steps as Loki's parameters write them.

use oteld_query::logql::duration_nanos;

const SECOND_NANOS: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch of a time: a whole number of at most ten digits is seconds, a longer one
/// nanoseconds, one with a point seconds (to the millisecond), else RFC 3339. `None` when it is none of these or
/// lies before 1970 or after 2554.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse::<u64>() {
        return if text.len() <= 10 { number.checked_mul(SECOND_NANOS) } else { Some(number) };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1000.0).round();
        // 2^64 ns are about 1.8e13 ms; NaN is in no range.
        return (0.0..1.8e13).contains(&millis).then(|| millis as u64 * 1_000_000);
    }
    parse_rfc3339(text)
}

/// Nanoseconds of a step: seconds as a number, or a duration. `None` when it is neither, or negative.
pub(super) fn parse_step(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = (seconds * 1e9).round();
        return (0.0..i64::MAX as f64).contains(&nanos).then_some(nanos as u64);
    }
    u64::try_from(duration_nanos(text)?).ok()
}

/// RFC 3339, section 5.6, with up to nine digits of a second.
fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let (year, month, day) = (field(date, 0, 4)?, field(date, 5, 7)?, field(date, 8, 10)?);
    let (hour, minute, second) = (field(time, 0, 2)?, field(time, 3, 5)?, field(time, 6, 8)?);
    let dashes = date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-';
    let colons = time.as_bytes()[2] == b':' && time.as_bytes()[5] == b':';
    if !dashes || !colons || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = time.get(8..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if !(1..=9).contains(&digits) {
            return None;
        }
        nanos = fraction[..digits].parse::<i64>().ok()? * 10_i64.pow(9 - digits as u32);
        rest = &fraction[digits..];
    }
    let seconds = days_since_epoch(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let nanos = i128::from(seconds - offset_seconds(rest)?) * 1_000_000_000 + i128::from(nanos);
    u64::try_from(nanos).ok()
}

/// The number of `text[from..to]`, all digits.
fn field(text: &str, from: usize, to: usize) -> Option<i64> {
    let digits = text.get(from..to)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// `Z` or `+hh:mm`.
fn offset_seconds(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = (field(text, 1, 3)?, field(text, 4, 6)?);
    let right = text.len() == 6 && text.as_bytes()[3] == b':' && hours <= 23 && minutes <= 59;
    right.then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days from 1970-01-01 in the Gregorian calendar. `None` when there is no such day.
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok()?;
    if before >= 12 || day < 1 || day > lengths[before] {
        return None;
    }
    let years = year - 1;
    let days_before_year = years * 365 + years / 4 - years / 100 + years / 400;
    // 719,162 days lie before 1970-01-01.
    Some(days_before_year + lengths[..before].iter().sum::<i64>() + day - 1 - 719_162)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_their_forms() {
        for (text, nanos) in [
            ("1588889221", 1_588_889_221_000_000_000),
            ("1588889221000000001", 1_588_889_221_000_000_001),
            ("1588889221.5", 1_588_889_221_500_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2020-05-07T22:07:01.000000001Z", 1_588_889_221_000_000_001),
            ("2020-05-08T00:07:01+02:00", 1_588_889_221_000_000_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
        ] {
            assert_eq!(parse_time(text), Some(nanos), "{text}");
        }
        for text in
            ["", "now", "-5", "NaN", "inf", "2021-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "2020-05-07"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
        for text in
            ["2020-05-07T22:07:01", "2020-05-07T25:07:01Z", "2020-05-07T22:07:01.Z", "ü020-05-07T22:07:01Z"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn steps_are_seconds_or_durations() {
        for (text, nanos) in
            [("5", 5_000_000_000), ("0.25", 250_000_000), ("15s", 15_000_000_000), ("500ms", 500_000_000)]
        {
            assert_eq!(parse_step(text), Some(nanos), "{text}");
        }
        for text in ["-1", "-5s", "x", ""] {
            assert_eq!(parse_step(text), None, "{text}");
        }
    }
}
