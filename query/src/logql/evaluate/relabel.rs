//! `label_replace`: a label from a part of another.

use std::collections::BTreeMap;

use super::super::ast::LabelReplace;
use super::super::matcher;
use super::super::view::Labels;
use super::Values;
use crate::QueryError;

/// Sets `rule.target` on every series whose source label fits the expression. Two series that become one are an
/// error, as in Prometheus.
pub(super) fn label_replace(
    rule: &LabelReplace,
    series: BTreeMap<Labels, Values>,
) -> Result<BTreeMap<Labels, Values>, QueryError> {
    let regex = matcher::anchored(&rule.regex)?;
    let mut replaced = BTreeMap::new();
    for (mut labels, values) in series {
        let source = labels.get(&rule.source).map_or("", String::as_str);
        if let Some(captures) = regex.captures(source) {
            let mut value = String::new();
            captures.expand(&rule.replacement, &mut value);
            if value.is_empty() {
                labels.remove(&rule.target);
            } else {
                labels.insert(rule.target.clone(), value);
            }
        }
        if replaced.insert(labels, values).is_some() {
            return Err(QueryError::bad("label_replace made several series with the same labels"));
        }
    }
    Ok(replaced)
}
