//! A page: rows of one signal in columns. A batch is one page, a segment has pages of a few thousand rows. Rows
//! name their series or stream by its index in a table that stands elsewhere.

mod logs;
mod metrics;
mod points;
mod spans;

use std::sync::Arc;

use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers};
use crate::entities::collect;
use crate::model::{Rows, Series, Signal, Stream};

/// What rows name by index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    Series(&'a [Arc<Series>]),
    Streams(&'a [Arc<Stream>]),
}

/// Appends a page. `names` has the index of the series or stream of each row.
pub(crate) fn encode(out: &mut Vec<u8>, effort: Effort, rows: &Rows, names: &[u32]) {
    assert_eq!(rows.len(), names.len(), "every row names its series or stream");
    integers::encode(out, effort, names.iter().map(|name| i64::from(*name)));
    match rows {
        Rows::Metrics(rows) => metrics::encode(out, effort, rows),
        Rows::Logs(rows) => logs::encode(out, effort, rows),
        Rows::Traces(rows) => spans::encode(out, effort, rows),
    }
}

/// Reads the selected rows of a page.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    signal: Signal,
    selection: &Selection,
    named: Named<'_>,
) -> Result<Rows, FormatError> {
    let limit = match named {
        Named::Series(series) => series.len(),
        Named::Streams(streams) => streams.len(),
    };
    let names = integers::decode_indices(reader, selection, limit)?;
    match (signal, named) {
        (Signal::Metrics, Named::Series(series)) => {
            metrics::decode(reader, selection, names, series).map(Rows::Metrics)
        }
        (Signal::Logs, Named::Streams(streams)) => {
            logs::decode(reader, selection, names, streams).map(Rows::Logs)
        }
        (Signal::Traces, Named::Streams(streams)) => {
            spans::decode(reader, selection, names, streams).map(Rows::Traces)
        }
        _ => Err(reader.invalid()),
    }
}

/// Appends a column of ids.
fn put_ids<T, const N: usize>(out: &mut Vec<u8>, effort: Effort, items: &[T], id: impl Fn(&T) -> &[u8; N]) {
    let slices: Vec<&[u8]> = items.iter().map(|item| &id(item)[..]).collect();
    bytes::encode(out, effort, &slices);
}

/// Appends a column of strings.
fn put_strings<T>(out: &mut Vec<u8>, effort: Effort, items: &[T], text: impl Fn(&T) -> &str) {
    let slices: Vec<&[u8]> = items.iter().map(|item| text(item).as_bytes()).collect();
    bytes::encode(out, effort, &slices);
}

/// Appends a column of times.
fn put_times<T>(out: &mut Vec<u8>, effort: Effort, items: &[T], time: impl Fn(&T) -> u64) {
    integers::encode_u64(out, effort, items.iter().map(time));
}

/// Appends a column of small numbers.
fn put_numbers<T, N: Into<i64>>(out: &mut Vec<u8>, effort: Effort, items: &[T], number: impl Fn(&T) -> N) {
    integers::encode(out, effort, items.iter().map(|item| number(item).into()));
}

/// Cuts `items` into lists of these lengths.
fn lists<T>(
    reader: &Reader<'_>,
    counts: Vec<usize>,
    items: Vec<T>,
) -> Result<std::vec::IntoIter<Vec<T>>, FormatError> {
    let mut items = items.into_iter();
    let mut counts = counts.into_iter();
    let lists = collect(reader, counts.len(), || Some(items.by_ref().take(counts.next()?).collect()))?;
    Ok(lists.into_iter())
}
