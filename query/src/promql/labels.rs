//! Label sets and the matchers that select them.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::QueryError;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Labels of one series, sorted by name, each name once. A label with an empty value does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// The value of `name`, empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        match self.0.binary_search_by(|(key, _)| (**key).cmp(name)) {
            Ok(index) => &self.0[index].1,
            Err(_) => "",
        }
    }

    /// Sets `name`, or removes it when `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(key, _)| (**key).cmp(name)) {
            Ok(index) if value.is_empty() => drop(self.0.remove(index)),
            Ok(index) => self.0[index].1 = value.into(),
            Err(_) if value.is_empty() => {}
            Err(index) => self.0.insert(index, (name.into(), value.into())),
        }
    }

    /// These labels without those that `drop` names.
    pub fn without<S: AsRef<str>>(&self, drop: &[S]) -> Labels {
        let keep = |name: &str| !drop.iter().any(|dropped| dropped.as_ref() == name);
        Labels(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// Only the labels that `keep` names.
    pub fn only<S: AsRef<str>>(&self, keep: &[S]) -> Labels {
        let kept = |name: &str| keep.iter().any(|kept| kept.as_ref() == name);
        Labels(self.0.iter().filter(|(name, _)| kept(name)).cloned().collect())
    }

    /// These labels without the metric's name.
    pub fn without_name(&self) -> Labels {
        self.without(&[METRIC_NAME])
    }

    /// Name and value pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    /// Of a name that comes twice the first value stays.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        Labels(pairs)
    }
}

impl std::fmt::Display for Labels {
    /// As Prometheus writes a series: `name{a="1", b="2"}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.get(METRIC_NAME))?;
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().filter(|(name, _)| *name != METRIC_NAME).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

/// One condition on one label. A label that is missing has the empty value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    /// The text to compare with, or the regular expression, anchored on both sides already.
    pub value: String,
}

/// The matchers of one selector, ready to be asked. All of them must hold.
#[derive(Debug)]
pub struct Matchers(Vec<(String, Condition)>);

#[derive(Debug)]
enum Condition {
    Equal(String),
    NotEqual(String),
    Regex(Regex),
    NotRegex(Regex),
}

impl Condition {
    fn holds(&self, value: &str) -> bool {
        match self {
            Condition::Equal(text) => text == value,
            Condition::NotEqual(text) => text != value,
            Condition::Regex(regex) => regex.is_match(value),
            Condition::NotRegex(regex) => !regex.is_match(value),
        }
    }
}

/// Compiles an anchored expression. `.` also matches a line feed, as in Prometheus 3.
pub(crate) fn compile(pattern: &str) -> Result<Regex, QueryError> {
    RegexBuilder::new(pattern)
        .dot_matches_new_line(true)
        .build()
        .map_err(|error| QueryError::bad(format!("error parsing regexp: {error}")))
}

impl Matchers {
    pub fn new(matchers: &[Matcher]) -> Result<Self, QueryError> {
        let compiled = matchers.iter().map(|matcher| {
            let condition = match matcher.op {
                MatchOp::Equal => Condition::Equal(matcher.value.clone()),
                MatchOp::NotEqual => Condition::NotEqual(matcher.value.clone()),
                MatchOp::Regex => Condition::Regex(compile(&matcher.value)?),
                MatchOp::NotRegex => Condition::NotRegex(compile(&matcher.value)?),
            };
            Ok((matcher.name.clone(), condition))
        });
        Ok(Matchers(compiled.collect::<Result<_, QueryError>>()?))
    }

    /// Whether a metric of this name can be selected at all.
    pub fn take_name(&self, metric_name: &str) -> bool {
        self.0.iter().filter(|(name, _)| name == METRIC_NAME).all(|(_, c)| c.holds(metric_name))
    }

    /// Whether labels can be selected, where the labels in `open` have no value yet.
    pub fn take_open(&self, labels: &Labels, open: &[&str]) -> bool {
        self.0
            .iter()
            .filter(|(name, _)| !open.contains(&name.as_str()))
            .all(|(name, condition)| condition.holds(labels.get(name)))
    }

    pub fn take(&self, labels: &Labels) -> bool {
        self.take_open(labels, &[])
    }

    /// Whether a matcher looks at `name`.
    pub fn look_at(&self, label: &str) -> bool {
        self.0.iter().any(|(name, _)| name == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(op: MatchOp, value: &str) -> Matchers {
        Matchers::new(&[Matcher { name: "a".into(), op, value: value.into() }]).expect("a matcher")
    }

    #[test]
    fn a_missing_label_is_empty_to_every_matcher() {
        let none = Labels::default();
        assert!(matcher(MatchOp::Equal, "").take(&none));
        assert!(matcher(MatchOp::NotEqual, "x").take(&none));
        assert!(matcher(MatchOp::Regex, "^(?:.*)$").take(&none));
        assert!(!matcher(MatchOp::Regex, "^(?:.+)$").take(&none));
        assert!(matcher(MatchOp::NotRegex, "^(?:.+)$").take(&none));
    }

    #[test]
    fn setting_an_empty_value_removes_the_label() {
        let mut labels: Labels = [("b", "2"), ("a", "1")].into_iter().collect();
        assert_eq!(labels.to_string(), r#"{a="1", b="2"}"#);
        labels.set("a", "");
        labels.set("__name__", "up");
        assert_eq!(labels.to_string(), r#"up{b="2"}"#);
    }
}
