//! Patterns: text with `<name>` where a label is taken and `<_>` where anything may stand. The `pattern` stage
//! and the line filters `|>` and `!>`.

use super::RowLabels;
use crate::QueryError;

#[derive(Debug)]
pub(super) struct Pattern {
    /// Text before the first capture; the line must start with it.
    prefix: String,
    /// Each capture's name, `None` for `<_>`, and the text that ends it; empty for the end of the line.
    captures: Vec<(Option<String>, String)>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let bad = |reason: &str| QueryError::bad(format!("invalid pattern `{text}`: {reason}"));
        let (prefix, mut rest) = until_capture(text);
        let mut captures: Vec<(Option<String>, String)> = Vec::new();
        while let Some(name) = rest {
            let (name, after) = name;
            let (literal, next) = until_capture(after);
            if literal.is_empty() && next.is_some() {
                return Err(bad("captures need text between them"));
            }
            let named = (name != "_").then(|| name.to_owned());
            if named.is_some() && captures.iter().any(|(other, _)| *other == named) {
                return Err(bad("a capture is named twice"));
            }
            captures.push((named, literal.to_owned()));
            rest = next;
        }
        if captures.iter().all(|(name, _)| name.is_none()) {
            return Err(bad("at least one capture must be named"));
        }
        Ok(Pattern { prefix: prefix.to_owned(), captures })
    }

    /// Takes as many captures as the line has.
    pub(super) fn extract(&self, line: &str, labels: &mut RowLabels) {
        let Some(mut rest) = line.strip_prefix(self.prefix.as_str()) else { return };
        for (name, end) in &self.captures {
            let (value, after) = match end.is_empty() {
                true => (rest, Some("")),
                false => {
                    rest.split_once(end.as_str()).map_or((rest, None), |(value, after)| (value, Some(after)))
                }
            };
            if let Some(name) = name {
                labels.extract(name, value);
            }
            let Some(after) = after else { return };
            rest = after;
        }
    }
}

/// A pattern that takes no labels: `|> "<_>text<_>"`. As in Loki, every `<_>` stands for at least one character,
/// text at the end of the pattern ends the line, and text at its start may stand anywhere.
pub(super) struct LinePattern {
    first: String,
    /// The texts behind the captures, in order; only the last can be empty.
    rest: Vec<String>,
}

impl LinePattern {
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let bad = |reason: String| QueryError::bad(format!("invalid pattern `{text}`: {reason}"));
        let (first, mut capture) = until_capture(text);
        let mut rest = Vec::new();
        while let Some((name, after)) = capture {
            if name != "_" {
                return Err(bad(format!("<{name}> takes a label")));
            }
            let (literal, next) = until_capture(after);
            if literal.is_empty() && next.is_some() {
                return Err(bad("captures need text between them".to_owned()));
            }
            rest.push(literal.to_owned());
            capture = next;
        }
        Ok(LinePattern { first: first.to_owned(), rest })
    }

    pub(super) fn fits(&self, line: &str) -> bool {
        let Some((last, between)) = self.rest.split_last() else {
            return if self.first.is_empty() { line.is_empty() } else { line.ends_with(self.first.as_str()) };
        };
        let Some((_, line)) = line.split_once(self.first.as_str()) else { return false };
        let Some(mut line) = line.strip_suffix(last.as_str()) else { return false };
        for text in between {
            match line.split_once(text.as_str()) {
                Some((captured, after)) if !captured.is_empty() => line = after,
                _ => return false,
            }
        }
        !line.is_empty()
    }
}

/// Splits before the first `<name>`: the text before, and the name and what follows it.
fn until_capture(text: &str) -> (&str, Option<(&str, &str)>) {
    for (at, _) in text.match_indices('<') {
        let inside = &text[at + 1..];
        let Some((name, after)) = inside.split_once('>') else { continue };
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return (&text[..at], Some((name, after)));
        }
    }
    (text, None)
}
