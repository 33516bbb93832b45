//! The `json` stage: fields of a JSON line become labels.

use serde_json::Value;

use super::RowLabels;
use crate::QueryError;

/// One step of a path such as `a.b[0]["c d"]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Extracts `fields`, or every field when there are none.
pub(super) fn extract(line: &str, fields: &[(String, Vec<Step>)], labels: &mut RowLabels) {
    let document: Value = match serde_json::from_str(line) {
        Ok(document @ Value::Object(_)) => document,
        Ok(_) => return labels.fail("JSONParserErr", || "the line is not a JSON object".to_owned()),
        Err(error) => return labels.fail("JSONParserErr", || error.to_string()),
    };
    if fields.is_empty() {
        return flatten("", &document, labels);
    }
    for (label, path) in fields {
        let found = path.iter().try_fold(&document, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        });
        labels.extract(label, &found.map_or_else(String::new, text));
    }
}

/// Extracts the fields of a packed line. The line itself, when it is packed in `_entry`.
pub(super) fn unpack(line: &str, labels: &mut RowLabels) -> Option<String> {
    let fields = match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => {
            labels.fail("JSONParserErr", || "the line is not a JSON object".to_owned());
            return None;
        }
        Err(error) => {
            labels.fail("JSONParserErr", || error.to_string());
            return None;
        }
    };
    let mut entry = None;
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("_entry", Value::String(text)) => entry = Some(text),
            (_, Value::String(text)) => labels.extract(&key, &text),
            // `pack` writes nothing but strings.
            _ => {}
        }
    }
    entry
}

/// Nested objects join their keys with underscores; arrays are left out, as in Loki.
fn flatten(prefix: &str, value: &Value, labels: &mut RowLabels) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}_{key}") };
                flatten(&name, value, labels);
            }
        }
        Value::Array(_) | Value::Null => {}
        _ => labels.extract(prefix, &text(value)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        _ => value.to_string(),
    }
}

/// Parses a path: keys with dots between them, `[0]` and `["any key"]`.
pub(super) fn path(text: &str) -> Result<Vec<Step>, QueryError> {
    let bad = || QueryError::bad(format!("cannot parse the json expression `{text}`"));
    let mut steps = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix("[\"") {
            let (key, after) = inside.split_once("\"]").ok_or_else(bad)?;
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']').ok_or_else(bad)?;
            steps.push(Step::Index(index.parse().map_err(|_| bad())?));
            rest = after;
        } else {
            let start = if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(bad)? };
            let end = start.find(['.', '[']).unwrap_or(start.len());
            if end == 0 {
                return Err(bad());
            }
            steps.push(Step::Key(start[..end].to_owned()));
            rest = &start[end..];
        }
    }
    if steps.is_empty() { Err(bad()) } else { Ok(steps) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_take_keys_indexes_and_quoted_keys() {
        let steps = path(r#"a.b[2]["c d"].e"#).expect("a path");
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(steps, [key("a"), key("b"), Step::Index(2), key("c d"), key("e")]);
        for bad in ["", ".a", "a..b", "a[", "a[x]", "a[\"b", "a[0]b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
