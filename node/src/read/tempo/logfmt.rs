//! The `tags` parameter of Tempo's search: logfmt, `key=value key="a value" key`.

use std::collections::BTreeMap;

use oteld_query::QueryError;

/// Reads pairs; a key without a value has the empty one. A key that comes twice is refused, as by Tempo.
pub(super) fn tags(text: &str) -> Result<BTreeMap<String, String>, QueryError> {
    let bad = |why: String| QueryError::bad(format!("invalid tags: {why}"));
    let mut tags = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = &rest[..length];
        if key.is_empty() || key.contains('"') {
            return Err(bad(format!("expected a key at {rest:?}")));
        }
        rest = &rest[length..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            (value, rest) = if after.starts_with('"') {
                quoted(after).ok_or_else(|| bad(format!("the string {after:?} is not closed")))?
            } else {
                let length = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..length].to_owned(), &after[length..])
            };
        }
        if tags.insert(key.to_owned(), value).is_some() {
            return Err(bad(format!("tag {key} has been set twice")));
        }
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(bad(format!("expected a space at {rest:?}")));
        }
        rest = rest.trim_start();
    }
    Ok(tags)
}

/// A string in double quotes, with what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c => c,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_logfmt() {
        type Pairs = &'static [(&'static str, &'static str)];
        let table: [(&str, Option<Pairs>); 9] = [
            ("", Some(&[])),
            ("a=1", Some(&[("a", "1")])),
            ("  a=1   b=2 ", Some(&[("a", "1"), ("b", "2")])),
            (r#"a="x y" b="\"\n""#, Some(&[("a", "x y"), ("b", "\"\n")])),
            ("a= b", Some(&[("a", ""), ("b", "")])),
            ("a=1 a=2", None),
            ("=1", None),
            (r#"a="x"#, None),
            (r#"a="x"y"#, None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|pairs| {
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            });
            assert_eq!(tags(text).ok(), expected, "{text:?}");
        }
    }
}
