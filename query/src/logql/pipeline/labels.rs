//! The labels of one row while it goes through the stages.

use std::sync::Arc;

use super::super::view::{Labels, sanitized};

/// The label that says what went wrong in a stage.
pub(in super::super) const ERROR: &str = "__error__";
/// The label that says more about it.
pub(in super::super) const ERROR_DETAILS: &str = "__error_details__";

/// Labels by where they come from. A name is in one of the three only, except that the stream's wait under a
/// parsed one.
#[derive(Clone, Debug)]
pub(in super::super) struct RowLabels {
    pub(in super::super) stream: Arc<Labels>,
    pub(in super::super) metadata: Labels,
    /// What stages extracted or set, and [`ERROR`].
    pub(in super::super) parsed: Labels,
}

impl RowLabels {
    pub(in super::super) fn new(stream: Arc<Labels>, metadata: Labels) -> Self {
        RowLabels { stream, metadata, parsed: Labels::new() }
    }

    pub(in super::super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.parsed.get(name).or_else(|| self.metadata.get(name));
        found.or_else(|| self.stream.get(name)).map(String::as_str)
    }

    /// Adds what a parser found. A stream label of that name stays, and the new one gets `_extracted`; the
    /// first value of a name wins, and a parsed one hides structured metadata.
    pub(super) fn extract(&mut self, name: &str, value: &str) {
        let mut name = sanitized(name).into_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            name.insert(0, '_');
        }
        if name.is_empty() {
            return;
        }
        if self.stream.contains_key(&name) {
            name.push_str("_extracted");
        }
        if !self.parsed.contains_key(&name) {
            self.metadata.remove(&name);
            self.parsed.insert(name, value.to_owned());
        }
    }

    /// Sets a label whatever was there.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.remove(name);
        self.parsed.insert(name.to_owned(), value);
    }

    pub(in super::super) fn remove(&mut self, name: &str) {
        self.parsed.remove(name);
        self.metadata.remove(name);
        if self.stream.contains_key(name) {
            Arc::make_mut(&mut self.stream).remove(name);
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.parsed.retain(|name, value| keep(name, value));
        self.metadata.retain(|name, value| keep(name, value));
        if !self.stream.iter().all(|(name, value)| keep(name, value)) {
            Arc::make_mut(&mut self.stream).retain(|name, value| keep(name, value));
        }
    }

    /// Notes that a stage failed; the first failure stays.
    pub(super) fn fail(&mut self, error: &str, details: impl FnOnce() -> String) {
        if !self.has_error() {
            self.parsed.insert(ERROR.to_owned(), error.to_owned());
            self.parsed.insert(ERROR_DETAILS.to_owned(), details());
        }
    }

    pub(in super::super) fn has_error(&self) -> bool {
        self.parsed.contains_key(ERROR)
    }

    /// All labels as one set.
    pub(in super::super) fn all(&self) -> Labels {
        let mut all = (*self.stream).clone();
        for (name, value) in self.metadata.iter().chain(&self.parsed) {
            all.insert(name.clone(), value.clone());
        }
        all.retain(|_, value| !value.is_empty());
        all
    }
}
