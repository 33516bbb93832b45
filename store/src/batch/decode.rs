//! Bytes to rows.

use std::ops::Range;
use std::sync::Arc;

use super::Inner;
use super::definition::Contents;
use crate::column::{FormatError, Reader, Selection};
use crate::entities;
use crate::model::{Rows, Series, Signal, Stream};
use crate::page::{self, Named};

/// What the rows of a batch name by index, and where its page is.
#[derive(Debug)]
pub(super) struct Names {
    items: Items,
    /// Where the page starts within the body.
    page_start: usize,
}

#[derive(Debug)]
enum Items {
    Series(Vec<Arc<Series>>),
    Streams(Vec<Arc<Stream>>),
}

/// Decodes rows of the batch.
pub(super) fn decode(
    batch: &Inner,
    ranges: impl IntoIterator<Item = Range<usize>>,
) -> Result<Rows, FormatError> {
    let names = match batch.names.get() {
        Some(names) => names,
        None => {
            let names = names(batch)?;
            batch.names.get_or_init(|| names)
        }
    };
    let named = match &names.items {
        Items::Series(series) => Named::Series(series),
        Items::Streams(streams) => Named::Streams(streams),
    };
    let mut reader = Reader::new(&batch.bytes[batch.body.clone()][names.page_start..], "rows of a batch");
    let count = reader.check_count(batch.row_count() as u64)?;
    let rows = page::decode(&mut reader, batch.layout.signal, &Selection::of(count, ranges), named)?;
    reader.finish()?;
    Ok(rows)
}

fn names(batch: &Inner) -> Result<Names, FormatError> {
    let references = batch.layout.definitions.iter().zip(&batch.definitions);
    let absent = references.filter_map(|(reference, known)| known.is_none().then_some(reference.hash));
    let absent: Vec<u128> = absent.collect();
    if !absent.is_empty() {
        return Err(FormatError::MissingDefinitions(absent));
    }
    let mut contents = Contents::default();
    batch.definitions.iter().flatten().try_for_each(|definition| contents.add(definition))?;
    if batch.layout.signal == Signal::Metrics {
        return Ok(Names { items: Items::Series(contents.series), page_start: 0 });
    }
    let body = &batch.bytes[batch.body.clone()];
    let mut reader = Reader::new(body, "streams of a batch");
    let count = reader.count()?;
    let streams = entities::decode_streams(&mut reader, count, &contents.resources, &contents.scopes)?;
    Ok(Names { items: Items::Streams(streams), page_start: body.len() - reader.remaining() })
}
