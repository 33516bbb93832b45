//! Stages ready to run, and what they do to a line and its labels.

mod filter;
mod json;
mod labels;
pub(super) mod logfmt;
mod pattern;
mod reads;
mod unwrap;

use std::borrow::Cow;
use std::collections::BTreeSet;

use oteld_store::model::LogRow;
use regex::Regex;

pub(super) use filter::compare;
pub(super) use labels::{ERROR, ERROR_DETAILS, RowLabels};
pub(super) use reads::reads;
pub(super) use unwrap::CompiledUnwrap;

use super::ast::{LabelPick, LabelSource, LineFilter, LineOp, Stage, TemplatePart};
use super::matcher::{self, CompiledMatcher};
use super::view::{self, StreamView};
use crate::QueryError;
use filter::CompiledFilter;
use pattern::{LinePattern, Pattern};

/// The stages of a query.
pub(super) struct Pipeline {
    /// Line filters before any stage that needs labels: they run first, on the line as it is stored.
    lines: Vec<CompiledLine>,
    rest: Vec<CompiledStage>,
}

enum CompiledStage {
    Line(CompiledLine),
    Json(Vec<(String, Vec<json::Step>)>),
    Logfmt {
        strict: bool,
        keep_empty: bool,
        fields: Vec<(String, String)>,
    },
    Unpack,
    /// With the expression of a colour code.
    Decolorize(Regex),
    Pattern(Pattern),
    Regexp(Regex),
    Filter(CompiledFilter),
    LineFormat(Vec<TemplatePart>),
    LabelFormat(Vec<(String, LabelSource)>),
    Drop(Vec<CompiledPick>),
    Keep(Vec<CompiledPick>),
}

/// A row that passed.
pub(super) struct Passed<'a> {
    pub(super) line: Cow<'a, str>,
    pub(super) labels: RowLabels,
}

impl Passed<'_> {
    /// Bytes of the line and of its own labels.
    pub(super) fn bytes(&self) -> usize {
        let labels = self.labels.metadata.iter().chain(&self.labels.parsed);
        self.line.len() + labels.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

impl Pipeline {
    pub(super) fn new(stages: &[Stage]) -> Result<Self, QueryError> {
        let leading = stages.iter().take_while(|stage| matches!(stage, Stage::Line(_))).count();
        let mut lines = Vec::new();
        for stage in &stages[..leading] {
            if let Stage::Line(filter) = stage {
                lines.push(CompiledLine::new(filter)?);
            }
        }
        let rest = stages[leading..].iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Pipeline { lines, rest })
    }

    /// Runs the stages over one row. `None` when it is filtered out. With `wanted`, which has what
    /// [`reads`] names, the labels may lack other structured metadata.
    pub(super) fn run<'a>(
        &self,
        row: &'a LogRow,
        stream: &StreamView,
        wanted: Option<&BTreeSet<String>>,
    ) -> Option<Passed<'a>> {
        let mut line = view::line(&row.record.body);
        if !self.lines.iter().all(|filter| filter.takes(&line)) {
            return None;
        }
        let metadata = stream.metadata(row, &line, wanted);
        let mut labels = RowLabels::new(stream.labels.clone(), metadata);
        for stage in &self.rest {
            if !stage.run(&mut line, &mut labels) {
                return None;
            }
        }
        Some(Passed { line, labels })
    }
}

fn compile(stage: &Stage) -> Result<CompiledStage, QueryError> {
    Ok(match stage {
        Stage::Line(filter) => CompiledStage::Line(CompiledLine::new(filter)?),
        Stage::Json { fields } => {
            let paths = fields.iter().map(|(label, path)| Ok((label.clone(), json::path(path)?)));
            CompiledStage::Json(paths.collect::<Result<_, QueryError>>()?)
        }
        Stage::Logfmt { strict, keep_empty, fields } => {
            CompiledStage::Logfmt { strict: *strict, keep_empty: *keep_empty, fields: fields.clone() }
        }
        Stage::Unpack => CompiledStage::Unpack,
        // ANSI colours: ECMA-48, "Select Graphic Rendition".
        Stage::Decolorize => CompiledStage::Decolorize(matcher::regex("\\x1b\\[[0-9;]*m")?),
        Stage::Pattern(text) => CompiledStage::Pattern(Pattern::new(text)?),
        Stage::Regexp(text) => {
            let regex = matcher::regex(text)?;
            if regex.capture_names().flatten().next().is_none() {
                return Err(QueryError::bad("at least one named capture must be supplied to regexp"));
            }
            CompiledStage::Regexp(regex)
        }
        Stage::Filter(filter) => CompiledStage::Filter(CompiledFilter::new(filter)?),
        Stage::LineFormat(template) => CompiledStage::LineFormat(template.clone()),
        Stage::LabelFormat(assignments) => CompiledStage::LabelFormat(assignments.clone()),
        Stage::Drop(picks) => CompiledStage::Drop(compile_picks(picks)?),
        Stage::Keep(picks) => CompiledStage::Keep(compile_picks(picks)?),
    })
}

