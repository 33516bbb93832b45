//! Which fields a sample of entries has: what Grafana offers to filter on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::evaluate::Entry;
use super::pipeline::{ERROR, ERROR_DETAILS, RowLabels, logfmt};
use super::quantity;
use super::view::sanitized;

/// One field of some entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetectedField {
    pub label: String,
    pub values: BTreeSet<String>,
    /// `json` or `logfmt`, where a stage has to take it out of the line; empty for structured metadata and what
    /// the query extracts itself.
    pub parsers: BTreeSet<&'static str>,
    /// Keys from the root of the document, for `json`.
    pub json_path: Vec<String>,
}

impl DetectedField {
    /// What all its values can be read as: `int`, `float`, `boolean`, `duration`, `bytes`, else `string`.
    pub fn kind(&self) -> &'static str {
        let all = |reads: fn(&str) -> bool| self.values.iter().all(|value| reads(value));
        match () {
            () if all(|value| value.parse::<i64>().is_ok()) => "int",
            () if all(|value| value.parse::<f64>().is_ok()) => "float",
            () if all(|value| value.parse::<bool>().is_ok()) => "boolean",
            () if all(|value| quantity::duration_seconds(value).is_some()) => "duration",
            () if all(|value| quantity::bytes(value).is_some()) => "bytes",
            () => "string",
        }
    }
}

/// Fields in order of their labels: structured metadata, parsed labels, and those that the line would give as
/// JSON, else as logfmt. Stream labels are not among them.
pub fn detect_fields(entries: &[Entry]) -> Vec<DetectedField> {
    let mut fields = BTreeMap::new();
    for entry in entries {
        for (name, value) in entry.metadata.iter().chain(&entry.parsed) {
            if name != ERROR && name != ERROR_DETAILS {
                add(&mut fields, name, value, None, &[]);
            }
        }
        // A name that is there already would be hidden or renamed by the parser.
        let fresh = |name: &str| {
            ![&*entry.stream, &entry.metadata, &entry.parsed].iter().any(|l| l.contains_key(name))
        };
        if let Ok(Value::Object(document)) = serde_json::from_str(&entry.line) {
            let mut path = Vec::new();
            walk(&Value::Object(document), &mut path, &mut |path, value| {
                let name = sanitized(&path.join("_")).into_owned();
                if fresh(&name) {
                    add(&mut fields, &name, value, Some("json"), path);
                }
            });
        } else {
            let mut labels = RowLabels::new(entry.stream.clone(), entry.metadata.clone());
            logfmt::extract(&entry.line, false, false, &[], &mut labels);
            for (name, value) in labels.parsed.iter().filter(|(name, _)| fresh(name)) {
                add(&mut fields, name, value, Some("logfmt"), &[]);
            }
        }
    }
    fields.into_values().collect()
}

fn add(
    fields: &mut BTreeMap<String, DetectedField>,
    name: &str,
    value: &str,
    parser: Option<&'static str>,
    path: &[String],
) {
    if value.is_empty() {
        return;
    }
    let new = || DetectedField { label: name.to_owned(), ..DetectedField::default() };
    let field = fields.entry(name.to_owned()).or_insert_with(new);
    field.values.insert(value.to_owned());
    field.parsers.extend(parser);
    if field.json_path.is_empty() {
        field.json_path = path.to_vec();
    }
}

/// Every plain value with its path; arrays are left out, as the `json` stage does.
fn walk(value: &Value, path: &mut Vec<String>, visit: &mut dyn FnMut(&[String], &str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                path.push(key.clone());
                walk(value, path, visit);
                path.pop();
            }
        }
        Value::Array(_) | Value::Null => {}
        Value::String(text) => visit(path, text),
        _ => visit(path, &value.to_string()),
    }
}
