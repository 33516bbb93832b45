//! Label rules, ready to run.

use regex::{Regex, RegexBuilder};

use super::ast::{MatchOp, Matcher};
use super::view::Labels;
use crate::QueryError;

/// Bytes that one compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Compiles an expression of a query; a bad or too large one is the query's fault.
pub(super) fn regex(pattern: &str) -> Result<Regex, QueryError> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| QueryError::bad(format!("error parsing regexp `{pattern}`: {error}")))
}

/// Compiles an expression that must fit a whole value.
pub(super) fn anchored(pattern: &str) -> Result<Regex, QueryError> {
    // The expression alone must be right: `a)(b` would be once it is in the group.
    regex(pattern)?;
    regex(&format!("^(?s:{pattern})$"))
}

/// One rule with its expression compiled. A label that is not there counts as empty.
#[derive(Clone, Debug)]
pub(super) struct CompiledMatcher {
    pub(super) name: String,
    op: MatchOp,
    value: String,
    /// `None` for the plain rules.
    regex: Option<Regex>,
}

impl CompiledMatcher {
    pub(super) fn new(matcher: &Matcher) -> Result<Self, QueryError> {
        let regex = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(anchored(&matcher.value)?),
        };
        let Matcher { name, op, value } = matcher.clone();
        Ok(CompiledMatcher { name, op, value, regex })
    }

    /// Whether a label with this value fits.
    pub(super) fn takes(&self, value: &str) -> bool {
        let fits = self.regex.as_ref().map_or_else(|| self.value == value, |regex| regex.is_match(value));
        fits == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }
}

/// All rules of a selector.
#[derive(Clone, Debug)]
pub(super) struct CompiledSelector(Vec<CompiledMatcher>);

impl CompiledSelector {
    pub(super) fn new(matchers: &[Matcher]) -> Result<Self, QueryError> {
        Ok(CompiledSelector(matchers.iter().map(CompiledMatcher::new).collect::<Result<_, _>>()?))
    }

    /// Whether a stream with these labels fits all rules.
    pub(super) fn takes(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.takes(labels.get(&matcher.name).map_or("", String::as_str)))
    }
}
