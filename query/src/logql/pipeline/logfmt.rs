//! The `logfmt` stage: `key=value` pairs of a line become labels.

use std::borrow::Cow;

use super::RowLabels;

/// Extracts `fields` (label, key), or every key when there are none. What is malformed is skipped, or with
/// `strict` an error. Keys without a value are left out unless `keep_empty`.
pub(in super::super) fn extract(
    line: &str,
    strict: bool,
    keep_empty: bool,
    fields: &[(String, String)],
    labels: &mut RowLabels,
) {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        match pair(&mut rest) {
            Ok((key, value)) => found.push((key, value)),
            Err(reason) if strict => return labels.fail("LogfmtParserErr", || reason.to_owned()),
            Err(_) => {}
        }
        rest = rest.trim_start();
    }
    if fields.is_empty() {
        for (key, value) in found {
            if !value.is_empty() || keep_empty {
                labels.extract(key, &value);
            }
        }
        return;
    }
    for (label, wanted) in fields {
        let value = found.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value);
        labels.extract(label, value);
    }
}

/// The first value that is not empty of a key in `names`.
pub(in super::super) fn find<'a>(line: &'a str, names: &[&str]) -> Option<Cow<'a, str>> {
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        match pair(&mut rest) {
            Ok((key, value)) if !value.is_empty() && names.contains(&key) => return Some(value),
            _ => rest = rest.trim_start(),
        }
    }
    None
}

/// Takes one pair off `rest`; always takes at least one character.
fn pair<'a>(rest: &mut &'a str) -> Result<(&'a str, Cow<'a, str>), &'static str> {
    let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
    let (key, after) = rest.split_at(end);
    if key.is_empty() {
        *rest = &rest[1..];
        return Err("a value without a key");
    }
    let Some(value) = after.strip_prefix('=') else {
        *rest = after;
        return if key.contains('"') { Err("a quote in a key") } else { Ok((key, Cow::Borrowed(""))) };
    };
    if let Some(quoted) = value.strip_prefix('"') {
        return match unquote(quoted) {
            Some((text, after)) => {
                *rest = after;
                Ok((key, text))
            }
            None => {
                *rest = "";
                Err("a quoted value does not end")
            }
        };
    }
    let end = value.find(char::is_whitespace).unwrap_or(value.len());
    *rest = &value[end..];
    Ok((key, Cow::Borrowed(&value[..end])))
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if text.len() == at => return Some((Cow::Borrowed(&quoted[..at]), &quoted[at + 1..])),
            '"' => return Some((Cow::Owned(text), &quoted[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                other => text.push(other),
            },
            _ => text.push(c),
        }
    }
    None
}
