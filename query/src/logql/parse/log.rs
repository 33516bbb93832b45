//! Selectors, line filters, pipeline stages and label filters.

use super::super::ast::{
    CompareOp, Conversion, LabelFilter, LabelPick, LabelSource, LineFilter, LineOp, LogQuery, MatchOp,
    Matcher, Stage, TemplatePart, Unwrap,
};
use super::super::matcher::CompiledMatcher;
use super::Parser;
use super::lexer::TokenKind;
use crate::QueryError;

/// Stages of a query: each is work for every line.
const STAGES_MAX: usize = 64;

impl Parser<'_> {
    pub(super) fn log_query(&mut self) -> Result<LogQuery, QueryError> {
        let selector = self.selector()?;
        let mut stages = Vec::new();
        if self.stages(&mut stages)?.is_some() {
            return Err(QueryError::bad("unwrap stands only inside a range aggregation"));
        }
        Ok(LogQuery { selector, stages })
    }

    pub(super) fn selector(&mut self) -> Result<Vec<Matcher>, QueryError> {
        let matchers = self.matchers()?;
        refuse_match_all(&matchers)?;
        Ok(matchers)
    }

    pub(super) fn matchers(&mut self) -> Result<Vec<Matcher>, QueryError> {
        self.expect_symbol("{")?;
        let mut matchers = Vec::new();
        while !self.take_symbol("}") {
            if !matchers.is_empty() {
                self.expect_symbol(",")?;
                if self.take_symbol("}") {
                    break;
                }
            }
            let name = self.identifier()?;
            let Some(op) = self.match_op() else {
                return Err(self.unexpected("one of =, !=, =~, !~"));
            };
            let matcher = Matcher { name, op, value: self.string()? };
            CompiledMatcher::new(&matcher)?;
            matchers.push(matcher);
        }
        Ok(matchers)
    }

    fn match_op(&mut self) -> Option<MatchOp> {
        let TokenKind::Symbol(symbol) = *self.peek() else { return None };
        let op = match symbol {
            "=" => MatchOp::Equal,
            "!=" => MatchOp::NotEqual,
            "=~" => MatchOp::Regex,
            "!~" => MatchOp::NotRegex,
            _ => return None,
        };
        self.advance();
        Some(op)
    }

    /// Stages up to the first token that starts none; the unwrap stage when there is one.
    pub(super) fn stages(&mut self, stages: &mut Vec<Stage>) -> Result<Option<Unwrap>, QueryError> {
        let mut unwrap: Option<Unwrap> = None;
        loop {
            if stages.len() > STAGES_MAX {
                return Err(self.error(&format!("more than {STAGES_MAX} stages in one query")));
            }
            if let Some(op) = self.line_op() {
                if unwrap.is_some() {
                    return Err(self.error("only label filters can follow unwrap"));
                }
                stages.push(Stage::Line(self.line_filter(op)?));
            } else if self.take_symbol("|") {
                if self.peek_word("unwrap") && unwrap.is_none() && !self.second_compares() {
                    unwrap = Some(self.unwrap_stage()?);
                    continue;
                }
                match (self.stage()?, &mut unwrap) {
                    (stage, None) => stages.push(stage),
                    (Stage::Filter(filter), Some(unwrap)) => unwrap.filters.push(filter),
                    (_, Some(_)) => return Err(self.error("only label filters can follow unwrap")),
                }
            } else {
                return Ok(unwrap);
            }
        }
    }

    fn line_op(&mut self) -> Option<LineOp> {
        let TokenKind::Symbol(symbol) = *self.peek() else { return None };
        let op = match symbol {
            "|=" => LineOp::Contains,
            "!=" => LineOp::NotContains,
            "|~" => LineOp::Match,
            "!~" => LineOp::NotMatch,
            "|>" => LineOp::Pattern,
            "!>" => LineOp::NotPattern,
            _ => return None,
        };
        self.advance();
        Some(op)
    }

    fn line_filter(&mut self, op: LineOp) -> Result<LineFilter, QueryError> {
        if self.peek_word("ip") {
            return Err(QueryError::not_supported("the line filter ip()"));
        }
        let mut values = vec![self.string()?];
        while self.take_word("or") {
            self.count_operator()?;
            values.push(self.string()?);
        }
        Ok(LineFilter { op, values })
    }

    /// Whether the token after next compares, so that the next one names a label and not a stage.
    fn second_compares(&self) -> bool {
        matches!(
            self.peek_second(),
            TokenKind::Symbol("=" | "!=" | "=~" | "!~" | "==" | ">" | ">=" | "<" | "<=")
        )
    }

    fn stage(&mut self) -> Result<Stage, QueryError> {
        if self.peek_symbol("(") || self.second_compares() {
            return Ok(Stage::Filter(self.label_filter()?));
        }
        let TokenKind::Identifier(name) = self.peek().clone() else {
            return Err(self.unexpected("a stage"));
        };
        match name.as_str() {
            "json" => {
                self.advance();
                Ok(Stage::Json { fields: self.fields()? })
            }
            "logfmt" => {
                self.advance();
                let (mut strict, mut keep_empty) = (false, false);
                loop {
                    if self.take_symbol("--strict") {
                        strict = true;
                    } else if self.take_symbol("--keep-empty") {
                        keep_empty = true;
                    } else {
                        break;
                    }
                }
                Ok(Stage::Logfmt { strict, keep_empty, fields: self.fields()? })
            }
            "pattern" => {
                self.advance();
                Ok(Stage::Pattern(self.string()?))
            }
            "regexp" => {
                self.advance();
                Ok(Stage::Regexp(self.string()?))
            }
            "line_format" => {
                self.advance();
                let text = self.string()?;
                Ok(Stage::LineFormat(template(&text)?))
            }
            "label_format" => {
                self.advance();
                self.label_format()
            }
            "drop" => {
                self.advance();
                Ok(Stage::Drop(self.picks()?))
            }
            "keep" => {
                self.advance();
                Ok(Stage::Keep(self.picks()?))
            }
            "unpack" => {
                self.advance();
                Ok(Stage::Unpack)
            }
            "decolorize" => {
                self.advance();
                Ok(Stage::Decolorize)
            }
            "distinct" => Err(QueryError::not_supported("the stage `distinct`")),
            "unwrap" => Err(self.error("unwrap may stand once")),
            _ => Err(self.error(&format!("unknown stage or incomplete label filter `{name}`"))),
        }
    }

    /// `label="path", label`, or nothing.
    fn fields(&mut self) -> Result<Vec<(String, String)>, QueryError> {
        let mut fields = Vec::new();
        while matches!(self.peek(), TokenKind::Identifier(name) if name != "offset") {
            let label = self.identifier()?;
            let path = if self.take_symbol("=") { self.string()? } else { label.clone() };
            fields.push((label, path));
            if !self.take_symbol(",") {
                break;
            }
        }
        Ok(fields)
    }

    fn label_format(&mut self) -> Result<Stage, QueryError> {
        let mut assignments: Vec<(String, LabelSource)> = Vec::new();
        loop {
            let label = self.identifier()?;
            if assignments.iter().any(|(name, _)| *name == label) {
                return Err(self.error(&format!("label_format sets `{label}` twice")));
            }
            self.expect_symbol("=")?;
            let source = match self.peek() {
                TokenKind::Text(_) => LabelSource::Template(template(&self.string()?)?),
                _ => LabelSource::Rename(self.identifier()?),
            };
            assignments.push((label, source));
            if !self.take_symbol(",") {
                return Ok(Stage::LabelFormat(assignments));
            }
        }
    }

    fn picks(&mut self) -> Result<Vec<LabelPick>, QueryError> {
        let mut picks = Vec::new();
        loop {
            let name = self.identifier()?;
            let matcher = match self.match_op() {
                Some(op) => {
                    let matcher = Matcher { name: name.clone(), op, value: self.string()? };
                    CompiledMatcher::new(&matcher)?;
                    Some(matcher)
                }
                None => None,
            };
            picks.push(LabelPick { name, matcher });
            if !self.take_symbol(",") {
                return Ok(picks);
            }
        }
    }

    fn unwrap_stage(&mut self) -> Result<Unwrap, QueryError> {
        self.advance();
        let name = self.identifier()?;
        if !self.take_symbol("(") {
            return Ok(Unwrap { label: name, conversion: Conversion::None, filters: Vec::new() });
        }
        let conversion = match name.as_str() {
            "duration" | "duration_seconds" => Conversion::Duration,
            "bytes" => Conversion::Bytes,
            _ => return Err(self.error(&format!("unknown conversion `{name}`"))),
        };
        let label = self.identifier()?;
        self.expect_symbol(")")?;
        Ok(Unwrap { label, conversion, filters: Vec::new() })
    }

    fn label_filter(&mut self) -> Result<LabelFilter, QueryError> {
        let mut any = vec![self.label_filter_and()?];
        while self.take_word("or") {
            self.count_operator()?;
            any.push(self.label_filter_and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { LabelFilter::Or(any) })
    }

    fn label_filter_and(&mut self) -> Result<LabelFilter, QueryError> {
        let mut all = vec![self.label_filter_unit()?];
        while self.take_word("and") || self.take_symbol(",") {
            self.count_operator()?;
            all.push(self.label_filter_unit()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { LabelFilter::And(all) })
    }

    fn label_filter_unit(&mut self) -> Result<LabelFilter, QueryError> {
        if self.take_symbol("(") {
            let filter = self.nested(Self::label_filter)?;
            self.expect_symbol(")")?;
            return Ok(filter);
        }
        let name = self.identifier()?;
        let start = self.next;
        if let Some(op) = self.match_op() {
            if self.peek_word("ip") {
                return Err(QueryError::not_supported("the label filter ip()"));
            }
            if matches!(self.peek(), TokenKind::Text(_)) {
                let matcher = Matcher { name, op, value: self.string()? };
                CompiledMatcher::new(&matcher)?;
                return Ok(LabelFilter::Matches(matcher));
            }
            self.next = start;
        }
        let op = self.compare_op()?;
        Ok(LabelFilter::Compare { name, op, value: self.quantity()? })
    }

    fn compare_op(&mut self) -> Result<CompareOp, QueryError> {
        let op = match self.peek() {
            TokenKind::Symbol("=" | "==") => CompareOp::Equal,
            TokenKind::Symbol("!=") => CompareOp::NotEqual,
            TokenKind::Symbol(">") => CompareOp::Greater,
            TokenKind::Symbol(">=") => CompareOp::GreaterOrEqual,
            TokenKind::Symbol("<") => CompareOp::Less,
            TokenKind::Symbol("<=") => CompareOp::LessOrEqual,
            _ => return Err(self.unexpected("a comparison")),
        };
        self.advance();
        if let (TokenKind::Text(_), false) =
            (self.peek(), matches!(op, CompareOp::Equal | CompareOp::NotEqual))
        {
            return Err(self.unexpected("a number, a duration or a size"));
        }
        Ok(op)
    }
}

/// Loki refuses a selector that every stream without the labels would fit.
pub(super) fn refuse_match_all(matchers: &[Matcher]) -> Result<(), QueryError> {
    for matcher in matchers {
        if !CompiledMatcher::new(matcher)?.takes("") {
            return Ok(());
        }
    }
    Err(QueryError::bad(
        "queries require at least one regexp or equality matcher that does not have an empty-compatible value. \
         For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
    ))
}

/// A Go template of plain text and `{{.label}}`; anything more is not supported.
fn template(text: &str) -> Result<Vec<TemplatePart>, QueryError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        let Some((action, after)) = inside.split_once("}}") else {
            return Err(QueryError::bad("parse error: a template has `{{` without `}}`"));
        };
        let name = action.trim();
        let label = name.strip_prefix('.').filter(|label| {
            !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        parts.push(match (label, name) {
            (Some(label), _) => TemplatePart::Label(label.to_owned()),
            (None, "__line__") => TemplatePart::Line,
            _ => return Err(QueryError::not_supported(format!("the template action `{{{{{action}}}}}`"))),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}
