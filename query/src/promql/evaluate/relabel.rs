//! `label_replace` and `label_join`.

use super::super::ast::Node;
use super::super::labels::compile;
use super::{Column, Evaluator, Timeline, text, unite};
use crate::QueryError;

impl Evaluator<'_> {
    pub(super) fn label_replace(
        &mut self,
        args: &[Node],
        when: &Timeline,
    ) -> Result<Vec<Column>, QueryError> {
        let mut columns = self.vector(&args[0], when)?;
        let (target, replacement) = (text(&args[1])?, text(&args[2])?);
        let (source, pattern) = (text(&args[3])?, text(&args[4])?);
        let regex = compile(&format!("^(?:{pattern})$")).map_err(|_| {
            QueryError::bad(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        check_name(target, "label_replace")?;
        for column in &mut columns {
            let Some(captures) = regex.captures(column.labels.get(source)) else { continue };
            let mut value = String::new();
            captures.expand(replacement, &mut value);
            drop(captures);
            column.labels.set(target, &value);
        }
        unite(columns)
    }

    pub(super) fn label_join(&mut self, args: &[Node], when: &Timeline) -> Result<Vec<Column>, QueryError> {
        let mut columns = self.vector(&args[0], when)?;
        let (target, separator) = (text(&args[1])?, text(&args[2])?);
        let sources = args[3..].iter().map(text).collect::<Result<Vec<_>, _>>()?;
        check_name(target, "label_join")?;
        for column in &mut columns {
            let values: Vec<&str> = sources.iter().map(|source| column.labels.get(source)).collect();
            let joined = values.join(separator);
            column.labels.set(target, &joined);
        }
        unite(columns)
    }
}

fn check_name(name: &str, function: &str) -> Result<(), QueryError> {
    if name.is_empty() {
        return Err(QueryError::bad(format!("invalid destination label name in {function}(): {name}")));
    }
    Ok(())
}