impl CompiledStage {
    /// Whether the row goes on.
    fn run(&self, line: &mut Cow<'_, str>, labels: &mut RowLabels) -> bool {
        match self {
            CompiledStage::Line(filter) => return filter.takes(line),
            CompiledStage::Filter(filter) => return filter.takes(labels),
            CompiledStage::Json(fields) => json::extract(line, fields, labels),
            CompiledStage::Logfmt { strict, keep_empty, fields } => {
                logfmt::extract(line, *strict, *keep_empty, fields, labels);
            }
            CompiledStage::Unpack => {
                if let Some(entry) = json::unpack(line, labels) {
                    *line = Cow::Owned(entry);
                }
            }
            CompiledStage::Decolorize(regex) => {
                let text = match regex.replace_all(line, "") {
                    Cow::Owned(text) => text,
                    Cow::Borrowed(_) => return true,
                };
                *line = Cow::Owned(text);
            }
            CompiledStage::Pattern(pattern) => pattern.extract(line, labels),
            CompiledStage::Regexp(regex) => {
                if let Some(captures) = regex.captures(line) {
                    let names = regex.capture_names().flatten();
                    for (name, found) in names.filter_map(|name| Some((name, captures.name(name)?))) {
                        labels.extract(name, found.as_str());
                    }
                }
            }
            CompiledStage::LineFormat(template) => *line = Cow::Owned(fill(template, line, labels)),
            CompiledStage::LabelFormat(assignments) => label_format(assignments, line, labels),
            CompiledStage::Drop(picks) => {
                labels.retain(|name, value| !picks.iter().any(|pick| pick.takes(name, value)));
            }
            CompiledStage::Keep(picks) => {
                labels.retain(|name, value| picks.iter().any(|pick| pick.takes(name, value)));
            }
        }
        true
    }
}

/// All sources are read before any label is set.
fn label_format(assignments: &[(String, LabelSource)], line: &str, labels: &mut RowLabels) {
    let mut values = Vec::with_capacity(assignments.len());
    for (_, source) in assignments {
        values.push(match source {
            LabelSource::Rename(from) => labels.get(from).map(str::to_owned),
            LabelSource::Template(template) => Some(fill(template, line, labels)),
        });
    }
    for ((label, source), value) in assignments.iter().zip(values) {
        let Some(value) = value else { continue };
        if let LabelSource::Rename(from) = source {
            labels.remove(from);
        }
        labels.set(label, value);
    }
}

fn fill(template: &[TemplatePart], line: &str, labels: &RowLabels) -> String {
    let mut text = String::new();
    for part in template {
        text.push_str(match part {
            TemplatePart::Text(text) => text,
            TemplatePart::Label(name) => labels.get(name).unwrap_or(""),
            TemplatePart::Line => line,
        });
    }
    text
}

struct CompiledPick {
    name: String,
    matcher: Option<CompiledMatcher>,
}

impl CompiledPick {
    fn takes(&self, name: &str, value: &str) -> bool {
        self.name == name && self.matcher.as_ref().is_none_or(|matcher| matcher.takes(value))
    }
}

fn compile_picks(picks: &[LabelPick]) -> Result<Vec<CompiledPick>, QueryError> {
    let compile = |pick: &LabelPick| {
        let matcher = pick.matcher.as_ref().map(CompiledMatcher::new).transpose()?;
        Ok(CompiledPick { name: pick.name.clone(), matcher })
    };
    picks.iter().map(compile).collect()
}

/// A line filter with its expressions compiled.
struct CompiledLine {
    negative: bool,
    values: Vec<LineValue>,
}

enum LineValue {
    Text(String),
    Regex(Regex),
    Pattern(LinePattern),
}

impl CompiledLine {
    fn new(filter: &LineFilter) -> Result<Self, QueryError> {
        let negative = matches!(filter.op, LineOp::NotContains | LineOp::NotMatch | LineOp::NotPattern);
        let values = filter.values.iter().map(|value| match filter.op {
            LineOp::Contains | LineOp::NotContains => Ok(LineValue::Text(value.clone())),
            LineOp::Match | LineOp::NotMatch => Ok(LineValue::Regex(matcher::regex(value)?)),
            LineOp::Pattern | LineOp::NotPattern => Ok(LineValue::Pattern(LinePattern::new(value)?)),
        });
        Ok(CompiledLine { negative, values: values.collect::<Result<_, QueryError>>()? })
    }

    fn takes(&self, line: &str) -> bool {
        let found = self.values.iter().any(|value| match value {
            LineValue::Text(text) => line.contains(text.as_str()),
            LineValue::Regex(regex) => regex.is_match(line),
            LineValue::Pattern(pattern) => pattern.fits(line),
        });
        found != self.negative
    }
}
