//! Attributes of many rows in columns: one column for each (key, type), and a tree of key orders.
//!
//! A row's attributes are a path in the tree from its root, and the row stores the node where the path ends: its
//! *shape*. Rows of one instrumentation have few shapes, whatever their values. A key may occur more than once
//! in a row; its column then has more than one value of the row.
//!
//! A table is: the number of columns (varint; 0 when no row has an attribute, and nothing follows), the keys (byte
//! column), the types (integers), the number of nodes without the root (varint), the parent of each node and its
//! column (integers), the node of each row (integers), and the columns. Node 0 is the root, a node's parent has a
//! lower number. A table of no rows has no bytes.

mod shapes;

use crate::column::{Effort, FormatError, Reader, Selection, bytes, integers, put_varint, values};
use crate::model::{AnyValue, Attributes};
use shapes::Shapes;

/// Appends a table.
pub fn encode<'a>(out: &mut Vec<u8>, effort: Effort, rows: impl IntoIterator<Item = &'a Attributes>) {
    let mut shapes = Shapes::default();
    for row in rows {
        shapes.push(row);
    }
    if shapes.rows.is_empty() {
        return;
    }
    put_varint(out, shapes.columns.len() as u64);
    if shapes.columns.is_empty() {
        return;
    }
    let keys: Vec<&[u8]> = shapes.columns.iter().map(|column| column.key.as_bytes()).collect();
    bytes::encode(out, effort, &keys);
    integers::encode(out, effort, shapes.columns.iter().map(|column| i64::from(column.code)));
    let nodes = &shapes.nodes[1..];
    put_varint(out, nodes.len() as u64);
    integers::encode(out, effort, nodes.iter().map(|node| i64::from(node.parent)));
    integers::encode(out, effort, nodes.iter().map(|node| i64::from(node.column)));
    integers::encode(out, effort, shapes.rows.iter().map(|node| i64::from(*node)));
    for column in &shapes.columns {
        values::encode(out, effort, &column.values);
    }
}

/// Reads the selected rows of a table.
pub fn decode(reader: &mut Reader<'_>, selection: &Selection) -> Result<Vec<Attributes>, FormatError> {
    if selection.count() == 0 {
        return Ok(Vec::new());
    }
    let columns = reader.count()?;
    if columns == 0 {
        return Ok(vec![Attributes::default(); selection.len()]);
    }
    let keys = bytes::decode_strings(reader, &Selection::all(columns))?;
    let codes = integers::decode_indices(reader, &Selection::all(columns), usize::from(values::TYPES))?;
    let tree = Tree::read(reader, columns)?;
    let rows = integers::decode_indices(reader, &Selection::all(selection.count()), tree.parents.len() + 1)?;
    let wanted = tree.wanted_values(reader, &rows, selection, columns)?;
    let mut decoded = Vec::with_capacity(columns);
    for (code, wanted) in codes.into_iter().zip(&wanted) {
        decoded.push(values::decode(reader, code as u8, wanted)?.into_iter());
    }
    let mut path = Vec::new();
    selection
        .take(rows)
        .into_iter()
        .map(|mut node| {
            path.clear();
            while node > 0 {
                path.push(tree.columns[node - 1]);
                node = tree.parents[node - 1];
            }
            let pair = |column: &usize| {
                let value: AnyValue = decoded[*column].next().ok_or_else(|| reader.invalid())?;
                Ok((keys[*column].clone(), value))
            };
            Ok(Attributes(path.iter().rev().map(pair).collect::<Result<_, FormatError>>()?))
        })
        .collect()
}

/// A tree of key orders that was read: of each node without the root.
struct Tree {
    parents: Vec<usize>,
    columns: Vec<usize>,
}

impl Tree {
    fn read(reader: &mut Reader<'_>, columns: usize) -> Result<Self, FormatError> {
        let nodes = reader.count()?;
        let parents = integers::decode_indices(reader, &Selection::all(nodes), nodes + 1)?;
        let columns = integers::decode_indices(reader, &Selection::all(nodes), columns)?;
        let parent_is_earlier = parents.iter().enumerate().all(|(node, parent)| *parent <= node);
        if !parent_is_earlier {
            return Err(reader.invalid());
        }
        Ok(Tree { parents, columns })
    }

