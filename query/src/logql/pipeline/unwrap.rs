//! The `unwrap` stage: a label's value becomes the sample.

use super::super::ast::{Conversion, Unwrap};
use super::super::quantity;
use super::RowLabels;
use super::filter::CompiledFilter;
use crate::QueryError;

pub(in super::super) struct CompiledUnwrap {
    label: String,
    conversion: Conversion,
    filters: Vec<CompiledFilter>,
}

impl CompiledUnwrap {
    pub(in super::super) fn new(unwrap: &Unwrap) -> Result<Self, QueryError> {
        let filters = unwrap.filters.iter().map(CompiledFilter::new).collect::<Result<_, _>>()?;
        Ok(CompiledUnwrap { label: unwrap.label.clone(), conversion: unwrap.conversion, filters })
    }

    /// The sample of a row, with its label taken off. `None` when the label is not there or a filter behind
    /// the stage takes the row out.
    pub(in super::super) fn sample(&self, labels: &mut RowLabels) -> Option<f64> {
        let text = labels.get(&self.label).filter(|text| !text.is_empty())?.to_owned();
        let value = match self.conversion {
            Conversion::None => text.parse().ok(),
            Conversion::Duration => quantity::duration_seconds(&text),
            Conversion::Bytes => quantity::bytes(&text),
        };
        match value {
            Some(_) => labels.remove(&self.label),
            None => {
                labels.fail("SampleExtractionErr", || format!("cannot read {text:?} of label {}", self.label))
            }
        }
        self.filters.iter().all(|filter| filter.takes(labels)).then(|| value.unwrap_or(0.0))
    }
}
