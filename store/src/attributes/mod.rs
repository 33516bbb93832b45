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

use crate::column::{Effort, FormatError, Reader, bytes, integers, put_varint, values};
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

/// Reads a table of `count` rows.
pub fn decode(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Attributes>, FormatError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let columns = reader.count()?;
    if columns == 0 {
        return Ok(vec![Attributes::default(); count]);
    }
    let keys = bytes::decode_strings(reader, columns)?;
    let codes = integers::decode_indices(reader, columns, usize::from(values::TYPES))?;
    let nodes = reader.count()?;
    let parents = integers::decode_indices(reader, nodes, nodes + 1)?;
    let node_columns = integers::decode_indices(reader, nodes, columns)?;
    let rows = integers::decode_indices(reader, count, nodes + 1)?;
    let parent_is_earlier = parents.iter().enumerate().all(|(node, parent)| *parent <= node);
    if !parent_is_earlier {
        return Err(reader.invalid());
    }

    let lengths = column_lengths(reader, &parents, &node_columns, &rows, columns)?;
    let mut decoded = Vec::with_capacity(columns);
    for (code, length) in codes.into_iter().zip(lengths) {
        decoded.push(values::decode(reader, code as u8, length)?.into_iter());
    }
    let mut path = Vec::new();
    rows.into_iter()
        .map(|mut node| {
            path.clear();
            while node > 0 {
                path.push(node_columns[node - 1]);
                node = parents[node - 1];
            }
            let pair = |column: &usize| {
                let value: AnyValue = decoded[*column].next().ok_or_else(|| reader.invalid())?;
                Ok((keys[*column].clone(), value))
            };
            Ok(Attributes(path.iter().rev().map(pair).collect::<Result<_, FormatError>>()?))
        })
        .collect()
}

/// How many values each column has: for each node on it, the rows whose path goes through the node. Their sum is
/// bounded by the bytes that are left, whatever the tree says.
fn column_lengths(
    reader: &Reader<'_>,
    parents: &[usize],
    node_columns: &[usize],
    rows: &[usize],
    columns: usize,
) -> Result<Vec<usize>, FormatError> {
    let mut through = vec![0_u64; parents.len() + 1];
    for node in rows {
        through[*node] += 1;
    }
    let mut lengths = vec![0_u64; columns];
    let mut total = 0_u64;
    for node in (1..through.len()).rev() {
        let count = through[node];
        through[parents[node - 1]] += count;
        lengths[node_columns[node - 1]] += count;
        total = total.saturating_add(count);
    }
    reader.check_count(total)?;
    Ok(lengths.into_iter().map(|length| length as usize).collect())
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
            assert_eq!(decode(&mut reader, rows.len()).unwrap(), rows);
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
        assert!(decode(&mut Reader::new(&out, "attributes"), 127).is_err());
    }
}
