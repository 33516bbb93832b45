//! Which labels stages look at, so that a leaf makes no others.

use std::collections::BTreeSet;

use super::super::ast::{LabelFilter, LabelSource, Stage, TemplatePart, Unwrap};

/// Labels that the stages and `unwrap` read by name. Parsers add labels whatever metadata there is, and `drop` and
/// `keep` only take away, so they read none.
pub(in super::super) fn reads(stages: &[Stage], unwrap: Option<&Unwrap>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for stage in stages {
        match stage {
            Stage::Filter(filter) => filter_reads(filter, &mut names),
            Stage::LineFormat(template) => template_reads(template, &mut names),
            Stage::LabelFormat(assignments) => {
                for (_, source) in assignments {
                    match source {
                        LabelSource::Rename(from) => names.extend([from.clone()]),
                        LabelSource::Template(template) => template_reads(template, &mut names),
                    }
                }
            }
            Stage::Line(_)
            | Stage::Json { .. }
            | Stage::Logfmt { .. }
            | Stage::Unpack
            | Stage::Decolorize
            | Stage::Pattern(_)
            | Stage::Regexp(_)
            | Stage::Drop(_)
            | Stage::Keep(_) => {}
        }
    }
    if let Some(unwrap) = unwrap {
        names.insert(unwrap.label.clone());
        unwrap.filters.iter().for_each(|filter| filter_reads(filter, &mut names));
    }
    names
}

fn filter_reads(filter: &LabelFilter, names: &mut BTreeSet<String>) {
    match filter {
        LabelFilter::Matches(matcher) => names.extend([matcher.name.clone()]),
        LabelFilter::Compare { name, .. } => names.extend([name.clone()]),
        LabelFilter::And(filters) | LabelFilter::Or(filters) => {
            filters.iter().for_each(|filter| filter_reads(filter, names));
        }
    }
}

fn template_reads(template: &[TemplatePart], names: &mut BTreeSet<String>) {
    names.extend(template.iter().filter_map(|part| match part {
        TemplatePart::Label(name) => Some(name.clone()),
        TemplatePart::Text(_) | TemplatePart::Line => None,
    }));
}
