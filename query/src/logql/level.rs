//! `detected_level`: how severe a record is, from what it says about itself, else from its line.
//!
//! Loki's rules in simple form: severity number, then a field that names a level (structured metadata, then a JSON
//! or logfmt line), then a word in the line.

use oteld_store::model::LogRecord;

use super::pipeline::logfmt;
use super::view::Labels;

/// Names of labels and of fields of a line that say a level, in the order in which they are looked at.
pub(super) const FIELDS: [&str; 13] = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "log_level",
    "severity",
    "SEVERITY",
    "Severity",
    "lvl",
    "LVL",
    "Lvl",
    "SeverityText",
    "severity_text",
];

/// The level where nothing tells one.
const UNKNOWN: &str = "unknown";

/// The level of a record with this structured metadata and line.
pub(super) fn detect(record: &LogRecord, metadata: &Labels, line: &str) -> &'static str {
    if let Some(level) = of_severity_number(record.severity_number) {
        return level;
    }
    let field = FIELDS.iter().find_map(|name| metadata.get(*name));
    field.and_then(|value| of_name(value)).or_else(|| of_fields(line)).unwrap_or_else(|| of_words(line))
}

/// OpenTelemetry's ranges of four numbers a level (logs data model, "SeverityNumber").
fn of_severity_number(number: u8) -> Option<&'static str> {
    Some(match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => return None,
    })
}

fn of_name(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" | "trc" => "trace",
        "debug" | "dbg" => "debug",
        "info" | "inf" | "information" => "info",
        "warn" | "wrn" | "warning" => "warn",
        "error" | "err" => "error",
        "critical" => "critical",
        "fatal" => "fatal",
        _ => return None,
    })
}

/// The level that a field of a JSON or logfmt line names.
fn of_fields(line: &str) -> Option<&'static str> {
    let trimmed = line.trim();
    if trimmed.starts_with('{') && trimmed.ends_with('}') {
        let document: serde_json::Value = serde_json::from_str(trimmed).ok()?;
        let field = FIELDS.iter().find_map(|name| document.get(*name)?.as_str());
        return of_name(field?);
    }
    if !line.contains('=') {
        return None;
    }
    of_name(&logfmt::find(line, &FIELDS)?)
}

/// The first level in this order whose word stands alone in the line, in upper or lower case.
fn of_words(line: &str) -> &'static str {
    const WORDS: [(&str, &str); 9] = [
        ("trace", "trace"),
        ("debug", "debug"),
        ("fatal", "fatal"),
        ("critical", "critical"),
        ("error", "error"),
        ("err", "error"),
        ("warning", "warn"),
        ("warn", "warn"),
        ("info", "info"),
    ];
    let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let rank = |word: &str| WORDS.iter().position(|(level, _)| word.eq_ignore_ascii_case(level));
    words.filter_map(rank).min().map_or(UNKNOWN, |rank| WORDS[rank].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(severity_number: u8) -> LogRecord {
        LogRecord { severity_number, ..LogRecord::default() }
    }

    #[test]
    fn the_number_decides_before_the_text_and_the_text_before_the_line() {
        let text = Labels::from([("severity_text".to_owned(), "Warning".to_owned())]);
        assert_eq!(detect(&record(17), &text, "info"), "error");
        assert_eq!(detect(&record(0), &text, "error"), "warn");
        assert_eq!(detect(&record(0), &Labels::new(), "ERROR: out of memory"), "error");
        assert_eq!(detect(&record(0), &Labels::new(), "hello"), "unknown");
        assert_eq!(detect(&record(99), &Labels::new(), "hello"), "unknown");
    }

    #[test]
    fn a_field_of_the_line_decides_before_its_words() {
        for (line, level) in [
            (r#"level=info msg="an error""#, "info"),
            (r#"{"msg":"no error","severity":"DEBUG"}"#, "debug"),
            (r#"{"msg":"an error","severity":5}"#, "error"),
            ("a=b warn: disk", "warn"),
            ("terrors and information", "unknown"),
            ("FATAL error", "fatal"),
        ] {
            assert_eq!(detect(&record(0), &Labels::new(), line), level, "{line}");
        }
    }
}