    /// Which values of each column the selected rows have. How many there are of all rows is bounded by the bytes
    /// that are left, whatever the tree says.
    fn wanted_values(
        &self,
        reader: &Reader<'_>,
        rows: &[usize],
        selection: &Selection,
        columns: usize,
    ) -> Result<Vec<Selection>, FormatError> {
        let mut counts = vec![0_u64; columns];
        let mut wanted = vec![Vec::with_capacity(selection.ranges().len()); columns];
        let mut row = 0;
        for range in selection.ranges() {
            self.count_values(&rows[row..range.start], &mut counts);
            let starts = counts.clone();
            self.count_values(&rows[range.clone()], &mut counts);
            for ((wanted, start), end) in wanted.iter_mut().zip(starts).zip(&counts) {
                wanted.push((start, *end));
            }
            row = range.end;
        }
        self.count_values(&rows[row..], &mut counts);
        reader.check_count(counts.iter().fold(0, |total, count| total.saturating_add(*count)))?;
        let selected = counts.into_iter().zip(wanted).map(|(count, wanted)| {
            Selection::of(count as usize, wanted.into_iter().map(|(start, end)| start as usize..end as usize))
        });
        Ok(selected.collect())
    }

    /// Adds how many values these rows have in each column: for each node on it, the rows whose path goes through
    /// the node.
    fn count_values(&self, rows: &[usize], counts: &mut [u64]) {
        let mut through = vec![0_u64; self.parents.len() + 1];
        for node in rows {
            through[*node] += 1;
        }
        for node in (1..through.len()).rev() {
            let count = through[node];
            through[self.parents[node - 1]] += count;
            let counts = &mut counts[self.columns[node - 1]];
            *counts = counts.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(rows: &[Attributes]) -> Vec<u8> {
        let mut last = Vec::new();
        for effort in [Effort::Small, Effort::Fast] {
            last.clear();
            encode(&mut last, effort, rows);
            let mut reader = Reader::new(&last, "attributes");
            assert_eq!(decode(&mut reader, &Selection::all(rows.len())).unwrap(), rows);
            reader.finish().unwrap();
        }
        last
    }

    #[test]
    fn order_duplicates_and_types_of_a_key_are_kept() {
        let value = |n: i64| AnyValue::Int(n);
        round_trip(&[
            Attributes(vec![("a".into(), value(1)), ("b".into(), "x".into()), ("a".into(), value(2))]),
            Attributes(vec![("b".into(), "y".into()), ("a".into(), value(3))]),
            Attributes::default(),
            Attributes(vec![("a".into(), "now a string".into()), ("".into(), AnyValue::Empty)]),
            Attributes(vec![("a".into(), value(4)), ("b".into(), "z".into()), ("a".into(), value(5))]),
        ]);
        round_trip(&[]);
        round_trip(&[Attributes::default()]);
    }

    #[test]
    fn thousands_of_empty_values_come_back() {
        let row = Attributes((0..100).map(|n| (n.to_string().into(), AnyValue::Empty)).collect());
        round_trip(&vec![row; 1000]);
    }

    #[test]
    fn a_tree_that_promises_more_values_than_its_bytes_can_hold_is_refused() {
        // One column, a chain of 127 nodes, 127 rows at its end: 16,129 values, and no bytes for them.
        let mut out = vec![1];
        bytes::encode(&mut out, Effort::Fast, &[b"k"]);
        integers::encode(&mut out, Effort::Fast, [3]);
        put_varint(&mut out, 127);
        integers::encode(&mut out, Effort::Fast, 0..127);
        integers::encode(&mut out, Effort::Fast, [0; 127]);
        integers::encode(&mut out, Effort::Fast, [127; 127]);
        integers::encode(&mut out, Effort::Fast, [7]);
        assert!(decode(&mut Reader::new(&out, "attributes"), &Selection::all(127)).is_err());
    }
}
